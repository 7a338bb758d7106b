"""The prompts of ``prompts.toml``, filled in."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from importlib.resources import files

from selenite.agent.rephrasing.passage import Attempt, Passage
from selenite.types import Message

_TABLE = tomllib.loads(files(__package__).joinpath("prompts.toml").read_text(encoding="utf-8"))
_REWRITE: dict[str, str] = _TABLE["rewrite"]
_JUDGE: dict[str, str] = _TABLE["judge"]


def rewrite_prompt(passage: Passage, earlier: Sequence[Attempt]) -> list[Message]:
    """For a rewrite; after attempts that did not pass, with the last and what is wrong with it."""
    system = _REWRITE["system"].format(
        perspective=passage.perspective.instruction, style=passage.style.instruction
    )
    user = ""
    if passage.heading:
        user += _REWRITE["place"].format(heading=passage.heading)
    if passage.written:
        user += _REWRITE["context"].format(written=passage.written)
    user += _REWRITE["passage"].format(text=passage.text)
    messages = [Message("system", system), Message("user", user.strip())]
    if earlier and earlier[-1].text:
        faults = "; ".join(fault.detail for fault in earlier[-1].faults)
        messages.append(Message("assistant", earlier[-1].text))
        messages.append(Message("user", _REWRITE["again"].format(faults=faults)))
    return messages


def judge_prompt(passage: Passage, written: str) -> list[Message]:
    """For a verdict on a rewrite."""
    user = _JUDGE["user"].format(text=passage.text, written=written)
    return [Message("system", _JUDGE["system"]), Message("user", user)]
