"""The curves of a run, drawn from its ``metrics.jsonl``: panels for the report, one PNG.

Drawn with two named inks that ``train/report.py`` turns into the page's own colours, so that the
same drawing is readable on light and dark paper.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from selenite.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK = "#1b1f27"  # text and axes
GRID = "#d9dde5"
SERIES = ("#4c6fff", "#ff7a59")  # training, held out

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Panel:
    """One set of axes: what is drawn against the step."""

    title: str
    train: str  # metric of every step
    held_out: str | None = None  # metric of evaluations, drawn with points
    floor: float | None = 0.0  # the vertical axis reaches down to it; None: as the data has it
    is_noisy: bool = True  # drawn with a running mean
    limit: str | None = None  # name of a number in ``limits`` that is drawn as a line


PANELS = (
    Panel("loss (nats per token)", "loss", "val_loss", floor=None),
    Panel("bits per byte", "bits_per_byte", "val_bits_per_byte", floor=None),
    Panel("loss of the extra prediction layers", "nextn_loss", floor=None),
    Panel("share of greedy drafts that are right", "nextn_accuracy"),
    Panel("learning rate", "lr", is_noisy=False),
    Panel("gradient norm, before clipping", "grad_norm"),
    Panel("largest attention logit, or its bound", "max_logit", limit="tau"),
    Panel("attention heads clipped", "clipped_heads", is_noisy=False),
    Panel("expert load, max / mean", "load_max_over_mean", floor=1.0),
    Panel("tokens per second", "tokens_per_second"),
)


def check_matplotlib() -> None:
    """Raises ``MissingExtraError`` where curves cannot be drawn; called before a run starts."""
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError("matplotlib", "train", "drawing the report's curves") from error


def panels_of(rows: Rows) -> list[Panel]:
    """The panels that there is something to draw for."""
    names = {name for row in rows for name in row}
    return [panel for panel in PANELS if panel.train in names]


def svg(panel: Panel, rows: Rows, limits: Mapping[str, float]) -> str:
    """One panel as an ``<svg>`` element with transparent paper; text stays text."""
    import matplotlib
    from matplotlib.figure import Figure

    settings: dict[Any, str] = {
        "svg.fonttype": "none",
        "svg.hashsalt": panel.title,
        "font.family": "sans-serif",
    }
    with matplotlib.rc_context(settings):
        # Fixed margins: to lay panels out by their labels takes longer than to draw them.
        figure = Figure(figsize=(5.2, 3.0))
        figure.subplots_adjust(left=0.11, right=0.98, bottom=0.15, top=0.9)
        _draw(figure.subplots(), panel, rows, limits)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def save_png(path: Path, rows: Rows, limits: Mapping[str, float], title: str) -> None:
    """All panels in one picture on white, four in a row at most."""
    from matplotlib.figure import Figure

    panels = panels_of(rows)
    columns = min(4, len(panels))
    lines = math.ceil(len(panels) / columns)
    width, height = 4.2 * columns, 2.9 * lines + 0.5  # inches
    figure = Figure(figsize=(width, height))
    left, right, bottom, top = 0.5 / width, 1 - 0.1 / width, 0.45 / height, 1 - 0.75 / height
    figure.subplots_adjust(left, bottom, right, top, wspace=0.18, hspace=0.38)
    figure.suptitle(
        title, color=INK, fontsize=13, fontweight="bold", x=left, y=1 - 0.15 / height,
        ha="left", va="top",
    )  # fmt: skip
    axes = figure.subplots(lines, columns, squeeze=False).flatten()
    for ax, panel in zip(axes, panels, strict=False):
        _draw(ax, panel, rows, limits)
    for ax in axes[len(panels) :]:
        ax.set_axis_off()
    figure.savefig(path, dpi=110, facecolor="white")


def _draw(ax: Axes, panel: Panel, rows: Rows, limits: Mapping[str, float]) -> None:
    ax.set_title(panel.title, loc="left", fontsize=10, color=INK, fontweight="bold")
    steps, values = _series(rows, panel.train)
    smooth = _running_mean(values, len(values) // 40) if panel.is_noisy else values
    if smooth is not values:
        ax.plot(steps, values, color=SERIES[0], alpha=0.3, linewidth=0.9)
    ax.plot(steps, smooth, color=SERIES[0], linewidth=1.6, label="training")
    if panel.held_out is not None:
        steps, values = _series(rows, panel.held_out)
        ax.plot(
            steps, values, color=SERIES[1], linewidth=1.4, marker="o", markersize=4,
            label="held out",
        )  # fmt: skip
        legend = ax.legend(frameon=False, fontsize=8)
        for text in legend.get_texts():
            text.set_color(INK)
    _reach_down(ax, panel)
    _draw_limit(ax, panel, limits)
    ax.grid(color=GRID, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.tick_params(colors=INK, labelsize=8, length=0, which="both")
    for side, spine in ax.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(GRID)
    ax.locator_params(axis="x", integer=True)
    ax.set_xlabel("step", fontsize=8, color=INK)


def _draw_limit(ax: Axes, panel: Panel, limits: Mapping[str, float]) -> None:
    """A dashed line where it is near enough not to flatten the curve, else a note."""
    if panel.limit is None or panel.limit not in limits:
        return
    limit = limits[panel.limit]
    name = {"tau": "τ"}.get(panel.limit, panel.limit)
    top = ax.get_ylim()[1]
    if limit <= 4 * top:
        ax.set_ylim(top=max(top, 1.1 * limit))
        ax.axhline(limit, color=SERIES[1], linewidth=1.2, linestyle=(0, (4, 3)))
        ax.annotate(
            f"{name} = {limit:g}", (1, limit), xycoords=("axes fraction", "data"), fontsize=8,
            color=SERIES[1], ha="right", va="bottom", xytext=(0, 2), textcoords="offset points",
        )  # fmt: skip
    else:
        ax.annotate(
            f"{name} = {limit:g}, far above", (1, 1), xycoords="axes fraction", fontsize=8,
            color=SERIES[1], ha="right", va="top",
        )  # fmt: skip


def _reach_down(ax: Axes, panel: Panel) -> None:
    """Starts the axis at the panel's floor, so that small changes do not look large."""
    if panel.floor is None:
        return
    drawn = [value for line in ax.lines for value in np.asarray(line.get_ydata()).tolist()]
    low, high = min([*drawn, panel.floor]), max(drawn)
    if high <= panel.floor:  # nothing above the floor: a unit of empty space, not noise
        high = panel.floor + 1
    ax.set_ylim(low - 0.03 * (high - low), high + 0.08 * (high - low))


def _series(rows: Rows, name: str) -> tuple[list[int], list[float]]:
    pairs = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    return [step for step, _ in pairs], [float(value) for _, value in pairs]


def _running_mean(values: list[float], reach: int) -> list[float]:
    """Mean over ``reach`` values on either side, fewer at the ends; no delay."""
    if reach < 2:
        return values
    windows = (values[max(0, i - reach) : i + reach + 1] for i in range(len(values)))
    return [sum(window) / len(window) for window in windows]
