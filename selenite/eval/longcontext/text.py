"""Long texts: pages of prose to go on with, and needles in them.

The prose is that of Python's help topics, which comes with every interpreter. A needle is a
sentence that nobody could guess; it is asked for after the prompt, so that a cache that was made
smaller did not know the question.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from selenite.chat.tokenizer import Tokenizer
from selenite.errors import ConfigError
from selenite.eval.longcontext.told import Heard, Passage
from selenite.eval.prose import prose_text

_COLOURS = ("red", "blue", "green", "white", "black", "brown", "grey", "pink", "golden", "silver")
_ANIMALS = ("dog", "cat", "horse", "bird", "fish", "bear", "lion", "sheep", "mouse", "snake")


@dataclass(frozen=True)
class Found:
    """What became of a needle."""

    depth: float
    is_found: bool  # whether all tokens of the answer were the likeliest ones
    loss: float  # nats per token of the answer


@dataclass(frozen=True)
class Needle:
    """A passage whose last told tokens are the answer."""

    passage: Passage
    answer: int  # tokens
    length: int  # of the prompt
    depth: float  # 0: the needle is at the beginning

    def found(self, heard: Heard) -> Found:
        """What a model made of it."""
        loss = -sum(heard.logprobs[-self.answer :]) / self.answer
        return Found(self.depth, all(heard.is_first[-self.answer :]), loss)


def prose_ids(tokenizer: Tokenizer, least: int) -> list[int]:
    """The prose as tokens. Raises ``ConfigError`` where it is shorter than ``least``."""
    ids = tokenizer.encode(prose_text())
    if len(ids) < least:
        raise ConfigError(
            f"there are {len(ids)} tokens of prose, and {least} are needed; take fewer windows, or "
            "shorter ones"
        )
    return ids


def windows(
    ids: Sequence[int], bos: int | None, length: int, told: int, count: int
) -> list[Passage]:
    """Passages at even distances: prompts of ``length`` tokens, and what follows."""
    start = [] if bos is None else [bos]
    body = length - len(start)
    most = len(ids) - body - told
    places = [round(number * most / max(1, count - 1)) for number in range(count)]
    return [
        Passage((*start, *ids[place : place + body]), tuple(ids[place + body :][:told]))
        for place in places
    ]


def needles(
    tokenizer: Tokenizer, ids: Sequence[int], length: int, depths: int, each: int, seed: int = 0
) -> list[Needle]:
    """``each`` needles at each of so many depths, in prompts of ``length`` tokens that hold one of
    each depth: what is asked for has to be told from the others.

    Raises ``ConfigError`` for more depths than there are names, and where they leave no room.
    """
    names = [f"{colour} {animal}" for colour in _COLOURS for animal in _ANIMALS]
    if depths > len(names):
        raise ConfigError(f"{depths} depths: there are names for {len(names)} needles; take fewer")
    found = []
    for number in range(each):
        rng = random.Random(f"{seed} {length} {number}")
        secrets = {
            name: "".join(rng.choice("0123456789") for _ in range(5))
            for name in rng.sample(names, depths)
        }
        prompt = _haystack(tokenizer, ids, length, secrets, rng)
        for step, (name, code) in enumerate(secrets.items()):
            question = tokenizer.encode(f"\nThe pass code of the {name} is")
            answer = tokenizer.encode(f" {code}")
            depth = step / max(1, depths - 1)
            passage = Passage(prompt, (*question, *answer))
            found.append(Needle(passage, len(answer), length, depth))
    return found


def _haystack(
    tokenizer: Tokenizer,
    ids: Sequence[int],
    length: int,
    secrets: Mapping[str, str],
    rng: random.Random,
) -> tuple[int, ...]:
    """A stretch of text with the secrets at even distances."""
    facts = [
        tokenizer.encode(f"\nThe pass code of the {name} is {code}. Remember it.\n")
        for name, code in secrets.items()
    ]
    prompt = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    hay = length - len(prompt) - sum(map(len, facts))
    if not 0 < hay <= len(ids):
        raise ConfigError(
            f"{len(facts)} needles in {length} tokens leave {hay} for the text around them, of "
            f"which there are {len(ids)}; take fewer depths or another length"
        )
    start = rng.randrange(len(ids) - hay + 1)
    done = 0
    for step, fact in enumerate(facts):
        place = round(hay * step / max(1, len(facts) - 1))
        prompt += [*ids[start + done : start + place], *fact]
        done = place
    return (*prompt, *ids[start + done : start + hay])
