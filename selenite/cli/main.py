"""The command line: ``selenite COMMAND``, one short file per command in this folder.

The file ``run_batch.py`` holds the function ``run_batch`` and is the command ``run-batch``; where
it is a ``Typer`` instead, it is a group of commands, of which a large one is a folder. It imports
what is heavy (torch above all) inside that function, so that ``--help`` answers at once. An error
that the user can mend is printed without a traceback, and the exit code says its kind
(``selenite/errors.py``).
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated

import typer

import selenite.cli
from selenite import log
from selenite.errors import SeleniteError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Train, teach and serve agentic mixture-of-experts language models.",
)


def _register_commands() -> None:
    """Adds each other file of this folder as a command."""
    for file in pkgutil.iter_modules(selenite.cli.__path__):
        if file.name != "main":
            module = importlib.import_module(f"selenite.cli.{file.name}")
            command, name = getattr(module, file.name), file.name.replace("_", "-")
            if isinstance(command, typer.Typer):
                app.add_typer(command, name=name)
            else:
                app.command(name)(command)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"selenite {version('selenite')}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    log.set_up()


_register_commands()


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line (``sys.argv`` by default) and exits the process with its code.

    An interrupt from the keyboard exits with 130, as typer has it.
    """
    try:
        app(arguments)
    except SeleniteError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
