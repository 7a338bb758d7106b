"""A conversation as token ids that only ever grow.

Its record is ids: what the model sampled stays as it was sampled, and a new turn adds the ids of
what the template writes for it and nothing else. So the ids of a conversation are a prefix of the
ids of every continuation, and the engine's cached keys and values of it stay valid.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

from selenite.chat.call_ids import CallIds
from selenite.chat.events import Reply, collect
from selenite.chat.profile import ChatProfile, detect_profile
from selenite.chat.reply_parser import ReplyParser
from selenite.chat.template import Rendering
from selenite.chat.tokenizer import Tokenizer
from selenite.errors import ConversationError, UnstableTemplateError
from selenite.types import Message, ToolSpec


@dataclass(frozen=True)
class Conversation:
    """Turns and their ids. Immutable: each method that adds gives a new one, so branches share.

    Made by ``start``.
    """

    tokenizer: Tokenizer
    profile: ChatProfile
    tools: tuple[ToolSpec, ...]
    messages: tuple[Message, ...]  # ids of calls rewritten where they broke K2's rule
    ids: tuple[int, ...]  # without a generation prompt
    sampled: tuple[tuple[int, int], ...]  # [start, end) of what the model wrote, in ``ids``
    inexact_seams: tuple[int, ...]  # places where encoding all text at once gives other ids
    call_ids: CallIds = field(compare=False)  # of the calls so far; never changed here

    @classmethod
    def start(
        cls,
        tokenizer: Tokenizer,
        tools: Sequence[ToolSpec] = (),
        profile: ChatProfile | None = None,
    ) -> Conversation:
        """One without turns. ``profile=None``: the one that ``detect_profile`` finds."""
        profile = profile or detect_profile(tokenizer)[0]
        profile.check_vocabulary(tokenizer)
        return cls(tokenizer, profile, tuple(tools), (), (), (), (), CallIds())

    def extended(
        self, messages: Sequence[Message], max_characters: int | None = None
    ) -> Conversation:
        """With further turns that were not sampled here; results of one turn's calls at once.

        ``max_characters``: of what is added, which is not encoded where it has more. Raises
        ``ConversationError`` then, and for a result without a call, and its kind
        ``UnstableTemplateError`` where the template does not leave the earlier turns alone.
        """
        if not messages:
            return self
        call_ids = self.call_ids.copy()
        turns = (*self.messages, *call_ids.rewrite(messages))
        rendering = self._rendering(turns)
        old = self._old_text(rendering)
        added = _added(old, rendering.text(len(turns)), len(self.messages))
        if max_characters is not None and len(added) > max_characters:
            raise ConversationError(
                f"the conversation has {len(added)} characters, and there is no room for tokens of "
                f"more than {max_characters}; shorten it"
            )
        return dataclasses.replace(
            self,
            messages=turns,
            ids=(*self.ids, *rendering.encode(added)),
            inexact_seams=self._seams(rendering, old, added),
            call_ids=call_ids,
        )

    def prompt_ids(self) -> list[int]:
        """The ids with the generation prompt, after which the model writes its reply."""
        return [*self.ids, *self._generation_prompt()]

    def parser(self, tools_offered: bool | None = None) -> ReplyParser:
        """For the reply to ``prompt_ids``. ``tools_offered=None``: if there are tools."""
        opened = False
        if self.profile.reasoning:
            # The template wrote it, so that the text is what it seems.
            prompt = self.tokenizer.decode(self._generation_prompt())
            opened = prompt.rstrip().endswith(self.profile.reasoning.begin)
        return ReplyParser(
            self.profile,
            self.tokenizer,
            call_ids=self.call_ids,
            in_reasoning=opened,
            tools_offered=bool(self.tools) if tools_offered is None else tools_offered,
        )

    def with_reply(self, sampled_ids: Sequence[int], reply: Reply | None = None) -> Conversation:
        """With the model's own ids as the next turn, and what the template writes after them.

        ``reply``: what ``parser()`` made of them; None: they are parsed here. A reply cut short
        is given the end token that it lacks, which is not counted as sampled.
        """
        if reply is None:
            parser = self.parser()
            reply = collect([*parser.feed_ids(sampled_ids), *parser.finish()])
        call_ids = self.call_ids.copy()
        turns = (*self.messages, *call_ids.rewrite([reply.message()]))
        prompt = self.prompt_ids()
        end = len(prompt) + len(sampled_ids)
        return dataclasses.replace(
            self,
            messages=turns,
            ids=(*prompt, *sampled_ids, *self._closing(turns, sampled_ids)),
            sampled=(*self.sampled, (len(prompt), end)),
            call_ids=call_ids,
        )

    def resumed(
        self, messages: Sequence[Message], max_characters: int | None = None
    ) -> Conversation | None:
        """This conversation with what ``messages``, told from the start, adds to it.

        For clients that send the whole history each time. None where it is another history. A
        history may leave out reasoning.
        """
        told = CallIds().rewrite(messages)
        count = len(self.messages)
        if len(told) < count or not all(map(_same_turn, self.messages, told)):
            return None
        return self.extended(told[count:], max_characters)

    def _rendering(self, messages: Sequence[Message]) -> Rendering:
        template = self.profile.template(self.tokenizer)
        return Rendering(self.tokenizer, template, messages, self.tools)

    def _old_text(self, rendering: Rendering) -> str:
        # What a template writes of itself, a system turn say, comes with the first message.
        return rendering.text(len(self.messages)) if self.messages else ""

    def _generation_prompt(self) -> list[int]:
        rendering = self._rendering(self.messages)
        old = self._old_text(rendering)
        new = rendering.text(len(self.messages), add_generation_prompt=True)
        return rendering.encode(_added(old, new, len(self.messages)))

    def _closing(self, turns: Sequence[Message], sampled_ids: Sequence[int]) -> list[int]:
        """What the template writes after an assistant's own words, end token first if needed."""
        rendering = self._rendering(turns)
        old = self._old_text(rendering)
        parts = rendering.parts(_added(old, rendering.text(len(turns)), len(self.messages)))
        stop_ids = self.profile.stop_ids(self.tokenizer)
        special = self.tokenizer.special_tokens
        ends = [place for place in range(1, len(parts), 2) if special[parts[place]] in stop_ids]
        if not ends:
            raise ConversationError(
                "the template writes no end token after an assistant's turn "
                f"(ids that end a reply under the profile {self.profile.name!r}: "
                f"{list(stop_ids)}); choose the model's own profile or mend the template"
            )
        ended = bool(sampled_ids) and sampled_ids[-1] == special[parts[ends[-1]]]
        return rendering.encode("".join(parts[ends[-1] + ended :]))

    def _seams(self, rendering: Rendering, old: str, added: str) -> tuple[int, ...]:
        """Where text meets text with no special token between, a tokenizer might merge them."""
        left, right = rendering.parts(old)[-1], rendering.parts(added)[0]
        apart = [*rendering.encode(left), *rendering.encode(right)]
        if not left or not right or rendering.encode(left + right) == apart:
            return self.inexact_seams
        return (*self.inexact_seams, len(self.ids))


def _added(old: str, new: str, count: int) -> str:
    """What ``new`` adds to ``old``; ``count`` messages are in both."""
    if new.startswith(old):
        return new[len(old) :]
    place = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), len(new))
    raise UnstableTemplateError(
        f"the chat template changes the first {count} turns when another follows: at character "
        f"{place} it wrote {old[place : place + 40]!r} and now {new[place : place + 40]!r}; add "
        "turns that it joins (results of tools, say) at once, or encode the conversation anew"
    )


def _same_turn(known: Message, told: Message) -> bool:
    if told.reasoning is None:
        told = dataclasses.replace(told, reasoning=known.reasoning)
    return known == told
