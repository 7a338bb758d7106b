"""A model that compares meanings, where code has found nothing wrong.

It can only object: what failed a check of code is never shown to it. A judge that does not answer
is no verdict; the chunk fails with the reason of the endpoint.
"""

from __future__ import annotations

from selenite.agent.models.failure import ModelError
from selenite.agent.models.model import Model
from selenite.agent.rephrasing.by_model import fault_of, seed_of
from selenite.agent.rephrasing.fidelity import Fault
from selenite.agent.rephrasing.passage import Passage
from selenite.agent.rephrasing.prompts import judge_prompt

UNFAITHFUL = "unfaithful"
_VERDICT = {
    "type": "object",
    "properties": {
        "difference": {"type": "string"},  # first, so that it is thought of before the verdict
        "is_faithful": {"type": "boolean"},
    },
    "required": ["difference", "is_faithful"],
    "additionalProperties": False,
}


class Judge:
    """Asks one model about each rewrite that passed the checks."""

    def __init__(self, model: Model, temperature: float | None, max_tokens: int | None) -> None:
        self._model = model
        self._temperature = temperature
        self._max_tokens = max_tokens

    def fault_of(self, passage: Passage, written: str) -> Fault | None:
        """What is against a rewrite; raises ``StorageError`` where the disk is full."""
        try:
            verdict = self._model.json(
                judge_prompt(passage, written),
                _VERDICT,
                temperature=self._temperature,
                max_tokens=self._max_tokens,
                seed=seed_of(passage, 0),
            )
        except ModelError as failure:
            fault = fault_of(failure)
            return Fault(f"judge_{fault.reason}", fault.detail, True, fault.is_of_endpoint)
        if verdict["is_faithful"]:
            return None
        return Fault(UNFAITHFUL, f"it does not say the same: {verdict['difference'][:300]}")
