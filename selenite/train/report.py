"""``report.html``: a finished run on one self-contained page, and ``curves.png`` beside it.

No script, no font and no picture from elsewhere: the curves (``train/curves.py``) are inlined and
take the page's colours, light or dark.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from selenite import atomic
from selenite.errors import StorageError
from selenite.train import curves
from selenite.train.summary import Summary, number_text

REPORT = "report.html"
CURVES = "curves.png"

_STYLE = """
:root { color-scheme: light dark; --paper: #fbfbfd; --card: #ffffff; --ink: #1b1f27;
  --faint: #667085; --grid: #d9dde5; --accent: #4c6fff; --after: #ff7a59; }
@media (prefers-color-scheme: dark) { :root { --paper: #12141a; --card: #1a1d25; --ink: #e7eaf0;
  --faint: #98a1b3; --grid: #333947; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 78rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
h1 { margin: 0; font-size: 1.7rem; } h2 { margin: 2.5rem 0 .8rem; font-size: 1.15rem; }
p.lead { margin: .3rem 0 1.6rem; color: var(--faint); }
.cards, .curves { display: grid; gap: .9rem; }
.cards { grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); }
.curves { grid-template-columns: repeat(auto-fit, minmax(min(24rem, 100%), 1fr)); }
.card, .curves figure, .sample { background: var(--card); border: 1px solid var(--grid);
  border-radius: .6rem; padding: .8rem 1rem; margin: 0; }
.card b { display: block; font-size: 1.45rem; font-variant-numeric: tabular-nums; }
.card span { color: var(--faint); font-size: .85rem; }
svg { display: block; width: 100%; height: auto; }
.samples { display: grid; gap: .9rem; }
pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere;
  font: 13px/1.45 ui-monospace, monospace; } pre b { color: var(--accent); }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
td { padding: .3rem .6rem .3rem 0; border-bottom: 1px solid var(--grid); vertical-align: top; }
td:first-child { color: var(--faint); width: 16rem; }
details > pre { background: var(--card); border: 1px solid var(--grid); border-radius: .6rem;
  padding: .8rem 1rem; }
"""


def write_report(
    out_dir: Path, summary: Summary, rows: Sequence[Mapping[str, Any]], config: str
) -> Path:
    """Writes ``report.html`` and ``curves.png`` into ``out_dir``; returns the former's path.

    ``config`` is the resolved config as TOML. Raises ``StorageError``.
    """
    limits = {} if summary.tau is None else {"tau": summary.tau}
    figures = [_figure(curves.svg(p, rows, limits)) for p in curves.panels_of(rows)]
    page = _page(summary, figures, config)
    atomic.write_text(out_dir / REPORT, page)
    title = (
        f"{summary.name}: {_short(summary.parameters)} parameters, "
        f"{_short(summary.active_parameters)} active, {_short(summary.tokens)} tokens"
    )
    try:
        curves.save_png(out_dir / CURVES, rows, limits, title)
    except OSError as error:
        raise StorageError(
            f"{out_dir / CURVES}: cannot be written ({error.strerror or error})"
        ) from error
    return out_dir / REPORT


def _figure(svg: str) -> str:
    """The drawing in the page's colours instead of its own inks."""
    svg = svg.replace(curves.INK, "currentColor").replace(curves.GRID, "var(--grid)")
    return f"<figure>{svg}</figure>"


def _page(summary: Summary, figures: list[str], config: str) -> str:
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(summary.name)}: training report</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{escape(summary.name)}</h1>
<p class="lead">{_short(summary.parameters)} parameters, {_short(summary.active_parameters)} used
by one token; {summary.tokens:,} tokens in {summary.steps:,} steps and
{summary.seconds / 60:.1f} minutes of training.</p>
<div class="cards">{"".join(_card(value, label) for value, label in _highlights(summary))}</div>
<h2>Curves</h2>
<div class="curves">
{"".join(figures)}
</div>
{_samples(summary)}
<h2>Run</h2>
<table>{"".join(_row(name, value) for name, value in _facts(summary))}</table>
<h2>Config</h2>
<details><summary>Every setting, as resolved</summary><pre>{escape(config)}</pre></details>
</body>
</html>
"""


def _highlights(summary: Summary) -> list[tuple[str, str]]:
    clipping = f"{summary.steps_with_clipping:,}"
    what, before, after = held_out(summary)
    return [
        (number_text(before, "{:.3f}"), f"{what} before"),
        (number_text(after, "{:.3f}"), f"{what} after"),
        (f"{summary.spikes}", "loss spikes"),
        (clipping, "steps in which QK-Clip acted"),
        (f"{summary.tokens_per_second:,.0f}", "tokens per second"),
        (number_text(summary.mfu, "{:.1%}"), "model FLOPs utilisation"),
    ]


def held_out(summary: Summary) -> tuple[str, float | None, float | None]:
    """What was measured on held-out data, before and after: bits per byte of text, or the loss of
    conversations."""
    before, after = summary.val_bits_per_byte_before, summary.val_bits_per_byte_after
    if before is None and after is None and summary.val_loss_after is not None:
        return "held-out loss", summary.val_loss_before, summary.val_loss_after
    return "held-out bits per byte", before, after


def _facts(summary: Summary) -> list[tuple[str, str]]:
    tau = "off" if summary.tau is None else f"{summary.tau:g}"
    return [
        ("held-out loss, nats per token", _change(summary)),
        ("largest attention logit", f"{logit_text(summary)}; QK-Clip's tau: {tau}"),
        *summary.decisions.items(),
        *summary.machine.items(),
    ]


def logit_text(summary: Summary) -> str:
    """The largest attention logit of the run, in words that say how it was found."""
    how = "" if summary.logit_statistic == "exact" else " or less (log-sum-exp bound)"
    return number_text(summary.peak_max_logit, "{:.1f}" + how)


def _change(summary: Summary) -> str:
    before = number_text(summary.val_loss_before, "{:.4f}")
    return f"{before} before, {number_text(summary.val_loss_after, '{:.4f}')} after"


def _samples(summary: Summary) -> str:
    if not summary.samples:
        return ""
    blocks = [
        f'<pre class="sample"><b>{escape(sample.prompt)}</b>{escape(sample.text)}</pre>'
        for sample in summary.samples
    ]
    return f'<h2>Samples</h2>\n<div class="samples">{"".join(blocks)}</div>'


def _card(value: str, label: str) -> str:
    return f'<div class="card"><b>{escape(value)}</b><span>{escape(label)}</span></div>'


def _row(name: str, value: str) -> str:
    return f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>"


def _short(number: float) -> str:
    """1234567 as 1.23M."""
    for size, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{suffix}"
    return f"{number:g}"
