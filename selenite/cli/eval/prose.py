"""Loss on prose."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def prose(
    model: Annotated[Path, typer.Argument(help="A model directory.")],
    base: Annotated[
        Path | None, typer.Option(help="The model that it began with, to compare with.")
    ] = None,
    windows: Annotated[int, typer.Option(min=2, help="Of 1024 tokens each.")] = 64,
) -> None:
    """Loss on prose that nothing here is trained on, and what fine-tuning added to it."""
    from selenite import runtime
    from selenite.eval.prose import read_prose

    runtime.apply_threads()
    dtype = runtime.torch_dtype(runtime.choose_dtype("auto").value)
    own = read_prose(model, dtype, windows)
    typer.echo(f"{model}: {own.loss:.4f} nats per token")
    if base is not None:
        known = read_prose(base, dtype, windows)
        mean, low, high = own.worse_than(known)
        typer.echo(f"{base}: {known.loss:.4f} nats per token")
        typer.echo(f"worse by {mean:+.2%} (95 % of windows' means: {low:+.2%} to {high:+.2%})")
