"""Two conversations of one task, and which is better: what a critic is first taught from.

One is a trajectory that passed every judge; the other has a defect that was put in on purpose.
The verdict is one letter, then the reason; which of the two comes first is drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from selenite.agent.episodes.defects import Defect
from selenite.agent.judges.comparison import LETTERS, comparison, transcript
from selenite.agent.randomness import stream
from selenite.agent.synthesis.pipeline import contrasts, trajectories

REASONS: Mapping[Defect, str] = {
    Defect.UNNEEDED_CALL: "changes something that nobody asked for",
    Defect.WRONG_TOOL: "uses another tool than the one that was due",
    Defect.INVENTED_ARGUMENT: "uses a value that it was not told",
    Defect.PREMATURE_STOP: "stops before everything is done",
    Defect.CLAIMED_NOT_DONE: "says that something was done that was not",
    Defect.WRONG_ANSWER: "tells another value than it read",
    Defect.CLAIMED_TOO_EARLY: "says that it is done before it is",
    Defect.NEVER_ASKED: "does not ask for what it was not told",
    Defect.EXTRA_ARGUMENT: "gives an argument that nobody spoke of",
    Defect.UNCONFIRMED: "deletes without asking for a yes",
    Defect.CLAIMED_REFUSED: "calls done what it handed to a colleague",
    Defect.UNTRIED: "hands to a colleague what it never tried",
    Defect.GUESSED_TOGETHER: "guesses what it should have looked up first",
    Defect.BROKEN_CALL: "makes a call that is not well formed",
}


def pair_rows(corpus: Path, seed: int, most: int) -> Iterator[dict[str, Any]]:
    """Chat rows of at most so many pairs of a corpus' training split."""
    bad = {row["task"]["id"]: row for row in contrasts(corpus) if row["split"] == "train"}
    count = 0
    for good in trajectories(corpus, "train"):
        other = bad.get(good["task"]["id"])
        if other is None:
            continue
        if count == most:
            return
        count += 1
        yield pair_row(good, other, stream(seed, "pairs", good["id"]).random() < 0.5)


def pair_row(good: Mapping[str, Any], bad: Mapping[str, Any], good_first: bool) -> dict[str, Any]:
    """The chat row of a pair."""
    first, second = (good, bad) if good_first else (bad, good)
    best, other = LETTERS if good_first else reversed(LETTERS)
    asked = comparison(_told(good), _transcript(first), _transcript(second))
    verdict = f"{best}. {other} {REASONS[Defect(bad['defect'])]}."
    return {
        "messages": [
            *({"role": message.role, "content": message.content} for message in asked),
            {"role": "assistant", "content": verdict},
        ]
    }


def _told(row: Mapping[str, Any]) -> str:
    """What both assistants were told."""
    first = row["messages"][0]
    return f"The assistant was told:\n{first['content']}"


def _transcript(row: Mapping[str, Any]) -> str:
    """A conversation without what the assistant was told."""
    return transcript(row["messages"][1:])
