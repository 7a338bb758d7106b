"""Replies that are the same to every prompt: what a score of IFEval is worth without a model.

``JUNK`` says nothing. It is written for the checkers: lower case without a comma, wrapped in
quotation marks, with a title, bullets, highlights, placeholders and postscripts, and the ending
that is asked for most.
"""

from __future__ import annotations

from collections.abc import Mapping

SENTENCE = "I am glad to help you with this today."

_DRIFT = (
    "the slow river keeps moving past the old mill and nobody counts the stones",
    "a grey cat sleeps under the open window while the rain goes on outside",
    "somewhere a door is left open and the light of the hall falls on the floor",
    "the gardener waters the roses at dusk and hums a tune without any name",
    "two boats lie in the harbour and the gulls walk along the wooden rail",
    "an empty chair stands near the stove and the kettle begins to sing again",
    "the baker sweeps the flour from the table and looks at the pale morning",
    "one lamp burns in the tower long after the others have been put out",
    "the path over the hill is dry now and the goats have found it before us",
    "a letter waits on the shelf although its reader moved away many years ago",
    "the clock in the square is late and everyone has grown fond of that",
    "snow lies on the roof of the barn and the owl has not come home yet",
    "the fiddler tunes the strings once more and then puts the bow aside",
    "a ladder leans on the apple tree with nobody at all to climb it",
    "the ferry turns around in the fog and its bell is heard from both banks",
    "some bread and some salt lie on the plate beside a folded napkin",
    "the children draw a long line in the sand and the tide takes it back",
    "an old map hangs on the wall and most of its roads have been renamed",
)


def _junk() -> str:
    body = [f"{sentence}." for sentence in _DRIFT]
    marked = [f"*{word}* and [{word}]" for word in ("river", "lamp", "letter", "ferry", "map")]
    lines = [
        "<<drift>>",
        " ".join(body[:9]),
        *(f"* {mark}" for mark in marked[:3]),
        f"**{marked[3]}** and **{marked[4]}** and [door] and [stove] and [bell]!",
        " ".join(body[9:]),
        "###### so it goes on and on!!!!!",
        "p.s. the rain has stopped.",
        "p.p.s. it may come back.",
        "is there anything else i can help with?",
    ]
    return '"' + "\n\n".join(lines) + '"'


JUNK = _junk()

CONSTANTS: Mapping[str, str] = {"empty": "", "sentence": SENTENCE, "junk": JUNK}
