"""``report.html``: the diversity report on one self-contained page.

No script, no font and no picture from elsewhere; figures take the page's colours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from selenite.agent.synthesis import diversity_plots as plots
from selenite.agent.synthesis.tool_map import Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_STYLE = """
:root { color-scheme: light dark; --paper: #fbfbfd; --card: #ffffff; --ink: #1b1f27;
  --faint: #667085; --grid: #d9dde5; }
@media (prefers-color-scheme: dark) { :root { --paper: #12141a; --card: #1a1d25; --ink: #e7eaf0;
  --faint: #98a1b3; --grid: #333947; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 78rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
h1 { margin: 0; font-size: 1.7rem; } h2 { margin: 2.5rem 0 .8rem; font-size: 1.15rem; }
p { max-width: 52rem; } p.lead { margin: .3rem 0 1.6rem; color: var(--faint); }
.cards { display: grid; gap: .9rem;
  grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); }
.figures { columns: 22rem; column-gap: .9rem; }
.card, figure { background: var(--card); border: 1px solid var(--grid); border-radius: .6rem;
  padding: .8rem 1rem; margin: 0; }
figure { break-inside: avoid; margin-bottom: .9rem; }
.card b { display: block; font-size: 1.45rem; font-variant-numeric: tabular-nums; }
.card span { color: var(--faint); font-size: .85rem; }
svg { display: block; width: 100%; height: auto; }
table { border-collapse: collapse; font-size: .9rem; margin-bottom: 1rem; }
th, td { padding: .3rem 1.2rem .3rem 0; border-bottom: 1px solid var(--grid); text-align: left;
  font-variant-numeric: tabular-nums; }
th { color: var(--faint); font-weight: normal; }
"""


def page(name: str, record: Mapping[str, Any], picture: Picture) -> str:
    """The page of a corpus. ``record`` is what ``report.json`` has."""
    cards = [(f"{count:,}", key.replace("_", " ")) for key, count in record["counts"].items()]
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(name)}: diversity</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{escape(name)}</h1>
<p class="lead">What this corpus has, and how different it is. All numbers are in report.json.</p>
<div class="cards">{"".join(_card(value, label) for value, label in cards)}</div>
<h2>Coverage</h2>
{_figure(plots.coverage(record["coverage"]), "coverage")}
<p>{_coverage_text(record["coverage"])}</p>
<h2>Shape of trajectories</h2>
<div class="figures">{"".join(_histograms(record["histograms"]))}</div>
<h2>Kinds</h2>
<div class="figures">{"".join(_kinds(record))}</div>
<h2>Spread</h2>
{_spread(record["entropy"])}
{_likeness(record["user_turns"])}
{_values(record["argument_values"])}
<h2>Judges</h2>
{_judges(record["judges"])}
<h2>Map of tools</h2>
{_figure(plots.tool_map(picture), "map")}
{_map_text(record["map"])}
</body>
</html>
"""


def _histograms(found: Mapping[str, Any]) -> Iterable[str]:
    return (_figure(plots.histogram(name, each), name) for name, each in found.items())


def _kinds(record: Mapping[str, Any]) -> Iterable[str]:
    first = record["entropy"]["first_words"]["top"]
    lists = {
        "tasks by class": record["classes"].items(),
        "tasks by template": record["templates"].items(),
        "trajectories by category": record["categories"].items(),
        "splits": record["splits"].items(),
        "calls by effect of the tool": record["entropy"]["effects_called"]["counts"].items(),
        "first words of users": first,
    }
    for title, pairs in lists.items():
        ranked = sorted(pairs, key=lambda pair: -pair[1])
        yield _figure(plots.bars(title, ranked), title)
    title = "tools whose schema has"
    yield _figure(plots.bars(title, list(record["schemas"].items()), are_shares=True), title)


def _coverage_text(found: Mapping[str, Any]) -> str:
    cells = [f"{cls} in {category}" for cls, category in found["least_cells"]]
    shown = ", ".join(cells[:5]) + (f" and {len(cells) - 5} more" if len(cells) > 5 else "")
    return f"The least cell has {found['least']:,}: {escape(shown)}."


def _spread(found: Mapping[str, Any]) -> str:
    rows = [
        (
            name.replace("_", " "),
            each["different"],
            each["bits"],
            each["effective"],
            each["evenness"],
        )
        for name, each in found.items()
    ]
    return _table(
        ("entropy of", "different", "bits", "as many equal ones", "share of the most"), rows
    )


def _likeness(found: Mapping[str, Any]) -> str:
    names = [f"distinct-{n}" for n in found["distinct"]]
    row = (f"{found['sampled']:,}", found["self_bleu"], *found["distinct"].values())
    return _table(("user turns compared", "self-BLEU", *names), [row])


def _values(found: Mapping[str, Any]) -> str:
    rows = [
        (kind, each["values"], each["different"], each["types_per_token"])
        for kind, each in found.items()
    ]
    return _table(("argument values", "values", "different", "different per value"), rows)


def _judges(found: Mapping[str, Any]) -> str:
    if not found:
        return "<p>No contrasts: none were asked for, or the corpus is not finished.</p>"
    rows = [
        (
            defect.replace("_", " "),
            each["played"],
            each["rejected"],
            each["recall"],
            "" if each["precision"] is None else each["precision"],
            ", ".join(f"{name} {count:,}" for name, count in each["judges"].items()),
        )
        for defect, each in found.items()
    ]
    heads = ("defect, put in on purpose", "played", "rejected", "recall", "precision", "by")
    return _table(heads, rows)


def _map_text(found: Mapping[str, Any]) -> str:
    lead = f"{found['synthetic']:,} tools of the corpus"
    if not found["real"]:
        return f"<p>{lead}. No real tools were given to compare them with.</p>"
    rows = [
        (f"around {group} tools, {which}", each["rate"], each["expected"], each["ratio"])
        for which in ("all", "balanced")
        for group, each in found[which].items()
    ]
    heads = ("", f"others among the {found['neighbours']} nearest", "in a shuffled pile", "ratio")
    pairs = ("real tool", "likest tool of the corpus", "cosine")
    return (
        f"<p>{lead} and {found['real']:,} real ones.</p>{_table(heads, rows)}"
        f"{_table(pairs, found['closest'])}<p>The real tools that the corpus has the least like:"
        f"</p>{_table(pairs, found['loneliest'])}"
    )


def _figure(figure: Figure, name: str) -> str:
    """The drawing in the page's colours instead of its own inks."""
    drawn = plots.svg(figure, name)
    drawn = drawn.replace(plots.INK, "currentColor").replace(plots.GRID, "var(--grid)")
    return f"<figure>{drawn}</figure>"


def _card(value: str, label: str) -> str:
    return f'<div class="card"><b>{escape(value)}</b><span>{escape(label)}</span></div>'


def _table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    head = "".join(f"<th>{escape(each)}</th>" for each in heads)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(_cell(value))}</td>' for value in row)}</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _cell(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
    return str(value)
