"""Tries whether conversations under a model's template only grow, before anyone relies on it."""

from __future__ import annotations

from selenite.chat.conversation import Conversation
from selenite.chat.profile import ChatProfile
from selenite.chat.tokenizer import Tokenizer
from selenite.errors import TokenizerError, UnstableTemplateError
from selenite.types import Message, ToolCall, ToolSpec

_TOOL = ToolSpec("look_up", "Looks a word up.", {"type": "object", "properties": {}})
_CALLS = (
    ToolCall(_TOOL.name, '{"word": "a"}', f"functions.{_TOOL.name}:0"),
    ToolCall(_TOOL.name, '{"word": "b"}', f"functions.{_TOOL.name}:1"),
)
_TALK: tuple[tuple[Message, ...], ...] = (
    (Message("user", "One."),),
    (Message("assistant", "Two."),),
    (Message("user", "Three."),),
)
_TOOL_TALK: tuple[tuple[Message, ...], ...] = (
    (Message("assistant", "Four.", tool_calls=_CALLS),),
    tuple(Message("tool", call.arguments, tool_call_id=call.id) for call in _CALLS),
)
_THOUGHT_TALK: tuple[tuple[Message, ...], ...] = (
    (Message("assistant", "Five.", reasoning="Hm."),),
    (Message("user", "Six."),),
)


def check_template(tokenizer: Tokenizer, profile: ChatProfile) -> tuple[str, ...]:
    """What keeps conversations from growing by their new turns alone; empty if nothing does.

    A finding tells what a server must encode anew, and what training and serving see differently.
    """
    tools = (_TOOL,) if profile.calls else ()
    turns = [*_TALK, *(_TOOL_TALK if profile.calls else ()), *_THOUGHT_TALK]
    start = conversation = Conversation.start(tokenizer, tools, profile)
    findings: list[str] = []
    for place, added in enumerate(turns):
        try:
            conversation = conversation.extended(added)
            if added[0].role != "assistant":
                findings.extend(_prompt_finding(conversation, turns[place + 1 :][:1]))
        except TokenizerError as error:
            findings.append(f"a turn of {added[0].role!r} is refused: {error}")
            break
        except UnstableTemplateError as error:
            findings.append(f"adding a turn of {added[0].role!r}: {error}")
            so_far = [message for group in turns[: place + 1] for message in group]
            conversation = start.extended(so_far)
    if conversation.inexact_seams:
        findings.append("turns meet without a special token between and merge across the seam")
    return tuple(dict.fromkeys(findings))


def _prompt_finding(
    conversation: Conversation, following: list[tuple[Message, ...]]
) -> tuple[str, ...]:
    """The generation prompt should be how the template begins an assistant's turn."""
    if not following or following[0][0].role != "assistant":
        return ()
    prompt = tuple(conversation.prompt_ids())
    if conversation.extended(following[0]).ids[: len(prompt)] == prompt:
        return ()
    return ("the generation prompt is not how an assistant's turn begins in the history",)
