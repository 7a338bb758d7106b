"""Plain chat, answered by the model that is to be taught: so that it keeps what it can say.

Prompts are drawn from ``plain_chat.toml``; the model answers them itself, served for this, and
answers that end by themselves are rows; they are kept by the model's weights. Some rows have tools
that do not fit: a model that has seen tools only where they help would call one for a greeting.
"""

from __future__ import annotations

import hashlib
import random
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import Field

from selenite.agent.functions.concept import concepts, pools
from selenite.agent.functions.signature import STYLES, make_function
from selenite.agent.models.cache import Cache
from selenite.agent.models.endpoint import Endpoint
from selenite.agent.models.failure import OF_ENDPOINT, ModelError, Reason
from selenite.agent.models.model import Model
from selenite.agent.randomness import stream
from selenite.agent.workers import threads
from selenite.atomic import sha256
from selenite.chat.openai_form import tool_entry
from selenite.client.child_server import child_server
from selenite.config import Config
from selenite.errors import ConfigError
from selenite.types import FinishReason, Message

_SLOT = re.compile(r"\{([a-z_]+)\}")
_TIMEOUT = 1800.0  # seconds for one answer: a small machine takes its time
_AT_ONCE = 8  # requests; more do not go to one endpoint without limits of its own
_MARKS = ("<tool_call>", "<|")  # a reply with one of these is no plain text


class PlainChatConfig(Config):
    """Who answers, and how."""

    model: Path  # a model directory
    count: int = Field(default=1000, ge=1)  # prompts; some answers are of no use
    with_tools: float = Field(default=0.4, ge=0, le=1)  # share of the rows
    temperature: float = Field(default=0.7, ge=0)
    max_tokens: int = Field(default=160, ge=1)  # longer answers are left out


def chat_rows(config: PlainChatConfig, seed: int, cache_dir: Path) -> Iterator[dict[str, Any]]:
    """Chat rows in the order of their prompts. Answers are kept in ``cache_dir``, so that a second
    call asks nobody."""
    with child_server(config.model, ("--max-num-seqs", str(_AT_ONCE))) as served:
        endpoint = Endpoint(
            served.path("/v1"), served.served_model(), served.api_key, timeout=_TIMEOUT
        )
        model = Model(
            endpoint,
            "plain chat",
            cache=Cache(cache_dir / weights_digest(config.model)[:16]),
        )

        def answered(number: int) -> dict[str, Any] | None:
            rng = stream(seed, "chat", number)
            prompt = draw_prompt(rng)
            try:
                reply = model.complete(
                    [Message("user", prompt)],
                    temperature=config.temperature,
                    max_tokens=config.max_tokens,
                    seed=number,
                )
            except ModelError as error:
                if error.reason in OF_ENDPOINT - {Reason.EMPTY}:
                    raise
                return None
            is_whole = reply.finish_reason is FinishReason.STOP
            if not is_whole or any(mark in reply.text for mark in _MARKS):
                return None
            return _row(prompt, reply.text.strip(), rng, config.with_tools)

        with threads(_AT_ONCE) as pool:
            found = pool.map(answered, range(config.count))
            yield from (row for row in found if row is not None)
        model.close()


def weights_digest(model: Path) -> str:
    """SHA-256 over the files of a model directory. Raises ``ConfigError`` where there is none."""
    files = sorted(path for path in model.glob("*") if path.suffix in (".safetensors", ".json"))
    if not files:
        raise ConfigError(f"chat.model={model}: no model there; give a model directory")
    lines = [f"{path.name} {sha256(path)}" for path in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def draw_prompt(rng: random.Random) -> str:
    """A request that no tool is for."""
    return _SLOT.sub(lambda found: rng.choice(pools()[found.group(1)]), rng.choice(_prompts()))


def _row(prompt: str, answer: str, rng: random.Random, with_tools: float) -> dict[str, Any]:
    row: dict[str, Any] = {
        "messages": [
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": answer},
        ]
    }
    if rng.random() < with_tools:
        everything = concepts()
        style = rng.choice(STYLES)
        chosen = [rng.choice(everything[rng.choice(list(everything))]) for _ in range(4)]
        functions = [make_function(concept, style, rng) for concept in chosen]
        tools = {function.tool.name: tool_entry(function.tool) for function in functions}
        row["tools"] = list(tools.values())[: rng.randint(1, 4)]
    return row


@cache
def _prompts() -> tuple[str, ...]:
    path = Path(__file__).with_name("plain_chat.toml")
    return tuple(tomllib.loads(path.read_text(encoding="utf-8"))["ask"])
