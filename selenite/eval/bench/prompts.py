"""Prompts that have the right number of tokens for the server's own tokenizer.

For ``/v1/completions`` they are token ids, so their length is exact. For a chat they are words
that are one token each; the chat's template adds its tokens, and the server's count says how many.
The same seed and workload make the same prompts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import httpx
import numpy as np

from selenite.chat.tokenizer import Tokenizer
from selenite.client.endpoint import Endpoint
from selenite.errors import ConfigError, EndpointError
from selenite.eval.bench.workload import Request

_WORDS = """
the of and to in is that for it as was with be by on not he his but at are this have from or had
an they which one you were all her she there would their we him been has when who will no more
if out so up said what its about than into them can only other time new some could these two may
first then do any like my now over such our man me even most made after also did many off before
must well back through years much where your way down should because long each just state those
people too mr how little good world make very year still see own work men day get here old life
both between being under three never know same last another while us might great go come since
against right came take used himself few house use place during without again home around small
however found part school every don does got united left number course war until always away
something fact water public put think almost hand enough far took head yet government system set
better told nothing night end why called find going look asked later point knew next program
city business give group toward days young let room word second
"""
"""Frequent English words; a tokenizer of any English text has one token for most of them."""

_LEAST_WORDS = 16
_ANCHOR = " the"
_REMEDY = (
    "give --tokenizer DIR, a server with /tokenize, or --vocab-size with --endpoint completions"
)


@dataclass(frozen=True)
class Vocabulary:
    """What prompts are drawn from."""

    ids: tuple[int, ...]
    texts: tuple[str, ...] | None  # of each id; None: ids only
    reason: str  # where it is from


def of_tokenizer(tokenizer: Tokenizer, needs_text: bool, source: str) -> Vocabulary:
    """Ordinary tokens of a local tokenizer, or its one-token words where text is needed.

    Raises ``ConfigError`` when there are too few of these.
    """
    if needs_text:
        return _words(tokenizer.encode, f"words of one token, by {source}")
    special = set(tokenizer.special_tokens.values())
    ids = tuple(id for id in range(tokenizer.vocab_size) if id not in special)
    return Vocabulary(ids, None, f"token ids of {source} without special ones")


def of_server(endpoint: Endpoint, model: str, needs_text: bool) -> Vocabulary | None:
    """The tokens of English words by the server's ``/tokenize`` (vLLM's form or llama.cpp's), or
    its one-token words where text is needed.

    ``None`` where it has no ``/tokenize``. Raises ``ConfigError`` when there are too few words, and
    ``EndpointError`` when the server goes away or answers with something else.
    """
    with endpoint.open(timeout=30) as client:

        def encode(text: str) -> list[int]:
            return _tokenize(client, endpoint, model, text)

        try:
            found = encode(_WORDS)
            if not found:
                return None
            if needs_text:
                return _words(encode, "words of one token, by the server's /tokenize")
        except httpx.RequestError as error:
            raise EndpointError(f"{endpoint.path('/tokenize')}: {error}") from error
    ids = tuple(sorted({*found[1:]}))  # the first may be one that begins every text
    return Vocabulary(ids, None, "token ids of English words, by the server's /tokenize")


def of_range(vocab_size: int) -> Vocabulary:
    """Any ids of a vocabulary of unknown content, from 256 on where it is large: the first ids
    are often special tokens or single bytes."""
    if vocab_size < 2:
        raise ConfigError(f"--vocab-size {vocab_size}: must be 2 or more")
    low = min(256, vocab_size // 2)
    return Vocabulary(tuple(range(low, vocab_size)), None, f"token ids {low} to {vocab_size - 1}")


class PromptMaker:
    """Turns a request's blocks into tokens; a block's content id decides what is in it."""

    def __init__(self, vocabulary: Vocabulary, seed: int) -> None:
        self._vocabulary = vocabulary
        self._seed = seed

    def ids(self, request: Request) -> list[int]:
        """The prompt as token ids."""
        return [self._vocabulary.ids[index] for index in self._indices(request)]

    def text(self, request: Request) -> str:
        """The prompt as text; the vocabulary must have texts."""
        assert self._vocabulary.texts is not None, self._vocabulary.reason
        return "".join(self._vocabulary.texts[index] for index in self._indices(request))

    def _indices(self, request: Request) -> list[int]:
        size = len(self._vocabulary.ids)
        drawn = []
        for content, length in request.blocks:
            rng = np.random.default_rng([self._seed, 2, content % 2**64])
            drawn += rng.integers(size, size=length).tolist()
        return drawn


def _words(encode: Callable[[str], list[int]], reason: str) -> Vocabulary:
    """Behind an anchor, since some tokenizers write a text's first word in another way."""
    anchor = encode(_ANCHOR)
    found: dict[int, str] = {}
    for word in _WORDS.split():
        ids = encode(f"{_ANCHOR} {word}")
        if len(ids) == len(anchor) + 1 and ids[: len(anchor)] == anchor:
            found.setdefault(ids[-1], f" {word}")
    if len(found) < _LEAST_WORDS:
        raise ConfigError(
            f"only {len(found)} frequent English words are one token each, {_LEAST_WORDS} are "
            f"needed to write prompts of a given length as text; {_REMEDY}"
        )
    return Vocabulary(tuple(found), tuple(found.values()), reason)


def _tokenize(client: httpx.Client, endpoint: Endpoint, model: str, text: str) -> list[int]:
    """Token ids; none where no form of ``/tokenize`` is known to the server."""
    forms = (
        {"model": model, "prompt": text, "add_special_tokens": False},  # vLLM, and this project
        {"content": text, "add_special": False},  # llama.cpp
    )
    for form in forms:
        response = client.post(endpoint.path("/tokenize"), json=form)
        try:
            tokens = response.json()["tokens"] if response.status_code == 200 else []
        except (ValueError, LookupError, TypeError) as error:
            raise EndpointError(f"{response.url}: no tokens in its answer ({error})") from error
        if tokens:
            return [int(token) for token in tokens]
    return []
