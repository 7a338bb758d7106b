"""What a model earns without learning: the same numbers as a run's first evaluation."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from selenite.cli.main import app
from selenite.clock import SystemClock
from selenite.config import load
from selenite.eval.statistics import mean_interval, wilson
from selenite.rl.config import RlConfig
from selenite.rl.measure import measure, open_environments
from selenite.rl.run import rl
from tests.fixtures.server import make_model

# A question's score is 1 or 0, and an untrained model's is 0: what is given in parts is not.
PARTS = """
from selenite.rl.gym.environment import Budget, Check, Score
from selenite.types import Message


class Parts:
    name, budget = "parts", Budget(16)

    def begin(self, number):
        return Said(number)


class Said:
    tools = ()

    def __init__(self, number):
        self.opening, self.text = [Message("user", f"Say {number}.")], ""

    def reply(self, turn):
        self.text = turn.content
        return []

    def score(self):
        return Score((Check("vowels", sum(c in "aeiou" for c in self.text) / 64),))
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_model(tmp_path)
    (tmp_path / "vowel_parts.py").write_text(PARTS, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "run.toml"
    path.write_text(
        f"""
[train]
init_from = {json.dumps(str(tmp_path / "tiny"))}
out_dir = {json.dumps(str(tmp_path / "out"))}
steps = 1
seq_len = 512
micro_batch_tokens = 2048
batch_tokens = 2048
dtype = "float32"

[[environments]]
kind = "python"
factory = "vowel_parts:Parts"

[rollouts]
groups = 1
size = 2
cache_tokens = 8192
actor = {{ truncated = 0.5 }}

[evaluation]
tasks = 9
attempts = 3
temperature = 1.0

[optim]
name = "adamw"
""",
        encoding="utf-8",
    )
    return path


def test_it_measures_what_a_run_measures_first(config: Path) -> None:
    settings = load(RlConfig, config, [])
    (measured,) = measure(settings, SystemClock())
    assert measured.environment == "parts"
    assert measured.failed == 0
    assert len(measured.rewards) == 27
    assert 0 <= min(measured.rewards) < max(measured.rewards) <= 1
    rl(settings, SystemClock(), peak_flops=1e11)
    lines = (settings.train.out_dir / "metrics.jsonl").read_text().splitlines()
    first = next(row for row in map(json.loads, lines) if "val_reward.parts" in row)
    assert first["val_reward.parts"] == pytest.approx(sum(measured.rewards) / 27, rel=1e-12)


def test_the_command(config: Path) -> None:
    result = CliRunner().invoke(app, ["rl", "measure", str(config), "evaluation.tasks=4"])
    assert result.exit_code == 0, result.output
    found = re.search(r"parts (\S+) \((\S+) to (\S+)\) of 12 held-out attempts", result.output)
    assert found is not None, result.output
    value, low, high = map(float, found.groups())
    assert 0 <= low <= value <= high <= 1


def test_what_a_critic_judges_has_its_own_name(config: Path) -> None:
    """The same kind may be there twice, as in a run."""
    settings = load(RlConfig, config, [])
    parts = [{"kind": "logic"}, {"kind": "logic", "judged": True}]
    twice = settings.model_validate({**settings.model_dump(), "environments": parts, "critic": {}})
    assert [one.name for one in open_environments(twice)] == ["logic", "logic.judged"]


def test_a_model_that_is_not_there_is_named(config: Path) -> None:
    result = CliRunner().invoke(app, ["rl", "measure", str(config), "train.init_from=nowhere"])
    assert result.exit_code != 0
    assert "nowhere" in str(result.exception)


def test_intervals_hold_their_mean() -> None:
    assert mean_interval([1.0, 0.0, 1.0]) == wilson(2, 3)
    low, high = mean_interval([0.2, 0.4, 0.9, 0.5])
    assert 0.2 <= low < 0.5 < high <= 0.9
    assert mean_interval([0.0] * 20)[1] > 0  # nothing was right, which is not certain
