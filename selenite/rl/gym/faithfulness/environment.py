"""The environment ``faithfulness``: a text, and questions about it to be answered in own words.

After the sentence-level judge of Kimi K2 (section 3.2.1), with code in place of a model: each value
that a reply tells must be what the text says, of whom it says it. What is asked must be told, so
that silence earns nothing, and not in the text's own words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from selenite.agent.randomness import stream
from selenite.rl.gym.environment import HELD_OUT, Budget, Check, Score
from selenite.rl.gym.faithfulness.claims import claims
from selenite.rl.gym.faithfulness.passage import Passage, make_passage
from selenite.rl.gym.faithfulness.topics import EVALUATION, TRAINING
from selenite.types import Message, ToolSpec

_RULES = (
    "Write full sentences in your own words. Say in each what it is about and what each value is. "
    "Tell nothing else, and calculate nothing that is not asked for."
)
_TRAINING = (
    f"Here is a text.\n\n{{text}}\n\nTell me from it: {{points}}. {_RULES}",
    f"{{text}}\n\nFrom this text, answer the following.\n{{lines}}\n{_RULES}",
)
_EVALUATION = (
    f"Read this:\n\n{{text}}\n\nNow sum up these points: {{points}}. {_RULES}",
    f"I need some things out of this report.\n{{lines}}\n\n{{text}}\n\n{_RULES}",
)
_GRAM = 8  # words in a row
_COPIED = 0.2  # the largest share of such rows that the text may have, too
_WORD = re.compile(r"[\w'’-]+")


class Told:
    """An attempt."""

    def __init__(self, passage: Passage, form: str) -> None:
        self.passage = passage
        points = passage.questions()
        request = form.format(
            text=passage.text, points="; ".join(points), lines="\n".join(f"- {p}" for p in points)
        )
        self.opening: Sequence[Message] = (Message("user", request),)
        self.tools: Sequence[ToolSpec] = ()
        self._vocabulary = frozenset(_words(request))
        self._reply = ""

    def reply(self, turn: Message) -> Sequence[Message]:
        """Nothing follows."""
        self._reply = turn.content
        return ()

    def score(self) -> Score:
        """The share of what was asked that is told, of a reply without faults."""
        points = len(self.passage.questions())
        num_words, most = len(_words(self._reply)), 20 + 25 * points
        is_brief = 0 < num_words <= most
        length = Check(
            "length", float(is_brief), "" if is_brief else f"{num_words} of {most} words"
        )
        if not is_brief:
            return Score((length,))
        share = copied(self._reply, self.passage.text)
        is_own = share <= _COPIED
        found = claims(self._reply, self.passage, self._vocabulary)
        told = found.told & set(self.passage.required)
        done = len(told) + len(found.derived)
        return Score(
            (
                length,
                Check("own words", float(is_own), "" if is_own else f"{share:.0%} is the text's"),
                Check("faithful", float(not found.faults), "; ".join(found.faults)),
                Check("told", done / points, f"{done} of {points}" if done < points else ""),
            )
        )


class Faithfulness:
    """Texts about ``2 + level`` things.

    Args:
        level: 1 to 3; from 2 on something must be calculated.
        seed: of the tasks.
        tokens: of an attempt.
    """

    name = "faithfulness"

    def __init__(self, level: int, seed: int = 0, tokens: int = 256) -> None:
        self.budget = Budget(tokens)
        self._level, self._seed = level, seed

    def begin(self, number: int) -> Told:
        """See ``Environment``."""
        rng = stream(self._seed, "faithfulness", self._level, number)
        topics, forms = (EVALUATION, _EVALUATION) if number >= HELD_OUT else (TRAINING, _TRAINING)
        return Told(make_passage(rng, rng.choice(topics), self._level), rng.choice(forms))


def copied(reply: str, text: str) -> float:
    """The share of a reply's rows of eight words that a text has, too."""
    own, theirs = _grams(reply), set(_grams(text))
    return sum(gram in theirs for gram in own) / len(own) if own else 0.0


def _grams(text: str) -> list[tuple[str, ...]]:
    words = _words(text)
    return [tuple(words[i : i + _GRAM]) for i in range(len(words) - _GRAM + 1)]


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]
