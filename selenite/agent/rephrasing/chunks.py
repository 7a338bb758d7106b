"""A document cut at its natural borders into pieces that a model rewrites in one go (K2, fig. 4).

Chunks, joined, are the document. A block of code is never cut, nor is a word; a heading stays
with what follows it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from selenite.agent.rephrasing.blocks import LIST_MARK, Block, BlockKind, blocks_of, lines_of
from selenite.agent.rephrasing.sentences import sentences_of

_WORD = re.compile(r"\s*\S+\s*|\s+")
_ITEM = r"(?:[-*+•#>]|\d{1,3}[.)]) "
_LABELLED = r"[A-Z][a-z]*: .*\n[A-Z][a-z]*: "  # two lines that say who speaks
_STANDS_ALONE = re.compile(f"{_ITEM}|{_LABELLED}")


@dataclass(frozen=True)
class Chunk:
    """A piece of a document."""

    text: str
    is_verbatim: bool  # nothing in it can be rewritten

    @property
    def joint(self) -> str:
        """The space between this chunk and the next."""
        return self.text[len(self.text.rstrip()) :]


def chunks_of(text: str, most_chars: int) -> list[Chunk]:
    """The chunks of a document, each of at most ``most_chars`` characters, or about.

    Longer are only a block of code, a word, and what stands below a heading.
    """
    chunks: list[Chunk] = []
    held: list[Block] = []
    length = 0  # of what is held

    def flush(blocks: Sequence[Block]) -> None:
        if blocks:
            is_verbatim = not any(b.kind in (BlockKind.PROSE, BlockKind.LIST) for b in blocks)
            chunks.append(Chunk("".join(block.text for block in blocks), is_verbatim))

    for piece in _pieces(blocks_of(text), most_chars):
        is_large = piece.kind is BlockKind.VERBATIM and len(piece.text) > most_chars // 2
        if is_large or length + len(piece.text) > most_chars:
            first = _first_heading(held, most_chars // 2)
            flush(held[:first])
            held = held[first:]
            length = sum(len(block.text) for block in held)
        held.append(piece)
        length += len(piece.text)
        if is_large:
            flush(held)
            held, length = [], 0
    flush(held)
    return chunks


def _first_heading(blocks: Sequence[Block], most_chars: int) -> int:
    """Where the headings at the end begin, as far as they are of bounded length."""
    place, length = len(blocks), 0
    while place and blocks[place - 1].kind is BlockKind.HEADING and length < most_chars:
        place -= 1
        length += len(blocks[place].text)
    return place


def join(parts: Sequence[tuple[Chunk, str]]) -> str:
    """The text of chunks and what each became, with the spaces that were between the chunks.

    Lists, dialogues and the like get a blank line where a sentence went on.
    """
    text = ""
    for place, (_, written) in enumerate(parts):
        if place:
            joint = parts[place - 1][0].joint
            stand_alone = any(_STANDS_ALONE.match(part) for part in (parts[place - 1][1], written))
            text += "\n\n" if stand_alone and "\n" not in joint else joint
        text += written.rstrip()
    return text + (parts[-1][0].joint if parts else "")


def _pieces(blocks: Sequence[Block], most_chars: int) -> Iterator[Block]:
    """Blocks, with those that are too long in parts: items, sentences, and at last words."""
    for block in blocks:
        if len(block.text) <= most_chars or block.kind is BlockKind.VERBATIM:
            yield block
            continue
        parts = items_of(block.text) if block.kind is BlockKind.LIST else [block.text]
        for part in parts:
            for sentence in [part] if len(part) <= most_chars else sentences_of(part):
                yield from (Block(block.kind, text) for text in _cut(sentence, most_chars))


def items_of(text: str) -> list[str]:
    """The items of a list, each with the lines that continue it."""
    items: list[str] = []
    for line in lines_of(text):
        if items and not LIST_MARK.match(line):
            items[-1] += line
        else:
            items.append(line)
    return items


def _cut(sentence: str, most_chars: int) -> Iterator[str]:
    if len(sentence) <= most_chars:
        yield sentence
        return
    held = ""
    for word in _WORD.findall(sentence):
        if held and len(held) + len(word) > most_chars:
            yield held
            held = ""
        held += word
    yield held
