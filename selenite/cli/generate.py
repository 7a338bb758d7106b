"""``selenite generate MODEL``: write text with a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def generate(
    model: Annotated[Path, typer.Argument(help="A run directory or a model directory.")],
    prompt: Annotated[
        list[str] | None, typer.Option(help="Text to continue; may be given several times.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(help="Tokens to write at most.")] = 128,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.8,
    top_k: Annotated[int, typer.Option(help="Keep the k likeliest tokens; 0 keeps all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Keep the likeliest tokens of this mass.")] = 0.95,
    min_p: Annotated[float, typer.Option(help="Drop tokens below this share of the best.")] = 0.0,
    seed: Annotated[int, typer.Option(help="The same seed writes the same text.")] = 0,
    adapter: Annotated[
        Path | None, typer.Option(help="A LoRA adapter of this model: the directory of one.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="auto, bfloat16 or float32.")] = "auto",
    batch_invariant: Annotated[
        bool, typer.Option(help="Text does not depend on the prompts beside it, bit for bit.")
    ] = False,
) -> None:
    """Continue each prompt and print it with its continuation."""
    from selenite.errors import ConfigError
    from selenite.llm import LLM
    from selenite.types import SamplingParams

    try:
        params = SamplingParams(
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            max_tokens=max_tokens,
            seed=seed,
        )
    except ValueError as wrong:
        raise ConfigError(str(wrong)) from wrong
    if dtype not in ("auto", "bfloat16", "float32"):
        raise ConfigError(f"--dtype {dtype}: must be auto, bfloat16 or float32")
    llm = LLM(model, dtype, batch_invariant, adapter)  # type: ignore[arg-type]
    prompts = prompt or ["def ", "import ", "The "]
    for text, completion in zip(prompts, llm.generate(prompts, params), strict=True):
        typer.secho(text, bold=True, nl=False)
        typer.echo(completion.text)
        typer.secho(f"── {len(completion.token_ids)} tokens, {completion.finish_reason}", dim=True)
