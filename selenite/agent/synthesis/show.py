"""A world, a task or a trajectory for people: in the terminal, or as one HTML page."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from selenite import atomic
from selenite.agent.ontology.archetypes import extend
from selenite.agent.rows import read_rows
from selenite.agent.synthesis.extension import read_additions
from selenite.agent.synthesis.pipeline import read_admitted
from selenite.agent.synthesis.shards import read_json
from selenite.agent.tools.tool import Tool
from selenite.agent.world.domain import Domain
from selenite.agent.world.setting import Setting
from selenite.errors import ConfigError

_WIDTH = 110
_COLOURS = {"system": "grey62", "user": "cyan", "assistant": "green", "tool": "yellow"}


def show(out_dir: Path, name: str, html: Path | None = None) -> None:
    """Prints what has a name in a corpus: ``commerce-0004`` (a domain with one of its worlds),
    ``7-123`` (a trajectory with its task), or ``7-123-wrong_tool`` (a contrast).

    ``html``: writes one page there instead. Raises ``ConfigError`` where there is no such thing,
    ``DataError`` for a corpus that is broken, ``StorageError`` when the disk refuses.
    """
    parts = list(_parts(out_dir, name))
    console = Console() if html is None else Console(record=True, file=StringIO(), width=_WIDTH)
    for part in parts:
        console.print(part)
    if html is not None:
        atomic.write_text(html, console.export_html())


def _parts(out_dir: Path, name: str) -> Iterator[RenderableType]:
    repository = read_admitted(out_dir)
    extension = extend(read_additions(out_dir))
    if found := re.fullmatch(r"[a-z_]+-(\d+)", name):
        number = int(found[1])
        if number not in repository.numbers:
            raise ConfigError(f"{name}: domain {number} is not among those that were admitted")
        setting = Setting(repository.seed, number, 0, extension=extension)
        if setting.evolved.id != name:
            raise ConfigError(f"{name}: domain {number} is {setting.evolved.id}")
        yield from _world(setting)
        return
    if found := re.fullmatch(r"\d+-(\d+)(-\w+)?", name):
        settings = read_json(out_dir / "config.json", dict[str, Any])
        shard = int(found[1]) // settings["shard_tasks"]
        folder = "contrasts" if found[2] else "shards"
        path = out_dir / folder / f"{shard:05d}.jsonl.zst"
        for row in read_rows(path) if path.exists() else ():
            if row["id"] == name:
                place = Setting(**row["task"]["setting"])
                yield from _trajectory(row, place.evolved)
                return
        raise ConfigError(f"{name}: no such trajectory in {path}; it was not made yet, or rejected")
    raise ConfigError(
        f"{name!r}: must be a domain (commerce-0004), a trajectory (7-123) or a contrast "
        "(7-123-wrong_tool)"
    )


def _world(setting: Setting) -> Iterator[RenderableType]:
    domain, world = setting.evolved, setting.open()
    yield _heading(domain)
    yield _tools(domain.tools)
    yield Text(f"World 0, on {world.today:%A, %d %B %Y}", style="bold")
    for entity in domain.entities:
        records = world.records.of(entity.name)
        if not records:
            continue
        names = list(dict.fromkeys(name for record in records.values() for name in record))
        table = Table("id", *names, title=entity.plural, title_justify="left")
        for id, record in records.items():
            table.add_row(id, *(_cell(record.get(name)) for name in names))
        yield table


def _heading(domain: Domain) -> RenderableType:
    lines = [
        f"category {domain.category}, names in the style {domain.style}, {domain.currency}",
        *(f"evolved: {step}" for step in domain.steps),
        *(policy.sentence() for policy in domain.policies),
    ]
    return Panel(Text("\n".join(lines)), title=f"{domain.id}: {domain.title}", title_align="left")


def _tools(tools: tuple[Tool, ...]) -> RenderableType:
    table = Table("tool", "effect", "parameters", "description")
    for tool in tools:
        params = ", ".join(f"{p.name}{'' if p.required else '?'}" for p in tool.params)
        table.add_row(tool.name, tool.effect.value, params, tool.description)
    return table


def _trajectory(row: dict[str, Any], domain: Domain) -> Iterator[RenderableType]:
    task = row["task"]
    facts = Table.grid(padding=(0, 2))
    facts.add_row("class", f"{task['class']} ({task['template']}), split {row['split']}")
    facts.add_row("domain", domain.id)
    facts.add_row("wishes", "\n".join(task["request"]))
    facts.add_row("known", _cell(task["known"]))
    if task["withheld"]:
        facts.add_row("told when asked", _cell(task["withheld"]))
    for call in task["oracle"]:
        facts.add_row("solution", f"{call['tool']} {_cell(call['arguments'])}")
    for predicate in task["goal"]:
        facts.add_row("goal", _cell(predicate))
    facts.add_row("must say", _cell(task["must_say"]))
    for role, model in row["models"].items():
        facts.add_row(role, Text(f"by {model}"))
    if row["defect"]:
        facts.add_row("defect", Text(row["defect"], style="red"))
    yield Panel(facts, title=row["id"], title_align="left")
    for place, message in enumerate(row["messages"]):
        yield _message(place, message, place in row["untrained"])
    yield Text(f"{len(row['tools'])} tools offered; ended: {row['ended']}", style="dim")


def _message(place: int, message: dict[str, Any], is_untrained: bool) -> RenderableType:
    text = Text(message["content"] or "")
    for call in message.get("tool_calls", ()):
        function = call["function"]
        text.append(f"\n{function['name']} ", style="bold")
        text.append(function["arguments"])
    title = f"{place} {message['role']}" + (" (no loss on it)" if is_untrained else "")
    colour = _COLOURS[message["role"]]
    return Panel(text, title=title, title_align="left", border_style=colour)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
