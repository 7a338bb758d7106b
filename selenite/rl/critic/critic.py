"""Who says which of two attempts is better: the model itself, another one, or code.

A critic is asked in one order; ``rl/actor.py`` asks in both.
"""

from __future__ import annotations

import asyncio
import math
import uuid
from collections.abc import Callable, Sequence
from typing import Protocol

from selenite.agent.judges.comparison import LETTERS, comparison
from selenite.agent.models.model import Model
from selenite.chat.conversation import Conversation
from selenite.chat.profile import ChatProfile
from selenite.chat.tokenizer import Tokenizer
from selenite.errors import TokenizerError, UnavailableError
from selenite.rl.engines import RolloutEngine, finished
from selenite.serve.engine.request import Request
from selenite.types import SamplingParams

_CERTAIN = 100.0  # added to the logits of both letters, so that one of them is drawn
_SCHEMA = {
    "type": "object",
    "properties": {"better": {"enum": list(LETTERS)}},
    "required": ["better"],
    "additionalProperties": False,
}


class Critic(Protocol):
    """Compares."""

    async def prefers(self, told: str, first: str, second: str) -> float:
        """The probability that the first of two attempts is better, given what both were told.
        Raises ``UnavailableError`` where nobody answers."""
        ...


def verdict_ids(
    tokenizer: Tokenizer,
    profile: ChatProfile,
    told: str,
    first: str,
    second: str,
    rubrics: Sequence[str],
) -> tuple[int, ...]:
    """The ids after which a critic writes its letter."""
    start = Conversation.start(tokenizer, (), profile)
    asked = start.extended(comparison(told, first, second, rubrics))
    return tuple(asked.prompt_ids())


def letter_ids(tokenizer: Tokenizer) -> tuple[int, int]:
    """Token ids of the letters. Raises ``TokenizerError`` where one takes several."""
    found = [tokenizer.encode(letter) for letter in LETTERS]
    if any(len(ids) != 1 for ids in found):
        raise TokenizerError(
            f"{' and '.join(LETTERS)} are not single tokens of this tokenizer; a model that "
            "judges needs one that has them"
        )
    return found[0][0], found[1][0]


class ModelCritic:
    """A model that an engine serves: the one that acts, so that it judges by the weights it acts
    with, or another, which stays as it is."""

    def __init__(
        self,
        engines: Sequence[RolloutEngine],
        tokenizer: Tokenizer,
        profile: ChatProfile,
        rubrics: Sequence[str],
    ) -> None:
        self._engines, self._tokenizer, self._profile = engines, tokenizer, profile
        self._rubrics = tuple(rubrics)
        self._letters = letter_ids(tokenizer)

    async def prefers(self, told: str, first: str, second: str) -> float:
        """See ``Critic``; 0.5 where the question is longer than the model's context."""
        prompt = verdict_ids(*(self._tokenizer, self._profile, told, first, second, self._rubrics))
        engine = next((one for one in self._engines if one.is_alive), self._engines[0])
        if len(prompt) >= engine.longest:
            return 0.5
        bias = tuple((letter, _CERTAIN) for letter in self._letters)
        params = SamplingParams(max_tokens=1, logit_bias=bias, logprobs=0)
        request = Request(uuid.uuid4().hex, prompt, params)
        await finished(engine, request)
        (drawn,) = request.completion
        assert drawn.token_id in self._letters
        assert drawn.sampled_logprob is not None
        probability = math.exp(drawn.sampled_logprob)
        return probability if drawn.token_id == self._letters[0] else 1 - probability


class EndpointCritic:
    """A model behind an endpoint, which is asked for a letter under a schema."""

    def __init__(self, model: Model, rubrics: Sequence[str]) -> None:
        self._model, self._rubrics = model, tuple(rubrics)

    async def prefers(self, told: str, first: str, second: str) -> float:
        """See ``Critic``; 1 or 0."""
        asked = comparison(told, first, second, self._rubrics)
        answer = await asyncio.to_thread(self._model.json, asked, _SCHEMA)
        return float(answer["better"] == LETTERS[0])


class CodeCritic:
    """A function of what was told and two attempts."""

    def __init__(self, function: Callable[[str, str, str], float]) -> None:
        self._function = function

    async def prefers(self, told: str, first: str, second: str) -> float:
        """See ``Critic``; what the function raises is told as ``UnavailableError``."""
        try:
            return await asyncio.to_thread(self._function, told, first, second)
        except Exception as error:  # a fault of somebody's code is told and counted, ends no run
            raise UnavailableError(f"the critic failed: {type(error).__name__}: {error}") from error
