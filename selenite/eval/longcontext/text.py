"""Long texts: pages of prose to go on with, and facts in them that are asked for.

The prose is that of Python's help topics, which comes with every interpreter. A fact is a sentence
that nobody could guess: the digits of a pass code (a needle), or somebody's job, which a question
in plain English asks for. The question follows the prompt, so that a cache that was made smaller
did not know it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from selenite.chat.tokenizer import Tokenizer
from selenite.errors import ConfigError
from selenite.eval.longcontext.told import Heard, Passage
from selenite.eval.prose import prose_text

Kind = Literal["code", "job"]
_COLOURS = ("red", "blue", "green", "white", "black", "brown", "grey", "pink", "golden", "silver")
_ANIMALS = ("dog", "cat", "horse", "bird", "fish", "bear", "lion", "sheep", "mouse", "snake")
_PEOPLE = (
    "Anna", "Boris", "Clara", "David", "Elena", "Frank", "Greta", "Henry", "Irene", "Jacob",
    "Karin", "Louis", "Maria", "Nadia", "Oscar", "Paula", "Roger", "Sonia", "Thomas", "Vera",
)  # fmt: skip
_JOBS = (
    "baker", "barber", "butcher", "carpenter", "chemist", "clerk", "cook", "dancer", "dentist",
    "doctor", "farmer", "fisherman", "gardener", "judge", "lawyer", "mechanic", "nurse", "painter",
    "pilot", "plumber", "poet", "sailor", "singer", "soldier", "tailor", "teacher", "waiter",
)  # fmt: skip


@dataclass(frozen=True)
class Found:
    """What became of a fact that was asked for."""

    depth: float
    is_found: bool  # whether all tokens of the answer were the likeliest ones
    loss: float  # nats per token of the answer


@dataclass(frozen=True)
class Needle:
    """A passage whose last told tokens are the answer."""

    passage: Passage
    answer: int  # tokens
    length: int  # of the prompt
    depth: float  # where the fact lies, from 0 to 1
    kind: Kind = "code"

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


@dataclass(frozen=True)
class _Fact:
    kind: Kind
    sentence: str
    question: str
    answer: str


def _facts(rng: random.Random, kind: Kind, count: int) -> list[_Fact]:
    """No two about the same."""
    names = [f"{colour} {animal}" for colour in _COLOURS for animal in _ANIMALS]
    about = names if kind == "code" else list(_PEOPLE)
    if count > len(about):
        raise ConfigError(f"{count} depths: there are names for {len(about)}; take fewer")
    facts = []
    for name in rng.sample(about, count):
        if kind == "code":
            said = (
                f"\nThe pass code of the {name} is",
                "".join(rng.choice("0123456789") for _ in range(5)),
            )
            facts.append(
                _Fact(kind, f"{said[0]} {said[1]}. Remember it.\n", said[0], f" {said[1]}")
            )
        else:
            job = rng.choice(_JOBS)
            question = f"\nQuestion: What is the job of {name}?\nAnswer: {name} works as a"
            facts.append(_Fact(kind, f"\n{name} works as a {job}.\n", question, f" {job}"))
    return facts


def needles(
    tokenizer: Tokenizer,
    ids: Sequence[int],
    length: int,
    depths: int,
    each: int,
    seed: int = 0,
    kinds: Sequence[Kind] = ("code",),
) -> list[Needle]:
    """``each`` facts of each kind at each of so many depths, in prompts of ``length`` tokens that
    hold one of each: what is asked for has to be told from the others.

    Raises ``ConfigError`` for more depths than there are names, and where they leave no room.
    """
    found = []
    for number in range(each):
        rng = random.Random(f"{seed} {length} {number}")
        by_kind = {kind: _facts(rng, kind, depths) for kind in kinds}
        spots = [[facts[step] for facts in by_kind.values()] for step in range(depths)]
        prompt = _haystack(tokenizer, ids, length, spots, rng)
        for kind, facts in by_kind.items():
            for step, fact in enumerate(facts):
                question, answer = tokenizer.encode(fact.question), tokenizer.encode(fact.answer)
                depth = (step + 0.5) / depths
                passage = Passage(prompt, (*question, *answer))
                found.append(Needle(passage, len(answer), length, depth, kind))
    return found


def _haystack(
    tokenizer: Tokenizer,
    ids: Sequence[int],
    length: int,
    spots: Sequence[Sequence[_Fact]],
    rng: random.Random,
) -> tuple[int, ...]:
    """A stretch of text with facts at even distances, and text before and behind each."""
    inserted = [[*tokenizer.encode("".join(fact.sentence for fact in spot))] for spot in spots]
    prompt = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    hay = length - len(prompt) - sum(map(len, inserted))
    if not 0 < hay <= len(ids):
        raise ConfigError(
            f"facts at {len(spots)} depths of {length} tokens leave {hay} for the text around "
            f"them, of which there are {len(ids)}; take fewer depths or another length"
        )
    start = rng.randrange(len(ids) - hay + 1)
    done = 0
    for step, tokens in enumerate(inserted):
        place = round(hay * (step + 0.5) / len(inserted))
        prompt += [*ids[start + done : start + place], *tokens]
        done = place
    return (*prompt, *ids[start + done : start + hay])
