"""What ``selenite eval`` refuses before anything is served."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from selenite.cli.eval import eval as command
from selenite.errors import ConfigError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["functions", "--base", "runs/base"], "--base runs/base: is measured beside a model"),
        (["functions", "one/nano", "--base", "other/nano"], "has the name of the model itself"),
        (["functions", "nano", "--url", "http://127.0.0.1:1"], "a model directory or --url"),
        (["worlds", "--axis", "height"], "axis 'height': must be one of in-domain, category"),
        (["tau2", "--mode", "guess"], "--mode guess: must be one of ticket, slots, next-action"),
        (["tau2", "nano", "--mode", "llm"], "--mode llm needs --user-url"),
    ],
)
def test_what_cannot_be_is_refused(arguments: list[str], message: str) -> None:
    error = CliRunner().invoke(command, arguments).exception
    assert isinstance(error, ConfigError)
    assert message in str(error)


def test_bounds_without_a_model(tmp_path: Path) -> None:
    small = ["--each", "2", "--domains", "1", "--axis", "in-domain", "--class", "clean"]
    found = CliRunner().invoke(command, ["worlds", *small, "--out", str(tmp_path)])
    assert found.exit_code == 0, found.output
    result = json.loads(next((tmp_path / "bounds").glob("worlds-*.json")).read_text())
    passed = {name: agent["in-domain"]["pass^k"] for name, agent in result["agents"].items()}
    assert passed["null"] == [0]
    assert passed["oracle"] == [1]
    assert result["protocol"]["classes"] == ["clean"]
