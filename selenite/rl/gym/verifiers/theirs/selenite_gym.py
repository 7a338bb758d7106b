"""An environment of ``verifiers`` that plays one of ours, in a process of our interpreter.

    PYTHONPATH=.../selenite/rl/gym/verifiers/theirs vf-eval selenite-gym \
        -a '{"python": ".../.venv/bin/python", "table": {"kind": "math", "level": 1}}' ...

A reward is our score, from 0 to 1; an attempt over its budget of tokens or turns has 0.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import verifiers as vf  # type: ignore[import-not-found]
from datasets import Dataset
from selenite_lines import Asked, AskedError  # type: ignore[import-not-found]

_HELD_OUT = 10_000_000


class SeleniteGym(vf.MultiTurnEnv):
    """Tasks of one of our environments.

    Args:
        python: an interpreter that has ``selenite``.
        table: the environment's table, as in the config of a run.
        tasks: rows for training, and for evaluation.
    """

    def __init__(self, python: str, table: Mapping[str, Any], tasks: int = 100) -> None:
        self._asked = Asked([python, "-m", "selenite.rl.gym.verifiers.server", json.dumps(table)])
        described = self._asked.ask("describe")
        self._tokens, self._turns = described["tokens"], described["turns"]
        super().__init__(
            dataset=lambda: self._rows(0, tasks),
            eval_dataset=lambda: self._rows(_HELD_OUT, tasks),
            rubric=vf.Rubric(funcs=[reward]),
            env_id="selenite-gym",
        )

    async def setup_state(self, state: vf.State) -> None:
        """Begins an attempt."""
        began = await self._ask("begin", number=state["info"]["number"])
        state["attempt"] = began["attempt"]
        state["value"] = 0.0  # until it is scored
        state["sampling_args"] = dict(state["sampling_args"] or {})

    async def get_prompt_messages(self, state: vf.State) -> Any:
        """With what is left of the budget as the most that the next turn may have."""
        messages = await super().get_prompt_messages(state)
        used = self.get_state_usage(state) or {}
        left = max(self._tokens - int(used.get("output_tokens", 0)), 1)
        own = state["sampling_args"].get("max_tokens") or left
        state["sampling_args"]["max_tokens"] = min(left, own)
        return messages

    async def env_response(self, messages: Any, state: vf.State, **kwargs: Any) -> Any:
        """What follows the last turn. Where nothing does, the attempt is scored."""
        if state["trajectory"][-1]["is_truncated"]:
            return self._over(state)
        answer = await self._ask("reply", attempt=state["attempt"], turn=_turn(messages[-1]))
        if not answer["messages"]:
            scored = await self._ask("score", attempt=state["attempt"])
            state["value"], state["checks"] = scored["reward"], scored["checks"]
            return self._over(state)
        used = self.get_state_usage(state) or {}
        is_spent = used.get("output_tokens", 0) >= self._tokens
        if is_spent or len(state["trajectory"]) == self._turns:
            state["is_truncated"] = True
            return self._over(state)
        return answer["messages"]

    @vf.cleanup
    async def close_attempt(self, state: vf.State) -> None:
        """Lets ours go."""
        if "attempt" in state:
            await self._ask("close", attempt=state.pop("attempt"))

    @vf.teardown
    async def close(self) -> None:
        """Ends our process."""
        self._asked.close()

    def _over(self, state: vf.State) -> list[Any]:
        state["final_env_response"] = []
        return []

    async def _ask(self, op: str, **fields: Any) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = await asyncio.wrap_future(self._asked.begin(op, **fields))
        except AskedError as error:
            raise vf.InfraError(str(error)) from error
        return answer

    def _rows(self, first: int, tasks: int) -> Dataset:
        rows = []
        for number in range(first, first + tasks):
            began = self._asked.ask("begin", number=number)
            self._asked.ask("close", attempt=began["attempt"])
            info = {"number": number, "tool_defs": began["tools"]}
            # As text: tools of different tasks have different fields, and columns have one type.
            rows.append({"prompt": began["messages"], "info": json.dumps(info)})
        return Dataset.from_list(rows)


def reward(state: vf.State) -> float:
    """Our score."""
    return float(state["value"])


def load_environment(python: str, table: Mapping[str, Any], tasks: int = 100) -> SeleniteGym:
    """What ``verifiers.load_environment`` looks for."""
    return SeleniteGym(python, table, tasks)


def _turn(message: Any) -> dict[str, Any]:
    """The model's turn as it crosses the border."""
    calls = [
        {"id": call.id, "name": call.name, "arguments": call.arguments}
        for call in message.tool_calls or ()
    ]
    return {
        "content": message.content or "",
        "reasoning": message.reasoning_content,
        "tool_calls": calls,
    }
