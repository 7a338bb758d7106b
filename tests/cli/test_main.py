"""The command line's frame: exit codes, error lines, version. Commands have tests of their own."""

from __future__ import annotations

import signal
import subprocess
import sys
from importlib.metadata import version

import pytest

from selenite import errors
from selenite.cli import main as cli


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "selenite", *arguments], capture_output=True, text=True, timeout=60
    )


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch):
    """Makes the command ``fail`` raise what it is given, beside the real commands."""
    monkeypatch.setattr(cli.app, "registered_commands", list(cli.app.registered_commands))

    def command_raising(error: BaseException) -> None:
        def fail() -> None:
            raise error

        cli.app.command("fail")(fail)

    return command_raising


def test_version_and_help() -> None:
    asked = run("--version")
    assert (asked.returncode, asked.stdout) == (0, f"selenite {version('selenite')}\n")
    shown = run("--help")
    assert shown.returncode == 0
    assert "--version" in shown.stdout


def test_an_unknown_command_is_a_usage_error() -> None:
    wrong = run("pretrian")
    assert wrong.returncode == 2
    assert "pretrian" in wrong.stderr
    assert "Traceback" not in wrong.stderr


@pytest.mark.parametrize(
    "error",
    [
        errors.SeleniteError("plain"),
        errors.ConfigError("optim.lr = -1: should be greater than 0"),
        errors.DataError("no text in /corpus"),
        errors.CheckpointError("step 4 fails its checksum"),
        errors.StorageError("the disk is full"),
        errors.MissingExtraError("datasets", "datasets", "reading the Hugging Face hub"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_mendable_error_is_one_message_and_its_code(failing, capsys, error) -> None:
    failing(error)
    with pytest.raises(SystemExit) as left:
        cli.main(["fail"])
    assert left.value.code == type(error).exit_code
    assert capsys.readouterr().err == f"error: {error}\n"


def test_a_bug_keeps_its_traceback(failing) -> None:
    failing(ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError):
        cli.main(["fail"])


def test_an_interrupt_has_the_shells_code(failing) -> None:
    failing(KeyboardInterrupt())
    with pytest.raises(SystemExit) as left:
        cli.main(["fail"])
    assert left.value.code == 128 + signal.SIGINT


def test_exit_codes_of_different_families_differ() -> None:
    families = errors.SeleniteError.__subclasses__()
    codes = {family.exit_code for family in families}
    assert 0 not in codes
    assert len(codes) >= len(families) - 2  # data, tokenizer and conversation share one
