"""``selenite eval SUITE MODEL``: measure a model, or the engine that serves it.

A command is a function of one of these files.
"""

from __future__ import annotations

import typer

from selenite.cli.eval.long_texts import layers, longcontext
from selenite.cli.eval.parity import parity
from selenite.cli.eval.prose import prose
from selenite.cli.eval.questions import acebench, bfcl, compare, functions, ifeval
from selenite.cli.eval.tau2 import tau2
from selenite.cli.eval.vendor import vendor
from selenite.cli.eval.worlds import worlds

eval = typer.Typer(no_args_is_help=True, help="Measure a model between its floors and its ceiling.")
for command in (
    *(bfcl, acebench, ifeval, functions, compare, worlds, tau2, vendor, prose),
    *(longcontext, layers, parity),
):
    eval.command()(command)
