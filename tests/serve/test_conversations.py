"""Conversations that are found again."""

from __future__ import annotations

import dataclasses
import random

from selenite.chat.conversation import Conversation
from selenite.chat.profile import K2
from selenite.chat.reply_parser import parse_reply
from selenite.chat.tokenizer import Tokenizer
from selenite.serve.conversations import Conversations
from selenite.types import Message

HELLO = Message("user", "Hello, fox.")


def odd_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids of the text that its own tokeniser would not choose: a character each, then the end."""
    ids = [id for character in text for id in tokenizer.encode(character)]
    assert ids != tokenizer.encode(text)
    return [*ids, tokenizer.special_id("<|im_end|>")]


def told(store: Conversations, tokenizer: Tokenizer, text: str, salt: str = "") -> Conversation:
    conversation = store.open([HELLO], salt=salt)
    sampled = odd_ids(tokenizer, text)
    store.remember(conversation, sampled, parse_reply(K2, sampled, tokenizer), salt)
    return conversation.with_reply(sampled)


def test_a_history_continues_in_the_ids_that_were_sampled(tokenizer: Tokenizer) -> None:
    store = Conversations(tokenizer, K2, 10_000)
    known = told(store, tokenizer, "The quick brown fox")
    history = [HELLO, Message("assistant", "The quick brown fox"), Message("user", "Go on.")]
    assert store.open(history).ids[: len(known.ids)] == known.ids
    fresh = Conversation.start(tokenizer, (), K2).extended(history)
    assert fresh.ids[: len(known.ids)] != known.ids
    # Further turns that nobody sampled here do not hide the one that was.
    later = [*history, Message("assistant", "Elsewhere."), Message("user", "And?")]
    assert store.open(later).ids[: len(known.ids)] == known.ids
    other = dataclasses.replace(history[1], content="The slow brown fox")
    assert store.open([HELLO, other, history[2]]).sampled == ()


def test_another_salt_is_another_world(tokenizer: Tokenizer) -> None:
    store = Conversations(tokenizer, K2, 10_000)
    told(store, tokenizer, "The quick brown fox", salt="a")
    history = [HELLO, Message("assistant", "The quick brown fox"), Message("user", "Go on.")]
    assert store.open(history, salt="a").sampled
    assert not store.open(history, salt="b").sampled
    assert not store.open(history).sampled


def test_memory_is_bounded_and_the_oldest_goes_first(tokenizer: Tokenizer) -> None:
    one = len(told(Conversations(tokenizer, K2, 10_000), tokenizer, "fox number 000").ids)
    store = Conversations(tokenizer, K2, 10 * one)
    rng = random.Random(0)
    for number in range(100):
        told(store, tokenizer, f"fox number {number:03}")
        told(store, tokenizer, f"fox number {rng.randrange(100):03}")
    assert len(store) <= 13  # what a template closes a turn with is not counted
    last = [HELLO, Message("assistant", "fox number 099"), Message("user", "Go on.")]
    assert store.open(last).sampled


def test_text_that_the_template_leaves_out_counts(tokenizer: Tokenizer) -> None:
    """Of an earlier turn's reasoning there are no ids, and it is kept all the same."""
    store = Conversations(tokenizer, K2, 10_000)
    for number in range(10):
        thought = Message("assistant", "Yes.", reasoning=f"{number}" * 100_000)
        conversation = store.open([HELLO, thought, Message("user", "Go on.")])
        sampled = odd_ids(tokenizer, "The quick brown fox")
        store.remember(conversation, sampled, parse_reply(K2, sampled, tokenizer))
    assert len(store) <= 1
