"""README's ``sh`` and ``python`` blocks, each command run once, in order, in a checkout's copy.

The copy's ``configs/nano*.toml`` of the quickstart are shortened to two steps of a toy on a few
hundred kilobytes of text, and of what it is taught then. A ``make`` line is run as the commands
that it expands to. What installs packages only goes as far as it can without an index:
``experiments/quickstart.py`` installs them.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from selenite.train.summary import Summary

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
SHORT = {
    "nano": """
base = ["nano.whole.toml", "tiny.toml"]
train = { out_dir = "runs/nano", steps = 2 }
model.max_positions = 1024
data.split.holdout = []
""",
    "nano-sft": """
base = ["nano-sft.whole.toml"]
train = { steps = 2, seq_len = 1024, batch_tokens = 1024, micro_batch_tokens = 1024 }
""",
    "nano-rl": """
base = ["nano-rl.whole.toml"]
train = { steps = 2 }
evaluation = { tasks = 2 }
rollouts = { groups = 2, size = 2, cache_tokens = 8192 }

[[environments]]
kind = "house"
tokens = 16
""",
}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The tracked files as they are now, the quickstart shortened."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).exists():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    configs = tmp_path / "configs"
    for name, text in SHORT.items():
        (configs / f"{name}.toml").rename(configs / f"{name}.whole.toml")
        (configs / f"{name}.toml").write_text(text, encoding="utf-8")
    return tmp_path


def run(command: list[str | Path], where: Path) -> str:
    """What the command prints, this environment's programs first and no package index in sight."""
    outer = re.compile("MAKE|MFLAGS|PYTEST_")  # of the make and pytest that run this test
    environment = {
        **{name: value for name, value in os.environ.items() if not outer.match(name)},
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PIP_NO_INDEX": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def expand(line: str, where: Path) -> list[str]:
    """A line of README as those to run: ``make`` expanded, its environment being this one."""
    words = shlex.split(line, comments=True)
    if words[:1] != ["make"]:
        return [line] if words else []
    recipe = run(["make", "-n", *words[1:], f"BIN={BIN}"], where)
    made = [step for step in recipe.splitlines() if not re.search(r"^touch | -m venv ", step)]
    return [shortened for step in made for shortened in expand(step, where)]


def shorten(line: str) -> str:
    """The same command on less."""
    if " pytest " in line:
        return f"{line} tests/test_clock.py"
    if "pip install" in line:
        return f"{line} --dry-run --no-deps --no-build-isolation"
    return line


def test_every_block_of_the_readme_is_of_a_kind_that_is_checked() -> None:
    """The layout, a text, has a test of its own in ``test_house.py``."""
    assert {language for language, _ in BLOCKS} == {"sh", "python", "text", "console"}
    assert len(BLOCKS) * 2 == len(re.findall(r"^```", README, re.MULTILINE))


def test_a_command_that_does_not_exist_is_seen(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="pretrian"):
        run(["bash", "-c", shorten("selenite pretrian")], tmp_path)


@pytest.mark.slow
def test_the_commands_of_the_readme_work(copy: Path) -> None:
    printed: dict[str, str] = {}
    for language, block in BLOCKS:
        if language == "python":
            printed[block] = run([sys.executable, "-c", block], copy)
        elif language == "sh":
            lines = [line for text in block.splitlines() for line in expand(text, copy)]
            assert lines, block
            for line in lines:
                if line not in printed:
                    printed[line] = run(["bash", "-c", shorten(line)], copy)
    trained = list((copy / "runs").glob("*/summary.json"))
    assert {copy / f"runs/{name}/summary.json" for name in SHORT} <= set(trained)
    for path in trained:
        summary = Summary.model_validate_json(path.read_text())
        assert summary.steps == 2, "the shortened config was not used"
    for part, expected in {
        "pretrain configs/nano.toml": "held-out bits per byte",
        'generate runs/nano --prompt "def "': "def ",
        "rl measure configs/nano-rl.toml": "of 2 held-out attempts",
        "rl lessons configs/nano-rl.toml": "8,000 conversations",
        "rl run configs/nano-rl.toml": "held-out reward of house",
        " -m pytest ": "passed",
        "pip install": "Would install selenite",
        "LLM(": "",
    }.items():
        outputs = [output for command, output in printed.items() if part in command]
        assert outputs, f"README does not show {part}"
        assert all(expected in output for output in outputs), part
    for command, output in printed.items():
        if re.search(r"pretrain .*=", command):
            assert "is finished" not in output, f"{command}: its override came to nothing"
