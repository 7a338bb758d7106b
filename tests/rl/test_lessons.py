"""What environments show of themselves: played, earned, and readable by fine-tuning."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import TypeAdapter
from typer.testing import CliRunner

from selenite.cli.main import app
from selenite.data.chat_rows import read_chat_rows
from selenite.errors import ConfigError
from selenite.rl.gym.config import EnvironmentPart
from selenite.rl.gym.environment import HELD_OUT, SHOWN
from selenite.rl.gym.house.environment import HouseKeeping
from selenite.rl.lessons import write_lessons

CONFIG = """
[train]
init_from = "none"
out_dir = "other"
steps = 1

[[environments]]
kind = "house"
level = 3

[[environments]]
kind = "math"
"""


def part(**values: object) -> EnvironmentPart:
    found: EnvironmentPart = TypeAdapter(EnvironmentPart).validate_python(values)
    return found


def test_lessons_are_conversations_that_solve_tasks(tmp_path: Path) -> None:
    path = tmp_path / "lessons.jsonl"
    assert write_lessons([part(kind="house", level=3), part(kind="math")], 50, path) == 50
    rows = read_chat_rows([str(path)])
    assert len(rows) == 50
    assert {row.group for row in rows} == {"house"}
    assert 200 < SHOWN < SHOWN + 50 < HELD_OUT
    for number, row in enumerate(rows, SHOWN):
        house = HouseKeeping(3)
        episode = house.begin(number)
        assert list(row.messages[: len(episode.opening)]) == list(episode.opening)
        for message in row.messages:
            if message.role == "assistant":
                episode.reply(message)
        assert episode.score().value == 1
        assert row.tools == tuple(episode.tools)
        assert not row.untrained


def test_who_cannot_show_anything_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="math: none can do its own tasks"):
        write_lessons([part(kind="math")], 5, tmp_path / "lessons.jsonl")
    assert not list(tmp_path.iterdir())


def test_the_command(tmp_path: Path) -> None:
    config, out = tmp_path / "run.toml", tmp_path / "lessons.jsonl"
    config.write_text(CONFIG, encoding="utf-8")
    result = CliRunner().invoke(app, ["rl", "lessons", str(config), str(out), "--tasks", "3"])
    assert result.exit_code == 0, result.output
    assert "3 conversations" in result.output
    assert len([json.loads(line) for line in out.read_text().splitlines()]) == 3
