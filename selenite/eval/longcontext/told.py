"""Requests that are told what to say: the log-probability of a known text, as it is served.

Each token is drawn by the engine's own decode path, under a grammar that allows only the known one.
So whatever a mode does to a cache happens, and errors of earlier tokens add up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from selenite.serve.attention_mode import AnyMode
from selenite.serve.engine.engine import Engine
from selenite.serve.engine.request import Request
from selenite.types import SamplingParams


@dataclass(frozen=True)
class Passage:
    """A prompt, and the tokens that follow it."""

    prompt: tuple[int, ...]
    told: tuple[int, ...]


@dataclass(frozen=True)
class Heard:
    """What a model made of a passage's told tokens."""

    logprobs: tuple[float, ...]
    is_first: tuple[bool, ...]  # whether each was the likeliest token


@dataclass(frozen=True)
class Pace:
    """Steps in which all requests decoded."""

    tokens: int
    seconds: float
    slots: int  # that the requests had, added up over tokens

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else float("nan")

    @property
    def slots_per_request(self) -> float:
        return self.slots / self.tokens if self.tokens else float("nan")


class Only:
    """A ``Grammar`` of one text."""

    def __init__(self, told: Sequence[int], vocabulary: int) -> None:
        self._left = list(reversed(told))
        self._vocabulary = vocabulary

    def allowed_V(self) -> np.ndarray:
        """The next token."""
        allowed_V = np.zeros(self._vocabulary, dtype=bool)
        allowed_V[self._left[-1]] = True
        return allowed_V

    def accept(self, token: int) -> None:
        """Moves on."""
        assert token == self._left.pop(), token


def tell(engine: Engine, passages: Sequence[Passage], mode: AnyMode) -> tuple[list[Heard], Pace]:
    """All passages at once, in a mode, as far as the engine runs so many."""
    vocabulary = engine.runner.model.config.vocab_size
    requests = []
    for number, passage in enumerate(passages):
        params = SamplingParams(
            temperature=0, max_tokens=len(passage.told), logprobs=1, ignore_eos=True
        )
        grammar = Only(passage.told, vocabulary)
        requests.append(
            Request(str(number), passage.prompt, params, attention=mode, grammar=grammar)
        )
        engine.add(requests[-1])
    tokens, seconds, slots = 0, 0.0, 0
    while engine.has_work():
        running = engine.scheduler.running
        decodes = bool(running) and not engine.scheduler.waiting
        decodes = decodes and all(request.is_prefilled for request in running)
        start = engine.clock.now()
        changed = engine.step()
        if decodes:
            tokens, seconds = tokens + len(changed), seconds + engine.clock.now() - start
            slots += sum(request.slots for request in changed)
    return [_heard(request) for request in requests], Pace(tokens, seconds, slots)


def _heard(request: Request) -> Heard:
    if request.error is not None:
        raise request.error
    logprobs, is_first = [], []
    for token in request.completion:
        assert token.logprob is not None
        logprobs.append(token.logprob)
        is_first.append(token.top[0][0] == token.token_id)
    return Heard(tuple(logprobs), tuple(is_first))
