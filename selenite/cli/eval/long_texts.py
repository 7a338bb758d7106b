"""What reading less, or keeping less, costs a model on long texts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from selenite.cli.eval.targets import Out, dtype_of


def longcontext(
    model: Annotated[Path, typer.Argument(help="A run directory or a model directory.")],
    length: Annotated[
        list[int] | None, typer.Option(min=64, help="Tokens of the prompts; give it once for each.")
    ] = None,
    budget: Annotated[
        list[float] | None,
        typer.Option(min=0.001, max=0.999, help="Share of the prompt; give it once for each."),
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="One of the methods; give it once for each.")
    ] = None,
    windows: Annotated[int, typer.Option(min=1, help="Texts that go on.")] = 8,
    told: Annotated[int, typer.Option(min=2, help="Tokens of each that are told.")] = 128,
    depths: Annotated[int, typer.Option(min=1, help="Depths of needles.")] = 5,
    each: Annotated[int, typer.Option(min=0, help="Needles at each depth.")] = 4,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at once.")] = 8,
    dtype: Annotated[str, typer.Option(help="auto, bfloat16 or float32.")] = "auto",
    out: Out = Path("runs/eval"),
) -> None:
    """What chosen tokens and merged slots cost on long texts and needles, at equal budgets."""
    from rich.console import Console

    from selenite import runtime
    from selenite.eval.longcontext.methods import METHODS, Sizes, measure_methods
    from selenite.eval.longcontext.report import draw, tables, write
    from selenite.eval.measure import Target

    runtime.apply_threads()
    chosen = dtype_of(dtype)
    sizes = Sizes(
        tuple(length or (512, 1024, 2048)),
        tuple(budget or (0.05, 0.1, 0.2, 0.5)),
        *(windows, told, depths, each, concurrency),
    )
    target = Target(model, None)
    cells = measure_methods(
        *(model, runtime.torch_dtype(chosen.value), sizes, method or list(METHODS)),
        lambda cell: typer.echo(
            f"{cell.length:,} tokens: {cell.method}, {cell.share:.0%}", err=True
        ),
    )
    for table in tables(cells):
        Console().print(table)
    folder = out / target.folder
    write(folder / "longcontext.json", cells, {"model": target.fingerprint, "dtype": chosen.value})
    typer.echo(folder / "longcontext.json")
    if each:
        draw(folder / "longcontext.png", cells)
        typer.echo(folder / "longcontext.png")


def layers(
    model: Annotated[Path, typer.Argument(help="A run directory or a model directory.")],
    budget: Annotated[int, typer.Option(min=8, help="Tokens that a row reads.")] = 128,
    length: Annotated[int, typer.Option(min=64, help="Tokens of the prompts.")] = 1024,
    needles: Annotated[int, typer.Option(min=1, help="Of even depths.")] = 20,
    dtype: Annotated[str, typer.Option(help="auto, bfloat16 or float32.")] = "auto",
    add: Annotated[
        bool, typer.Option(help="Beside the layers that are stored: find one more.")
    ] = False,
    replace: Annotated[
        int | None, typer.Option(help="Instead of this layer, which is stored: find another.")
    ] = None,
    save: Annotated[bool, typer.Option(help="Store the best with the model.")] = True,
) -> None:
    """Find the layer in which tokens are best chosen anew (mode tidal), by needles."""
    from selenite import runtime
    from selenite.errors import ConfigError
    from selenite.eval.longcontext.layers import Trial, save_layers, sweep
    from selenite.model.hf_adapter import read_config
    from selenite.serve.attention_mode import LAYERS, stored_layers

    runtime.apply_threads()
    chosen = runtime.torch_dtype(dtype_of(dtype).value)
    config = read_config(model)
    stored = stored_layers(model, config) or ()
    if replace is not None and replace not in stored:
        raise ConfigError(
            f"--replace {replace}: layers {', '.join(map(str, stored)) or 'none'} are stored with "
            f"{model}; name one of them"
        )
    kept = (
        tuple(layer for layer in stored if layer != replace) if add or replace is not None else ()
    )

    def show(trial: Trial) -> None:
        name = " and ".join(map(str, trial.layers)) or "full attention"
        whole = (
            f", {trial.num_whole} of {config.num_layers} layers read all" if trial.layers else ""
        )
        said = f"{trial.loss:.3f} nats a token, {trial.found} of {needles} found"
        typer.echo(f"{name}: {said}{whole}")

    trials = sweep(model, chosen, budget, length, needles, kept, show)
    best = min(trials[1:], key=lambda trial: trial.loss)
    typer.echo(f"best: layers {' and '.join(map(str, best.layers))}")
    if save:
        save_layers(model, best.layers)
        typer.echo(model / LAYERS)
