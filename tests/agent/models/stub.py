"""An endpoint that answers by script, over real HTTP, and a model that asks it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from selenite.agent.models.endpoint import Endpoint
from selenite.agent.models.model import Model
from selenite.clock import ManualClock
from selenite.types import Message, ToolSpec
from tests.fixtures.scripted_server import Answer, ScriptedServer, json_answer, scripted_server

KEY = "sk-never-written-down"
ASKED = [Message("system", "Be brief."), Message("user", "größe 你好 🙂 \ud800?")]
SCHEMA = {
    "type": "object",
    "properties": {"score": {"type": "integer", "minimum": 1, "maximum": 5}},
    "required": ["score"],
    "additionalProperties": False,
}
USAGE = {"prompt_tokens": 100, "completion_tokens": 20}
GET_ORDER = ToolSpec(
    "get_order",
    "Reads an order.",
    {
        "type": "object",
        "properties": {"id": {"type": "integer"}},
        "required": ["id"],
        "additionalProperties": False,
    },
)
LIST_ORDERS = ToolSpec("order.list", "Lists orders.", {"type": "object", "properties": {}})


def answer(
    content: Any = None, finish: str | None = "stop", usage: Any = USAGE, **message: Any
) -> Answer:
    """A chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **message}}
    return json_answer({"choices": [{**choice, "finish_reason": finish}], "usage": usage})


def calling(*calls: tuple[str, Any], finish: str = "tool_calls", **fields: Any) -> Answer:
    """A chat completion with calls: names and arguments."""
    entries = [
        {"id": f"c{index}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for index, (name, arguments) in enumerate(calls)
    ]
    return answer(finish=finish, tool_calls=entries, **fields)


@contextmanager
def scripted(*answers: Answer) -> Iterator[ScriptedServer]:
    """Gives each answer once, in order, and the last one for ever."""
    rest, lock = list(answers), threading.Lock()

    def script(path: str, body: Any) -> Answer:
        assert path == "/v1/chat/completions"
        with lock:
            return rest.pop(0) if len(rest) > 1 else rest[0]

    with scripted_server(script) as server:
        yield server


def model_at(url: str, clock: ManualClock | None = None, **options: Any) -> Model:
    """Options of ``Endpoint`` go there."""
    fields = {name: options.pop(name) for name in list(options) if hasattr(Endpoint, name)}
    fields |= {name: options.pop(name) for name in ("extra", "price") if name in options}
    endpoint = Endpoint(url, "m", **{"api_key": KEY, "timeout": 5.0, **fields})
    return Model(endpoint, "judge", clock=clock or ManualClock(), **options)


def sent(server: ScriptedServer) -> list[dict[str, Any]]:
    """The bodies so far."""
    return [body for _, body in server.requests]


def last_words(body: dict[str, Any], number: int = 1) -> Sequence[dict[str, Any]]:
    """The last messages of a request."""
    messages: list[dict[str, Any]] = body["messages"]
    return messages[-number:]


def dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
