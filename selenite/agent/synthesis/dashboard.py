"""The stages of a synthesis in the terminal: how far each is, what was accepted, and why not."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from selenite.agent.roles.outcomes import Outcomes
from selenite.agent.synthesis.pipeline import Progress
from selenite.clock import Clock


class Dashboard:
    """A table that is drawn anew, or without a terminal a line at each stage's end."""

    def __init__(self, is_live: bool, clock: Clock) -> None:
        self._clock = clock
        self._console = Console(stderr=True)
        self._live = Live(console=self._console, auto_refresh=False) if is_live else None
        self._stages: dict[str, Progress] = {}
        self._begun: dict[str, float] = {}

    def __enter__(self) -> Dashboard:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.stop()

    def show(self, progress: Progress) -> None:
        """Takes news of a stage."""
        self._begun.setdefault(progress.stage, self._clock.now())
        self._stages[progress.stage] = progress
        if self._live:
            self._live.update(self._table(), refresh=True)
        elif progress.is_over:
            self._console.print(f"{progress.stage}: {progress.done:,} done; {_outcome(progress)}")

    def _table(self) -> Table:
        table = Table("stage", "done", "of", "seconds", "outcome")
        for name, progress in self._stages.items():
            seconds = self._clock.now() - self._begun[name]
            numbers = (f"{progress.done:,}", f"{progress.total:,}", f"{seconds:.0f}")
            table.add_row(name, *numbers, _outcome(progress))
        return table


def _outcome(progress: Progress) -> str:
    if progress.repository is not None:
        found = progress.repository
        return (
            f"{len(found.numbers):,} domains, {found.num_tools:,} tools, "
            f"{len(found.signatures):,} signatures; rejected: {_counts(found.rejected)}"
        )
    if progress.tally is not None:
        found_tally = progress.tally
        share = found_tally.kept / max(1, found_tally.tasks)
        first = f"{share:.1%} accepted; rejected by: {_counts(found_tally.rejected)}"
        return "\n".join([first, *_by_role(found_tally.outcomes)])
    if progress.outcomes is not None:
        return "\n".join(_by_role(progress.outcomes))
    return ""


def _by_role(outcomes: Outcomes) -> Iterator[str]:
    for role, counts in sorted(outcomes.by_role.items()):
        yield (
            f"{role}: {counts.accepted:,} of {counts.asked:,} accepted; kept as code has it: "
            f"{_counts(counts.kept)}; failed: {_counts(counts.failed)}"
        )


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items())) or "none"
