"""Options that the suites share, and who is measured."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from selenite.eval.measure import Target
    from selenite.types import Decision

Model = Annotated[
    Path | None,
    typer.Argument(help="A model directory, which is served for this; none: only the bounds."),
]
Url = Annotated[str | None, typer.Option(help="A server that runs, in the place of a model.")]
Key = Annotated[str | None, typer.Option(envvar="SELENITE_API_KEY", help="Of that server.")]
Name = Annotated[str | None, typer.Option("--model", help="As that server names it.")]
Remote = Annotated[bool, typer.Option(help="Load a server that is not on this machine.")]
Base = Annotated[
    Path | None, typer.Option(help="The model that it was taught from, to be measured beside it.")
]
Free = Annotated[bool, typer.Option(help="Also without a grammar for calls (our own server only).")]
Tag = Annotated[
    str | None, typer.Option(help="With --url: use the answers of an earlier call of this tag.")
]
Out = Annotated[Path, typer.Option(help="Folder of answers and results.")]
Concurrency = Annotated[int, typer.Option(min=1, help="Requests under way at once.")]
MaxTokens = Annotated[int, typer.Option(min=1, help="The most tokens of an answer.")]


def target_of(
    directory: Path | None,
    url: str | None,
    api_key: str | None,
    model: str | None,
    allow_remote: bool,
    tag: str | None,
) -> Target | None:
    """Who is measured; None: nobody but the bounds."""
    from selenite.errors import ConfigError
    from selenite.eval.measure import Target

    if directory is not None and url is not None:
        raise ConfigError("give a model directory or --url, not both")
    if directory is None and url is None:
        return None
    target = Target(directory, url, api_key, model, allow_remote)
    return target if tag is None else dataclasses.replace(target, tag=tag)


def targets_of(
    directory: Path | None,
    url: str | None,
    api_key: str | None,
    model: str | None,
    allow_remote: bool,
    tag: str | None,
    base: Path | None,
) -> list[Target]:
    """Who is measured: the model, then the base."""
    from selenite.errors import ConfigError
    from selenite.eval.measure import Target

    target = target_of(directory, url, api_key, model, allow_remote, tag)
    if target is None and base is not None:
        raise ConfigError(f"--base {base}: is measured beside a model; give that, too")
    bases = [] if base is None else [Target(base, None)]
    targets = bases if target is None else [target, *bases]
    if len({each.title for each in targets}) < len(targets):
        raise ConfigError(f"--base {base}: has the name of the model itself; rename one of the two")
    return targets


def dtype_of(name: str) -> Decision:
    """What a model is computed in. Raises ``ConfigError`` for a name that is none of these."""
    from selenite import runtime
    from selenite.errors import ConfigError

    if name not in ("auto", "bfloat16", "float32"):
        raise ConfigError(f"--dtype {name}: must be auto, bfloat16 or float32")
    return runtime.choose_dtype(name)  # type: ignore[arg-type]
