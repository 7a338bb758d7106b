"""An environment of ``verifiers`` that is played from outside: its own rollout, whose model we are.

    begin  ─►  env.rollout(row, client) ─► client.get_response(prompt): the opening
    reply  ─►  what the client returns, until it is asked again: the new messages, or the end
    score  ─►  env.rubric.score_rollout(state)

So environments of one turn, of several, and with tools, and those that override any of it, run as
they do in ``verifiers``. What they ask of other models is their own affair.

Usage: worker.py ENVIRONMENT ARGUMENTS, where ARGUMENTS are JSON; then lines as in selenite_lines.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

import verifiers as vf  # type: ignore[import-not-found]
from selenite_lines import serve  # type: ignore[import-not-found]
from verifiers.types import (  # type: ignore[import-not-found]
    Response,
    ResponseMessage,
    ToolCall,
    Usage,
)

_broken: ContextVar[list[str]] = ContextVar("broken")
"""Reward functions that raised while an attempt is scored."""


class FailedError(Exception):
    """The environment cannot be played, or not judged: never a reward of 0."""


class Relay(vf.Client):
    """A client whose model is whoever plays the attempt."""

    def __init__(self) -> None:
        super().__init__(None)
        self.asked: asyncio.Queue[tuple[list[Any], list[Any]]] = asyncio.Queue()
        self.turns: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def get_response(
        self, prompt: Any, model: str, sampling_args: Any, tools: Any = None, **kwargs: Any
    ) -> Response:
        """Hands over the prompt, and waits for the turn."""
        self.asked.put_nowait((list(prompt), list(tools or [])))
        turn = await self.turns.get()
        calls = [ToolCall(**call) for call in turn["tool_calls"]]
        return Response(
            id="",
            created=0,
            model=model,
            usage=Usage(prompt_tokens=0, reasoning_tokens=0, completion_tokens=0, total_tokens=0),
            message=ResponseMessage(
                content=turn["content"],
                reasoning_content=turn["reasoning"],
                tool_calls=calls or None,
                finish_reason="tool_calls" if calls else "stop",
                is_truncated=False,
            ),
        )

    def setup_client(self, config: Any) -> None:
        """There is nothing to connect to."""

    async def to_native_tool(self, tool: Any) -> Any:
        """Not asked for by ``get_response``; the same of those below."""
        raise NotImplementedError

    async def to_native_prompt(self, messages: Any) -> Any:
        raise NotImplementedError

    async def get_native_response(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    async def raise_from_native_response(self, response: Any) -> None:
        raise NotImplementedError

    async def from_native_response(self, response: Any) -> Any:
        raise NotImplementedError

    async def close(self) -> None:
        """Nothing is open."""


class Attempt:
    """One rollout."""

    def __init__(self, env: Any, row: Mapping[str, Any]) -> None:
        self._env = env
        self._client = Relay()
        self._rollout = asyncio.create_task(env.rollout(dict(row), self._client, "selenite", {}))
        self._said: list[dict[str, Any]] = []
        self._tools: list[dict[str, Any]] = []

    async def opening(self) -> dict[str, Any]:
        """What the model is told first, and what it may call."""
        asked = await self._next()
        if asked is None:
            raise FailedError("it ends before the model's first turn")
        self._said, self._tools = asked
        return {"messages": self._said, "tools": self._tools}

    async def reply(self, turn: dict[str, Any]) -> dict[str, Any]:
        """What follows a turn."""
        self._client.turns.put_nowait(turn)
        asked = await self._next()
        if asked is None:
            return {"messages": []}
        said, tools = asked
        known = len(self._said)
        if said[:known] != self._said or said[known : known + 1] != [_own(turn)]:
            raise FailedError("it changes what was said, and a model's tokens are never made anew")
        if tools != self._tools:
            raise FailedError("it changes its tools within an attempt")
        self._said = said
        if len(said) == known + 1:
            raise FailedError("it asks for another turn and says nothing")
        return {"messages": said[known + 1 :]}

    async def score(self) -> dict[str, Any]:
        """The rubric's reward, of an attempt that is at its end."""
        if not self._rollout.done():
            raise FailedError("it is scored before its end")
        state = self._state()
        broken: list[str] = []
        _broken.set(broken)
        await self._env.rubric.score_rollout(state)
        await self._env.rubric.cleanup(state)
        if broken:
            raise FailedError(f"its rubric fails: {'; '.join(broken)}")
        return {"reward": state["reward"], "metrics": state["metrics"] or {}}

    async def close(self) -> dict[str, Any]:
        """Ends it, and lets it clean up."""
        self._rollout.cancel()
        await asyncio.wait([self._rollout])
        return {}

    async def _next(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]] | None:
        """The next prompt and its tools; None at the end."""
        asked = asyncio.create_task(self._client.asked.get())
        await asyncio.wait([asked, self._rollout], return_when=asyncio.FIRST_COMPLETED)
        if not asked.done():
            asked.cancel()
            self._state()
            return None
        prompt, tools = asked.result()
        return [_message(message) for message in prompt], [_tool(tool) for tool in tools]

    def _state(self) -> Any:
        """At the end. Raises what ended the rollout where it was no end of its own."""
        state = self._rollout.result()
        if state.get("error") is not None:
            raise FailedError("the rollout failed") from state["error"]
        if state.get("timed_out"):
            raise FailedError("its own time is over")
        return state


class Environment:
    """What the lines ask for."""

    def __init__(self, name: str, arguments: Mapping[str, Any]) -> None:
        self._env = vf.load_environment(name, **arguments)
        if self._env.requires_group_rollouts:
            raise FailedError(f"{name}: its rubric judges groups, and here each attempt is judged")
        for rubric in _rubrics(self._env):
            rubric.funcs = [_honest(function) for function in rubric.funcs]
        rows, held_out = self._env.build_dataset(), self._env.build_eval_dataset()
        if rows is not None and held_out is None:
            cut = len(rows) - max(1, len(rows) // 10)
            held_out = rows.select(range(cut, len(rows)))
            rows = rows.select(range(cut))
        self._rows = {"training": rows or [], "held_out": held_out or []}
        self._attempts: dict[int, Attempt] = {}

    async def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Of an operation."""
        op, number = request["op"], request.get("attempt", -1)
        if op == "describe":
            return {"rows": {split: len(rows) for split, rows in self._rows.items()}}
        if op == "begin":
            rows = self._rows[request["split"]]
            if not rows:
                raise FailedError(f"its dataset has no rows for {request['split']}")
            attempt = Attempt(self._env, rows[request["number"] % len(rows)])
            self._attempts[number] = attempt
            return await attempt.opening()
        if op == "close":
            closed = self._attempts.pop(number, None)
            return await closed.close() if closed else {}
        attempt = self._attempts[number]
        return await (attempt.reply(request["turn"]) if op == "reply" else attempt.score())


def _rubrics(env: Any) -> Iterator[Any]:
    """All that judge, those of groups of environments too."""
    found = [env.rubric]
    while found:
        rubric = found.pop()
        found += getattr(rubric, "rubrics", [])
        if "funcs" in vars(rubric):
            yield rubric
    for other in getattr(env, "envs", []):
        yield from _rubrics(other)


def _honest(function: Callable[..., Any]) -> Callable[..., Any]:
    """A reward function whose exceptions are noted: the rubric makes them rewards of 0."""

    @functools.wraps(function)
    async def noted(*args: Any, **kwargs: Any) -> Any:
        try:
            value = function(*args, **kwargs)
            return await value if inspect.isawaitable(value) else value
        except Exception as error:
            _broken.get([]).append(f"{noted.__name__}: {type(error).__name__}: {error}")
            raise

    return noted


def _own(turn: Mapping[str, Any]) -> dict[str, Any]:
    """A turn of the model as it stands in a prompt."""
    message = {"role": "assistant", "content": turn["content"]}
    return message | ({"tool_calls": turn["tool_calls"]} if turn["tool_calls"] else {})


def _message(message: Any) -> dict[str, Any]:
    """A message in plain terms; what it thought is left out."""
    found = {"role": message.role, "content": _text(message.content)}
    if found["role"] == "tool":
        found["tool_call_id"] = message.tool_call_id
    calls = getattr(message, "tool_calls", None)
    if calls:
        found["tool_calls"] = [
            {"id": call.id, "name": call.name, "arguments": call.arguments} for call in calls
        ]
    return found


def _text(content: Any) -> str:
    if isinstance(content, str) or content is None:
        return content or ""
    parts = [part if isinstance(part, dict) else part.model_dump() for part in content]
    other = [part.get("type") for part in parts if part.get("type") != "text"]
    if other:
        raise FailedError(f"it has content that is no text: {other[0]}")
    return "".join(part["text"] for part in parts)


def _tool(tool: Any) -> dict[str, Any]:
    return {
        "name": tool.name,
        "description": tool.description or "",
        "parameters": tool.parameters or {"type": "object", "properties": {}},
    }


if __name__ == "__main__":
    serve(lambda: Environment(sys.argv[1], json.loads(sys.argv[2])).answer)
