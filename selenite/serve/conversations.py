"""Recent conversations, found again when a client sends its history with a further turn.

Their ids are then continued as they were sampled, so that the prefix cache holds them to the last
token. A conversation that is not remembered is encoded from its text.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from selenite.chat.call_ids import CallIds
from selenite.chat.conversation import Conversation
from selenite.chat.events import Reply
from selenite.chat.profile import ChatProfile
from selenite.chat.tokenizer import Tokenizer
from selenite.errors import ConversationError
from selenite.types import Message, ToolSpec


@dataclass(frozen=True)
class _Told:
    """A conversation and the reply to it; put together when it is asked for."""

    conversation: Conversation
    sampled_ids: tuple[int, ...]
    reply: Reply

    @cached_property
    def num_ids(self) -> int:
        """And at least what the text takes of memory: a template may leave most of it out."""
        conversation = self.conversation
        entries = [dataclasses.asdict(entry) for entry in conversation.messages]
        entries += [dataclasses.asdict(tool) for tool in conversation.tools]
        num_characters = len(json.dumps(entries, ensure_ascii=False))
        return max(len(conversation.ids) + len(self.sampled_ids), num_characters // 16)


class Conversations:
    """Opens conversations, and keeps those of at most ``max_tokens`` ids. Safe between threads.

    ``max_characters``: a conversation's text that is longer is refused before it is encoded.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        profile: ChatProfile,
        max_tokens: int,
        max_characters: int | None = None,
    ) -> None:
        self._max_characters = max_characters
        self._tokenizer = tokenizer
        self._profile = profile
        self._max_tokens = max_tokens
        self._known: OrderedDict[bytes, _Told] = OrderedDict()  # the one used last comes last
        self._num_tokens = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._known)

    def open(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec] = (), salt: str = ""
    ) -> Conversation:
        """The conversation of these messages, continued from the longest one that is known.

        Raises ``ConversationError`` and ``TokenizerError`` for messages that make none.
        """
        start = Conversation.start(self._tokenizer, tools, self._profile)
        keys = _keys(CallIds().rewrite(messages), tools, salt)
        for count in range(len(messages), 0, -1):
            if messages[count - 1].role != "assistant":
                continue
            with self._lock:
                told = self._known.get(keys[count])
                if told is not None:
                    self._known.move_to_end(keys[count])
            if told is None:
                continue
            try:
                known = told.conversation.with_reply(told.sampled_ids, told.reply)
                resumed = known.resumed(messages, self._max_characters)
            except ConversationError:
                # The template writes earlier turns anew, or no end after a reply: only the whole
                # conversation can be encoded.
                break
            if resumed is not None:
                return resumed
        return start.extended(messages, self._max_characters)

    def remember(
        self, conversation: Conversation, sampled_ids: Sequence[int], reply: Reply, salt: str = ""
    ) -> None:
        """Keeps a conversation with the reply that was sampled for it."""
        told = _Told(conversation, tuple(sampled_ids), reply)
        messages = [*conversation.messages, reply.message()]
        key = _keys(messages, conversation.tools, salt)[-1]
        with self._lock:
            earlier = self._known.pop(key, None)
            self._num_tokens += told.num_ids - (earlier.num_ids if earlier else 0)
            self._known[key] = told
            while self._num_tokens > self._max_tokens:
                _, oldest = self._known.popitem(last=False)
                self._num_tokens -= oldest.num_ids


def _keys(messages: Sequence[Message], tools: Sequence[ToolSpec], salt: str) -> list[bytes]:
    """A digest of the first 0, 1, 2 ... messages. Reasoning, which clients leave out, is not in."""
    offered = [dataclasses.asdict(tool) for tool in tools]
    keys = [hashlib.sha256(json.dumps([salt, offered]).encode()).digest()]
    for message in messages:
        entry = dataclasses.asdict(dataclasses.replace(message, reasoning=None))
        keys.append(hashlib.sha256(keys[-1] + json.dumps(entry).encode()).digest())
    return keys
