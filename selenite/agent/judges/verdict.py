"""What a judge says, and all judges in order of price.

form ─► replay ─► rubric ─► faithfulness ─► style        cheap ones first; the first that
                                                         objects ends it, unless all are asked
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from selenite.agent.episodes.trajectory import Trajectory
from selenite.agent.judges import faithful, form, replay, rubric, style

Judge = Callable[[Trajectory], list[str]]
"""What is wrong with a trajectory, each in a line; nothing: it passes."""

JUDGES: Mapping[str, Judge] = {
    "form": form.faults,
    "replay": replay.faults,
    "rubric": rubric.faults,
    "faithful": faithful.faults,
    "style": style.faults,
}
"""By name, in order of price."""


@dataclass(frozen=True)
class Verdict:
    """Faults by judge; only judges that found some."""

    faults: Mapping[str, tuple[str, ...]]

    @property
    def passes(self) -> bool:
        return not self.faults

    @property
    def reason(self) -> str:
        """The first judge that objects; "": none."""
        return next(iter(self.faults), "")


def judge(trajectory: Trajectory, ask_all: bool = False) -> Verdict:
    """The judges' verdict. ``ask_all``: also those after the first that objects."""
    found: dict[str, tuple[str, ...]] = {}
    for name, faults_of in JUDGES.items():
        if faults := faults_of(trajectory):
            found[name] = tuple(faults)
            if not ask_all:
                break
    return Verdict(found)
