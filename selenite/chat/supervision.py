"""A conversation as token ids for training: what the model would have sampled is marked.

Ids are cut where serving cuts them: a prompt with its generation prompt, then what the model
writes, its end token included. So training sees the ids that serving makes, and learns nothing
that others wrote: prompts, tools, users, results, and what the template adds after a turn's end.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from selenite.chat.profile import ChatProfile, detect_profile
from selenite.chat.template import Rendering
from selenite.chat.tokenizer import Tokenizer
from selenite.errors import UnstableTemplateError
from selenite.types import Message, ToolSpec


@dataclass(frozen=True)
class Supervised:
    """Ids of a conversation, and of each whether a loss is on it."""

    ids: tuple[int, ...]
    is_trained: tuple[bool, ...]
    turns: tuple[tuple[int, int, int], ...]  # [start, end) of what it wrote, and the message


def supervise(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    tools: Sequence[ToolSpec] = (),
    untrained: Collection[int] = (),
    profile: ChatProfile | None = None,
) -> Supervised:
    """The conversation under the template of a profile.

    Args:
        tokenizer: with a chat template.
        messages: the turns.
        tools: offered to the model.
        untrained: places of assistant's turns without a loss, such as errors that are mended later.
        profile: None: the one that ``detect_profile`` finds.

    Raises ``TokenizerError`` without a template, and ``UnstableTemplateError`` where the template
    writes earlier turns differently once later ones follow.
    """
    profile = profile or detect_profile(tokenizer)[0]
    rendering = Rendering(tokenizer, profile.template(tokenizer), messages, tools)
    ids: list[int] = []
    is_trained: list[bool] = []
    turns: list[tuple[int, int, int]] = []

    def add(text: str, trained: bool) -> None:
        added = rendering.encode(text)
        ids.extend(added)
        is_trained.extend([trained] * len(added))

    done = ""
    for place, message in enumerate(messages):
        if message.role != "assistant":
            continue
        prompt = rendering.text(place, add_generation_prompt=True)
        whole = rendering.text(place + 1)
        add(_after(done, prompt, place), False)
        written, end = _own(rendering, _after(prompt, whole, place))
        start = len(ids)
        add(written, place not in untrained)
        turns.append((start, len(ids), place))
        add(end, False)
        done = whole
    add(_after(done, rendering.text(len(messages)), len(messages)), False)
    return Supervised(tuple(ids), tuple(is_trained), tuple(turns))


def _after(old: str, new: str, place: int) -> str:
    if not new.startswith(old):
        raise UnstableTemplateError(
            f"message {place}: the template writes what came before it differently from then on; "
            "use a template whose conversations only grow"
        )
    return new[len(old) :]


def _own(rendering: Rendering, turn: str) -> tuple[str, str]:
    """A turn up to its last special token, which ends it, and what the template adds."""
    parts = rendering.parts(turn)
    return "".join(parts[:-1]), parts[-1]
