"""Result rows: their rules, the rendered page, and that prose quotes no number but theirs."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from benchmarks import results
from benchmarks.results import ResultsError, Row, read, render
from experiments import quickstart
from selenite import runtime

ROOT = results.ROOT
PROSE = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NUMBER = r"-?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?"
TAG = re.compile(r"\[([a-z0-9_]+(?:\.[a-z0-9_]+)+)\](?!\()")
"""A row's id in square brackets, not followed by a link's address."""
QUOTED = re.compile(rf"(?<![\w.])({NUMBER})(?: ?[^\s\d\[\]]+)? \[([a-z0-9_]+(?:\.[a-z0-9_]+)+)\]")
"""``0.93 [optim.x]`` or ``12 s [train.y]``: a number, at most one unit word, the row's id."""

SOUND = {
    "id": "optim.some_ratio",
    "claim": "the batched form takes less time than the loop",
    "value": 0.5,
    "unit": "time ratio",
    "low": 0.4,
    "high": 0.75,
    "runs": 5,
    "target": "<= 0.6",
    "reference": {"name": "the loop", "value": 1.0, "source": "same run"},
    "command": "python -m benchmarks.results",
    "note": "",
    "commit": "0" * 40,
    "machine": "some processor, 2 cores",
    "date": "2026-01-31",
}


def quotes(text: str, rows: dict[str, Row]) -> list[str]:
    """What is wrong with the numbers that ``text`` quotes from rows, code blocks aside."""
    wrong = []
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    quoted = QUOTED.findall(text)
    for tag in TAG.findall(text):
        if tag not in rows:
            wrong.append(f"[{tag}] is no row")
        elif tag not in [row for _, row in quoted]:
            wrong.append(f"[{tag}] stands behind no number")
    for number, tag in quoted:
        digits = len(number.partition(".")[2]) if "e" not in number else 0
        unit = 10.0**-digits if "e" not in number else 0.1 * abs(float(number))
        # A quoted number is a rounded one: it may be off by half of its last digit.
        if tag in rows and abs(float(number.replace(",", "")) - rows[tag].value) > 0.5001 * unit:
            wrong.append(f"{number} [{tag}] but the row has {rows[tag].value}")
    return wrong


def missing_part(command: str) -> str | None:
    """The module, script or target that ``command`` starts and that does not exist."""
    words = shlex.split(command)
    if words[:2] == ["python", "-m"]:
        parts = words[2].split(".")
        module = ROOT.joinpath(*parts)
        exists = module.with_suffix(".py").exists() or (module / "__main__.py").exists()
        return None if exists else words[2]
    if words[0] == "python":
        return None if (ROOT / words[1]).exists() else words[1]
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return None if words[1] in targets else words[1]
    if words[0] == "selenite":
        file = ROOT / "selenite" / "cli" / (words[1].replace("-", "_") + ".py")
        return None if file.exists() else words[1]
    return words[0]


# --- what the repository holds


def test_the_page_is_in_step_with_the_rows() -> None:
    assert results.PAGE.read_text(encoding="utf-8") == render(read()), "run: make results"


def test_every_row_has_a_clean_commit_and_a_command_that_exists() -> None:
    for row in read().values():
        assert "dirty" not in row.commit, f"{row.id}: measure again on a committed tree"
        assert missing_part(row.command) is None, row.id


@pytest.mark.parametrize("path", PROSE, ids=lambda path: path.name)
def test_prose_quotes_the_rows(path: Path) -> None:
    assert quotes(path.read_text(encoding="utf-8"), read()) == []


# --- the rules themselves


def test_quotes_finds_what_is_wrong() -> None:
    rows = {"optim.some_ratio": Row(**SOUND)}
    assert quotes("it takes 0.5 [optim.some_ratio], or 0.50 × [optim.some_ratio]", rows) == []
    assert quotes("see [docs.page](docs/page.md) and [1]", rows) == []
    assert "but the row has 0.5" in quotes("takes 0.6 [optim.some_ratio]", rows)[0]
    assert "but the row has 0.5" in quotes("takes 0.49 s [optim.some_ratio]", rows)[0]
    assert "is no row" in quotes("takes 0.5 [optim.other]", rows)[0]
    assert "behind no number" in quotes("takes less [optim.some_ratio]", rows)[0]
    large = {"some.tokens": Row(**{**SOUND, "id": "some.tokens", "value": 1234567, "high": 2e6})}
    assert quotes("1,234,567 tokens [some.tokens]", large) == []
    assert quotes("1.2e6 tokens [some.tokens]", large) == []
    assert quotes("1.4e6 tokens [some.tokens]", large) != []


def test_missing_part() -> None:
    assert missing_part("python -m benchmarks.results verify x") is None
    assert missing_part("python -m benchmarks.nothing") == "benchmarks.nothing"
    assert missing_part("python experiments/nothing.py") == "experiments/nothing.py"
    assert missing_part("make results") is None
    assert missing_part("make nothing") == "nothing"
    assert missing_part("selenite nothing") == "nothing"


@pytest.mark.parametrize(
    "change",
    [
        {"id": "NoDots"},
        {"claim": ""},
        {"claim": "a | b"},
        {"note": "two\nlines"},
        {"value": float("nan")},
        {"value": 0.8},  # outside [low, high]
        {"runs": 0},
        {"target": "about 1"},
        {"commit": "main"},
        {"surprise": 1},
    ],
    ids=str,
)
def test_a_row_that_breaks_a_rule(change: dict[str, object]) -> None:
    Row.model_validate(SOUND)
    with pytest.raises(ValidationError):
        Row.model_validate({**SOUND, **change})


@pytest.mark.parametrize(
    ("target", "met"), [("<= 0.5", True), ("<= 0.49", False), (">= 0.5", True), (None, None)]
)
def test_met(target: str | None, met: bool | None) -> None:
    assert Row.model_validate({**SOUND, "target": target}).met is met


@given(st.floats(0.1, 100))
def test_the_quickstarts_range_holds_its_value_and_its_target(minutes: float) -> None:
    low, high = quickstart.rerun_range(minutes)
    assert low < minutes <= high
    assert (high <= quickstart.TARGET_MINUTES) == (minutes <= quickstart.TARGET_MINUTES)


@given(st.sampled_from([None, "<= 0.1", ">= 0.1"]), st.booleans(), st.sampled_from(["", "a note"]))
def test_each_rendered_line_has_all_columns(target, has_reference: bool, note: str) -> None:
    reference = SOUND["reference"] if has_reference else None
    row = Row.model_validate({**SOUND, "target": target, "reference": reference, "note": note})
    table = [line for line in render({row.id: row}).splitlines() if line.startswith("|")]
    assert len(table) == 3
    assert len({line.count("|") for line in table}) == 1


def test_misnamed_and_broken_rows(tmp_path: Path) -> None:
    (tmp_path / "other.name.json").write_text(json.dumps(SOUND))
    with pytest.raises(ResultsError, match="name the file after it"):
        read(tmp_path)
    (tmp_path / "other.name.json").write_text("{")
    with pytest.raises(ResultsError, match="not a result row"):
        read(tmp_path)


# --- recording and verifying, in a repository made for it

BENCHMARK = """
import sys
from benchmarks.results import record

value = float(open("value.txt").read())
record("some.value", "a value is read", value, "s", low=value - 1, high=value + 1, runs=1,
       target="<= 4", reference=None, command="python -m benchmarks.some")
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A git checkout holding ``benchmarks`` and a benchmark of one number."""
    (tmp_path / "benchmarks").mkdir()
    for name in ("__init__.py", "results.py"):
        (tmp_path / "benchmarks" / name).write_text((ROOT / "benchmarks" / name).read_text())
    (tmp_path / "benchmarks" / "some.py").write_text(BENCHMARK)
    (tmp_path / "value.txt").write_text("3")
    (tmp_path / ".gitignore").write_text("__pycache__/\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "-c", "user.name=n", "-c", "user.email=e@x", "commit", "-q", "-m", "start")
    return tmp_path


def git(where: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=where, check=True)


def python(where: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=where,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.slow
def test_record_render_and_verify(checkout: Path) -> None:
    for _ in range(2):  # a row and its page are no change of the tree
        done = python(checkout, "benchmarks.some")
        assert done.returncode == 0, done.stderr
        assert python(checkout, "benchmarks.results").returncode == 0
    row = read(checkout / "dev" / "results")["some.value"]
    assert (row.value, row.met) == (3.0, True)
    assert "dirty" not in row.commit
    facts = runtime.describe_machine()
    for fact in ("cpu", "capability", "torch"):
        assert facts[fact] in row.machine
    assert f"{facts['cores']} cores" in row.machine
    assert "`some.value`" in (checkout / "dev" / "RESULTS.md").read_text()

    for value, code, verdict in (("3.9", 0, "holds"), ("4.1", 1, "DOES NOT HOLD")):
        (checkout / "value.txt").write_text(value)
        again = python(checkout, "benchmarks.results", "verify", "some.value")
        assert (again.returncode, verdict in again.stdout) == (code, True), again.stderr
    assert read(checkout / "dev" / "results")["some.value"].value == 3.0  # verify writes nothing

    (checkout / "value.txt").unlink()
    assert (
        "failed with exit 1"
        in python(checkout, "benchmarks.results", "verify", "some.value").stderr
    )
    assert "there are: some.value" in python(checkout, "benchmarks.results", "verify", "x.y").stderr


def test_a_changed_tree_is_refused_or_marked(checkout: Path) -> None:
    (checkout / "new.txt").write_text("untracked")
    refused = python(checkout, "benchmarks.some")
    assert refused.returncode != 0
    assert "is not written" in refused.stderr
    assert '"value":3.0' in refused.stdout.replace(" ", "")  # the measured number is not lost
    assert not (checkout / "dev").exists()
    assert python(checkout, "benchmarks.some", ALLOW_DIRTY="1").returncode == 0
    assert read(checkout / "dev" / "results")["some.value"].commit.endswith("+dirty")


def test_recording_outside_a_checkout(checkout: Path) -> None:
    shutil.rmtree(checkout / ".git")
    done = python(checkout, "benchmarks.some")
    assert done.returncode != 0
    assert "rows are recorded in a git checkout" in done.stderr
