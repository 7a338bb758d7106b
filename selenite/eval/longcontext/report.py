"""What the cells say, for people: a table for each length, a heat map of needles, a file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from selenite import atomic
from selenite.eval.longcontext.methods import FULL, Cell
from selenite.eval.longcontext.text import Found
from selenite.eval.statistics import bootstrap_difference, wilson


def tables(cells: Sequence[Cell]) -> list[Table]:
    """One for each length: loss beyond full attention's, needles, answers, and how fast."""
    found = []
    for length in dict.fromkeys(cell.length for cell in cells):
        own = [cell for cell in cells if cell.length == length]
        full = next(cell for cell in own if cell.method == FULL)
        table = Table(title=f"{length:,} tokens, then {len(full.losses)} texts go on")
        columns = (
            "budget",
            "loss beyond full (95 %)",
            "needles found",
            "their loss",
            "answers right",
            "slots",
            "tokens/s",
        )
        table.add_column("method")
        for name in columns:
            table.add_column(name, justify="right")
        for cell in own:
            table.add_row(
                *(cell.method, f"{cell.share:.0%}"),
                *(_loss(cell, full), *_found(cell.needles), _found(cell.answers)[0]),
                *(f"{cell.pace.slots_per_request:.0f}", f"{cell.pace.tokens_per_second:.1f}"),
            )
        found.append(table)
    return found


def _loss(cell: Cell, full: Cell) -> str:
    if not cell.losses:
        return "-"
    if cell is full:
        return f"{sum(cell.losses) / len(cell.losses):.3f} itself"
    mean, low, high = bootstrap_difference(full.losses, cell.losses)
    return f"{mean:+.4f} ({low:+.4f} to {high:+.4f})"


def _found(facts: Sequence[Found]) -> tuple[str, str]:
    total = len(facts)
    if not total:
        return "-", "-"
    right = sum(fact.is_found for fact in facts)
    low, high = wilson(right, total)
    loss = sum(fact.loss for fact in facts) / total
    return f"{right / total:.2f} ({low:.2f} to {high:.2f})", f"{loss:.3f}"


def write(path: Path, cells: Sequence[Cell], about: dict[str, Any]) -> None:
    """Everything, as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {**about, "cells": [asdict(cell) for cell in cells]}
    atomic.write_text(path, json.dumps(document, indent=1) + "\n")


def draw(path: Path, cells: Sequence[Cell]) -> None:
    """Which needles are found, by length and depth: a panel for each method and budget."""
    import matplotlib.pyplot as plt

    kinds = list(dict.fromkeys((cell.method, cell.share) for cell in cells))
    lengths = sorted({cell.length for cell in cells})
    depths = sorted({needle.depth for cell in cells for needle in cell.needles})
    shares = sorted({share for method, share in kinds if method != FULL}) or [1.0]
    methods = list(dict.fromkeys(method for method, _ in kinds))
    figure, axes = plt.subplots(
        *(len(methods), len(shares)),
        figsize=(2.2 * len(shares) + 1.5, 1.5 * len(methods) + 0.6),
        squeeze=False,
        layout="constrained",
    )
    image = None
    for row, method in enumerate(methods):
        for column, share in enumerate([1.0, *shares[1:]] if method == FULL else shares):
            axis = axes[row][column]
            if (method, share) not in kinds:
                axis.axis("off")
                continue
            grid = [
                [_share(cells, method, share, length, depth) for length in lengths]
                for depth in depths
            ]
            image = axis.imshow(grid, vmin=0, vmax=1, cmap="viridis", aspect="auto")
            axis.set_title(f"{method}, {share:.0%}", fontsize=8)
            axis.set_xticks(range(len(lengths)), [f"{length:,}" for length in lengths], fontsize=7)
            axis.set_yticks(range(len(depths)), [f"{depth:.0%}" for depth in depths], fontsize=7)
    figure.supxlabel("tokens of the prompt", fontsize=8)
    figure.supylabel("depth of the needle", fontsize=8)
    if image is not None:
        figure.colorbar(image, ax=axes, label="found", shrink=0.6)
    figure.savefig(path, dpi=110, facecolor="white")
    plt.close(figure)


def _share(cells: Sequence[Cell], method: str, share: float, length: int, depth: float) -> float:
    own = [
        needle.is_found
        for cell in cells
        if (cell.method, cell.share, cell.length) == (method, share, length)
        for needle in cell.needles
        if needle.depth == depth
    ]
    return sum(own) / len(own) if own else float("nan")
