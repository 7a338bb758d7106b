"""How much of a rewrite stands word for word in its source: a copy has all of it, a text about
something else nothing."""

from __future__ import annotations

import re

from selenite.agent.rephrasing.blocks import BlockKind, blocks_of

# A character of a script without spaces counts as a word.
_TOKEN = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_]+")
_RUN = 4  # words in a row
_LEAST_LENGTH = 4  # letters of a word that tells what a text is about; English "with" does not


def copied_share(source: str, rewrite: str) -> float:
    """The share of the rewrite's runs of four words that the source has, too."""
    theirs, ours = _runs(_tokens(source)), _runs(_tokens(rewrite))
    return len(ours & theirs) / len(ours) if ours else 0.0


def shared_topic(source: str, rewrite: str) -> float:
    """The share of the source's longer words that the rewrite has in some form."""
    ours = {_stem(token) for token in _TOKEN.findall(rewrite.casefold())}
    theirs = {_stem(token) for token in _tokens(source) if _tells(token)}
    return len(ours & theirs) / len(theirs) if theirs else 1.0


def _tokens(text: str) -> list[str]:
    """Words outside of what nobody rewrites."""
    blocks = (block.text for block in blocks_of(text) if block.kind is not BlockKind.VERBATIM)
    return _TOKEN.findall("".join(blocks).casefold())


def _runs(tokens: list[str]) -> set[tuple[str, ...]]:
    length = min(_RUN, len(tokens))
    return {tuple(tokens[i : i + length]) for i in range(len(tokens) - length + 1)} - {()}


def _tells(token: str) -> bool:
    return len(token) >= _LEAST_LENGTH or not token.isascii()


def _stem(token: str) -> str:
    """Its beginning: forms of a word mostly share it."""
    return token[:5]
