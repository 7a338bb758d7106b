"""A language model as a back end: whatever its endpoint does, a passage gets a text or a fault."""

from __future__ import annotations

import re
from collections.abc import Sequence

from selenite.agent.models.failure import OF_ENDPOINT, ModelError, Reason
from selenite.agent.models.model import Model
from selenite.agent.randomness import stream
from selenite.agent.rephrasing.fidelity import Defect, Fault
from selenite.agent.rephrasing.passage import Attempt, Passage
from selenite.agent.rephrasing.prompts import rewrite_prompt
from selenite.types import FinishReason

_THOUGHT = re.compile(r"\s*<think>.*?</think>", re.DOTALL)
_TAGS = re.compile(r"\s*<(passage|rewrite|written)>\s*(.*?)\s*(?:</\1>\s*)?$", re.DOTALL)
_FENCED = re.compile(r"```[a-z]*\n(.*)\n```$", re.DOTALL)


class ModelRephraser:
    """Asks a model for each passage; the same passage and attempts are asked with the same seed."""

    def __init__(self, model: Model, temperature: float | None, max_tokens: int | None) -> None:
        self._model = model
        self._temperature = temperature
        self._max_tokens = max_tokens

    @property
    def name(self) -> str:
        """As the endpoint calls the model."""
        return self._model.endpoint.model

    def rewrite(self, passage: Passage, earlier: Sequence[Attempt]) -> str | Fault:
        """The model's text; raises ``StorageError`` where cache or ledger cannot be written."""
        try:
            completion = self._model.complete(
                rewrite_prompt(passage, earlier),
                temperature=self._temperature,
                max_tokens=self._max_tokens,
                seed=seed_of(passage, len(earlier)),
            )
        except ModelError as failure:
            return fault_of(failure)
        if completion.finish_reason is FinishReason.LENGTH:
            return Fault(Defect.TRUNCATED, "it was cut at the limit of tokens; write less")
        return cleaned(completion.text, passage.text)


def seed_of(passage: Passage, attempt: int) -> int:
    """The seed of a request about a passage."""
    return stream(passage.seed, "ask", *passage.path, attempt).getrandbits(31)


def fault_of(failure: ModelError) -> Fault:
    """A call that failed, as what it means for the chunk."""
    if failure.reason is Reason.TRUNCATED:
        return Fault(Defect.TRUNCATED, failure.detail)
    is_down = failure.reason in OF_ENDPOINT
    return Fault(failure.reason, failure.detail, is_final=True, is_of_endpoint=is_down)


def cleaned(text: str, source: str) -> str:
    """A reply without what models put around it: thoughts, tags, a fence around everything."""
    text = _THOUGHT.sub("", text, count=1).strip()
    tagged = _TAGS.match(text)
    if tagged is not None:
        text = tagged[2].strip()
    fenced = _FENCED.match(text)
    if fenced is not None and "```" not in source and "```" not in fenced[1]:
        text = fenced[1].strip()
    return text
