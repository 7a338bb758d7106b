"""The engine against the trainer."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from selenite.cli.eval.targets import dtype_of

if TYPE_CHECKING:
    from selenite.eval.parity import Parity


def parity(
    model: Annotated[Path, typer.Argument(help="A run directory or a model directory.")],
    dtype: Annotated[str, typer.Option(help="auto, bfloat16 or float32.")] = "auto",
    batch_invariant: Annotated[
        bool, typer.Option(help="In the mode in which every difference must be 0.")
    ] = False,
    prompts: Annotated[int, typer.Option(min=2, help="Requests in a batch.")] = 12,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of each completion.")] = 24,
    as_json: Annotated[bool, typer.Option("--json", help="Print the same as JSON.")] = False,
) -> None:
    """Log-probabilities of the engine against the trainer's; exits with 1 where batch-invariant
    mode has a difference."""
    from selenite import runtime
    from selenite.chat.tokenizer import Tokenizer
    from selenite.eval import parity

    if batch_invariant:
        runtime.enable_batch_invariant()
    runtime.apply_threads()
    chosen = dtype_of(dtype)
    trained, served, exact = parity.load(model, runtime.torch_dtype(chosen.value))
    longest = min(192, trained.config.max_positions // 2)
    texts = parity.prompts(Tokenizer.load(model), prompts, longest)
    found = parity.compare(trained, served, texts, max_tokens, exact)
    mode = "batch-invariant" if batch_invariant else "fast"
    _print(found, f"{model}: {chosen.value}, {mode} mode", as_json)
    if batch_invariant and not found.is_exact:
        raise typer.Exit(1)


def _print(found: Parity, title: str, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"title": title} | asdict(found)))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for name in ("against one batch of the engine", "largest", "mean", "tokens", "part ways"):
        table.add_column(name, justify="left" if table.row_count == 0 else "right")
    for each in [*found.differences, *([found.rounding] if found.rounding else [])]:
        parted = str(each.other_tokens)
        numbers = (f"{each.largest:.2e}", f"{each.mean:.2e}", str(each.tokens), parted)
        table.add_row(each.name, *numbers)
    Console().print(table)
