"""``selenite serve MODEL``: answer OpenAI clients with a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_OPTIONS = {
    "layout": "--kv-layout",
    "page_size": "--block-size",
    "cache_tokens": "--kv-cache-tokens",
    "max_running": "--max-num-seqs",
    "max_step_tokens": "--max-num-batched-tokens",
}
"""Fields of ``ServeConfig`` whose option has another name."""


def serve(
    model: Annotated[Path, typer.Argument(help="A run directory or a model directory.")],
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any free one.")] = 8000,
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            envvar="SELENITE_API_KEY",
            help="A key that clients must send; may be given several times.",
        ),
    ] = None,
    admin: Annotated[
        bool, typer.Option(help="Let clients pause the server, let it sleep, and swap weights.")
    ] = False,
    served_model_name: Annotated[
        str | None, typer.Option(help="What clients call the model; the directory's name.")
    ] = None,
    lora_modules: Annotated[
        list[str] | None,
        typer.Option(help="NAME=DIRECTORY of a LoRA adapter; clients name it as the model."),
    ] = None,
    dtype: Annotated[str, typer.Option(help="auto, bfloat16 or float32.")] = "auto",
    quantization: Annotated[
        str | None,
        typer.Option(
            help="int8: dense layers and head in half the bytes; faster for few sequences."
        ),
    ] = None,
    kv_cache_tokens: Annotated[
        int | None, typer.Option(help="Tokens that the cache holds; planned by default.")
    ] = None,
    block_size: Annotated[int, typer.Option(help="Tokens of a page of the cache.")] = 16,
    kv_layout: Annotated[
        str, typer.Option(help="expanded, or latent: less memory for latent attention.")
    ] = "expanded",
    attention: Annotated[
        str | None,
        typer.Option(
            help="What is read of the context: full, moba, or a JSON object (also modes tidal and "
            "keepkv); the model's own."
        ),
    ] = None,
    max_num_seqs: Annotated[int, typer.Option(help="Completions that run at once.")] = 64,
    max_num_batched_tokens: Annotated[int, typer.Option(help="Tokens of a step.")] = 512,
    tool_call_profile: Annotated[
        str | None, typer.Option(help="How the model writes tool calls; found out by default.")
    ] = None,
    batch_invariant: Annotated[
        bool, typer.Option(help="Text does not depend on the requests beside it, bit for bit.")
    ] = False,
    request_timeout: Annotated[float, typer.Option(help="Seconds for a request.")] = 1800.0,
    shutdown_timeout: Annotated[
        float, typer.Option(help="Seconds for what runs when the server is told to stop.")
    ] = 30.0,
) -> None:
    """Serve MODEL to OpenAI clients."""
    from pydantic import ValidationError

    from selenite.errors import ConfigError, MissingExtraError

    try:
        from selenite.serve.http.server import run_server
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "fastapi", "serve", "selenite serve") from error
    from selenite.serve.attention_mode import read_mode
    from selenite.serve.config import ServeConfig

    adapters: dict[str, Path] = {}
    for entry in lora_modules or ():
        name, _, directory = entry.partition("=")
        if not name or not directory:
            raise ConfigError(f"--lora-modules {entry}: must be NAME=DIRECTORY")
        if name in adapters:
            raise ConfigError(f"--lora-modules {entry}: {name} is {adapters[name]} already")
        adapters[name] = Path(directory)
    try:
        config = ServeConfig(
            model=model,
            served_model_name=served_model_name,
            host=host,
            port=port,
            api_keys=tuple(api_key or ()),
            admin=admin,
            adapters=adapters,
            dtype=dtype,
            quantization=quantization,
            batch_invariant=batch_invariant,
            profile=tool_call_profile,
            layout=kv_layout,
            attention=None if attention is None else read_mode(attention),
            page_size=block_size,
            cache_tokens=kv_cache_tokens,
            max_running=max_num_seqs,
            max_step_tokens=max_num_batched_tokens,
            request_timeout=request_timeout,
            shutdown_timeout=shutdown_timeout,
        )
    except ValidationError as error:
        fault = error.errors()[0]
        field = ".".join(map(str, fault["loc"]))
        option = _OPTIONS.get(field) or f"--{field.replace('_', '-')}"
        told = f"{option} {fault['input']}: " if field else ""  # a rule of several says which
        raise ConfigError(told + fault["msg"].removeprefix("Value error, ")) from error
    run_server(config, typer.echo)
