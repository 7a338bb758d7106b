"""The figures of the diversity report, as ``<svg>`` elements for its page.

Drawn with two named inks that the page turns into its own colours, light or dark.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from selenite.agent.synthesis.tool_map import REAL, Picture
from selenite.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#1b1f27"  # text and axes
GRID = "#d9dde5"
_BAR = "#4c6fff"
_EFFECTS = {
    "read": "#4c6fff",
    "create": "#19a974",
    "update": "#f2a900",
    "delete": "#e0475b",
    "transition": "#a077d8",
    "transaction": "#16b1c9",
    "compute": "#8d99ae",
}
_MOST_BARS = 30  # of a histogram; more values share bars
_CELLS = ["#eef1ff", "#c9d3ff", "#8fa3ff", "#4c6fff", "#2740b8"]  # few to many


def check_matplotlib() -> None:
    """Raises ``MissingExtraError`` where nothing can be drawn."""
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingExtraError("matplotlib", "agent", "drawing the diversity report") from error


def svg(figure: Figure, name: str) -> str:
    """A figure with transparent paper; text stays text. Equal figures make equal bytes."""
    import matplotlib

    settings: dict[Any, str] = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.family": "sans-serif",
    }
    with matplotlib.rc_context(settings):
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing, dpi=170)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def histogram(name: str, found: Mapping[str, Any]) -> Figure:
    """How many trajectories have how many of something."""
    figure = _figure(4.2, 2.5)
    ax = figure.subplots()
    counts = {int(number): count for number, count in found["counts"].items()}
    low, high = min(counts), max(counts)
    width = -(-(high - low + 1) // _MOST_BARS)
    bars = np.zeros((high - low) // width + 1)
    for number, count in counts.items():
        bars[(number - low) // width] += count
    left = low + width * np.arange(len(bars)) - 0.5
    ax.bar(left, bars / bars.sum(), width * 0.9, align="edge", color=_BAR)
    ax.set_xlim(left[0] - 0.1 * width, left[-1] + 1.1 * width)
    _plain(ax, f"{name}, mean {found['mean']:.3g}")
    ax.yaxis.set_major_formatter(_percent)
    ax.locator_params(axis="x", integer=True, nbins=8)
    ax.locator_params(axis="y", nbins=5)
    return figure


def bars(title: str, pairs: Sequence[tuple[str, float]], are_shares: bool = False) -> Figure:
    """Named numbers, the first one on top."""
    figure = _figure(4.2, 0.7 + 0.21 * len(pairs))
    ax = figure.subplots()
    names, values = zip(*pairs, strict=True)
    places = range(len(names))
    ax.barh(places, values, 0.72, color=_BAR)
    most = max(values) or 1
    for place, value in zip(places, values, strict=True):
        text = _percent(value) if are_shares else f"{value:,}"
        ax.text(value + 0.01 * most, place, text, va="center", fontsize=7.5, color=INK)
    ax.set_yticks(places, names)
    ax.set_ylim(len(names) - 0.4, -0.6)  # the first one on top
    ax.set_xlim(0, 1.16 * most)
    _plain(ax, title)
    ax.grid(visible=False)
    ax.set_xticks([])
    ax.spines["bottom"].set_visible(False)
    return figure


def coverage(found: Mapping[str, Any]) -> Figure:
    """Trajectories by class and category: numbers on a scale of one colour."""
    from matplotlib.colors import LinearSegmentedColormap

    rows, columns = found["classes"], found["categories"]
    cells = np.array(found["cells"])
    figure = _figure(2.2 + 0.36 * len(columns), 1.6 + 0.3 * len(rows))
    ax = figure.subplots()
    scale = LinearSegmentedColormap.from_list("cells", _CELLS)
    strength = np.sqrt(cells / max(1, cells.max()))
    ax.pcolormesh(strength, cmap=scale, vmin=0, vmax=1, edgecolors="none")
    for (row, column), count in np.ndenumerate(cells):
        colour = "#fdfdff" if strength[row, column] > 0.62 else "#11141b"
        ax.text(
            column + 0.5, row + 0.5, str(count), ha="center", va="center", fontsize=7,
            color=colour, fontweight="bold" if count == found["least"] else "normal",
        )  # fmt: skip
    ax.set_xticks(
        np.arange(len(columns)) + 0.5, columns, rotation=55, ha="right", rotation_mode="anchor"
    )
    ax.set_yticks(np.arange(len(rows)) + 0.5, rows)
    ax.invert_yaxis()
    _plain(ax, "trajectories by class and category")
    ax.grid(visible=False)
    ax.spines["bottom"].set_visible(False)
    return figure


def tool_map(picture: Picture) -> Figure:
    """Two views of the map; tools of the corpus by effect, real ones on top."""
    figure = _figure(11.5, 5.2)
    points, groups = picture.points_S4, np.array(picture.groups)
    for ax, first in zip(figure.subplots(1, 2), (0, 2), strict=True):
        for name, colour in _EFFECTS.items():
            x, y = points[groups == name, first : first + 2].T
            ax.scatter(x, y, s=5, color=colour, alpha=0.55, linewidths=0, rasterized=True)
        x, y = points[groups == REAL, first : first + 2].T
        ax.scatter(x, y, s=22, color=INK, edgecolors=GRID, linewidths=0.8, marker="D")
        _plain(ax, f"directions {first + 1} and {first + 2}")
        ax.spines["bottom"].set_visible(False)
        ax.set_xticks([])
        ax.set_yticks([])
    _legend(figure, set(picture.groups))
    return figure


def _legend(figure: Figure, groups: set[str]) -> None:
    from matplotlib.lines import Line2D

    kinds = [(name, colour, "o") for name, colour in _EFFECTS.items() if name in groups]
    if REAL in groups:
        kinds.append(("real tools", INK, "D"))
    marks = [
        Line2D([], [], color=colour, marker=marker, linestyle="", markersize=6, label=name)
        for name, colour, marker in kinds
    ]
    legend = figure.legend(
        handles=marks, loc="outside lower center", ncols=len(marks), frameon=False, fontsize=9
    )
    for text in legend.get_texts():
        text.set_color(INK)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _plain(ax: Axes, title: str) -> None:
    ax.set_title(title, loc="left", fontsize=9.5, color=INK, fontweight="bold")
    ax.grid(color=GRID, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.tick_params(colors=INK, labelsize=8, length=0, which="both")
    for side, spine in ax.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(GRID)


def _percent(share: float, _: float = 0) -> str:
    """Of an axis, and of a bar; matplotlib gives the place of a tick, too."""
    return f"{100 * share:.2g} %"
