"""What ``selenite eval`` refuses before anything is served."""

from __future__ import annotations

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
