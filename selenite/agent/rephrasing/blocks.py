"""The blocks of a document: headings, paragraphs, lists, and what is kept as it is.

Code, tables, prompts and markup are verbatim: nobody rewrites them. Blocks together are the
document, byte for byte. Read by ``chunks.py``, by the rules and by the fidelity check.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from itertools import groupby


class BlockKind(StrEnum):
    """What a block is."""

    PROSE = "prose"
    HEADING = "heading"
    LIST = "list"
    VERBATIM = "verbatim"


@dataclass(frozen=True)
class Block:
    """Some lines of a document, with the blank lines that follow (or lead, in the first)."""

    kind: BlockKind
    text: str


_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_FENCE = re.compile(r"\s{0,3}(`{3,}|~{3,})")
_HEADING = re.compile(r"\s{0,3}#{1,6}\s")
_UNDERLINE = re.compile(r"\s{0,3}(=+|-+|~+|\^+|\*+|\"+)\s*$")
LIST_MARK = re.compile(r"[ \t]*(?:[-*+•]|\d{1,3}[.)])[ \t]+(?=\S)")
_INDENT = re.compile(r" {4}|\t")
# A line of a table, a prompt, a field; a line of nothing but links.
_MARKUP = re.compile(r"\s*(\||\+-|>>>|\.\. |\$ |:\w+:\s|---)")
_LINK = re.compile(r"\s*(\[?!?\[[^\]]*\]\([^)]*\)(\]\([^)]*\))?\s*)+$")
_OPENS_CODE = re.compile(r"\s{0,3}(?:<[/!?a-zA-Z]|>>> |\$ )")
_CODE_LINE = re.compile(
    r"\s*(@\w|#!|//|/\*|(def|class|import|from|return|if|elif|for|while|with|try|except|else)\b"
    r".*(:|\bimport\b.*|\))$|.*[{};]$|[\w.\[\]'\"]+ [-+*/|]?= .)"
)
_SYMBOL = re.compile(r"[{}\[\]()<>=_;/\\|&^%$#@~+]")
_MOST_SYMBOLS = 0.1  # of the characters of prose


@lru_cache(maxsize=64)  # the checks of one passage each ask for them
def blocks_of(text: str) -> tuple[Block, ...]:
    """The blocks of a text in order; their texts, joined, are the text."""
    merged: list[Block] = []
    for block in _raw(lines_of(text)):
        if merged and merged[-1].kind is block.kind is BlockKind.VERBATIM:
            merged[-1] = Block(block.kind, merged[-1].text + block.text)
        else:
            merged.append(block)
    return tuple(merged)


def lines_of(text: str) -> list[str]:
    """The lines of a text with their ends; only a line feed ends one."""
    return _LINE.findall(text)


def title_of(heading: str) -> str:
    """The words of a heading."""
    return heading.strip().split("\n")[0].strip().strip("#").strip()


def prose_share(text: str) -> float:
    """How much of a text is paragraphs and lists, by characters."""
    counted = dict.fromkeys(BlockKind, 0)
    for block in blocks_of(text):
        counted[block.kind] += len(block.text.strip())
    prose = counted[BlockKind.PROSE] + counted[BlockKind.LIST]
    return prose / max(1, sum(counted.values()))


def _raw(lines: list[str]) -> Iterator[Block]:
    place, lead, previous = 0, "", BlockKind.PROSE
    while place < len(lines):
        begin = place
        while place < len(lines) and not lines[place].strip():
            place += 1
        lead = "".join(lines[begin:place])  # only before the first block
        if place == len(lines):
            yield Block(BlockKind.PROSE, lead)
            return
        end = _fence_end(lines, place) or _paragraph_end(lines, place)
        found = list(_classified(lines[place:end], previous))
        while end < len(lines) and not lines[end].strip():
            found[-1] = Block(found[-1].kind, found[-1].text + lines[end])
            end += 1
        found[0] = Block(found[0].kind, lead + found[0].text)
        yield from found
        previous, place = found[-1].kind, end


def _fence_end(lines: list[str], place: int) -> int:
    """Behind the fence or comment that opens here; 0: none does. One left open goes to the end."""
    if lines[place].lstrip().startswith("<!--"):
        ends = (n + 1 for n in range(place, len(lines)) if "-->" in lines[n])
        return next(ends, len(lines))
    fence = _FENCE.match(lines[place])
    if fence is None:
        return 0
    mark = fence[1]
    for end in range(place + 1, len(lines)):
        line = lines[end].strip()
        if line.startswith(mark) and not line.strip(mark[0]):
            return end + 1
    return len(lines)


def _paragraph_end(lines: list[str], place: int) -> int:
    end = place + 1
    while end < len(lines) and lines[end].strip() and not _FENCE.match(lines[end]):
        end += 1
    return end


def _classified(lines: list[str], previous: BlockKind) -> Iterator[Block]:
    """The blocks of a paragraph: a heading or a list may stand in it without a blank line."""
    if _fence_end(lines, 0) or _is_code(lines, previous):
        yield Block(BlockKind.VERBATIM, "".join(lines))
        return
    for kind, group in groupby(_kinds(lines), key=lambda pair: pair[0]):
        texts = [line for _, line in group]
        if kind is BlockKind.HEADING:  # an underlined one is one item already
            yield from (Block(kind, text) for text in texts)
        else:
            yield Block(kind, "".join(texts))


def _kinds(lines: list[str]) -> Iterator[tuple[BlockKind, str]]:
    place, kind = 0, BlockKind.PROSE
    while place < len(lines):
        line = lines[place]
        below = lines[place + 1] if place + 1 < len(lines) else ""
        if _HEADING.match(line):
            kind = BlockKind.PROSE
            yield BlockKind.HEADING, line
        elif len(below.strip()) >= 3 and _UNDERLINE.match(below) and not LIST_MARK.match(line):
            kind = BlockKind.PROSE
            yield BlockKind.HEADING, line + below
            place += 1
        else:
            kind = _line_kind(line, kind)
            yield kind, line
        place += 1


def _line_kind(line: str, previous: BlockKind) -> BlockKind:
    """Of a line within a paragraph: what continues a list is of it."""
    if _MARKUP.match(line):
        return BlockKind.VERBATIM
    if LIST_MARK.match(line):
        return BlockKind.LIST
    return BlockKind.LIST if previous is BlockKind.LIST else BlockKind.PROSE


def _is_code(lines: list[str], previous: BlockKind) -> bool:
    if all(_INDENT.match(line) for line in lines) and previous is not BlockKind.LIST:
        return True
    if _OPENS_CODE.match(lines[0]) or all(_LINK.match(line) for line in lines):
        return True
    if LIST_MARK.match(lines[0]) or _HEADING.match(lines[0]):
        return False
    if _share(bool(_CODE_LINE.match(line.rstrip())) for line in lines) >= 0.5:
        return True
    words = "".join(line for line in lines if not _UNDERLINE.match(line))
    text = re.sub(r"`[^`]*`|https?://\S+|\]\([^)]*\)", "", words)
    return len(_SYMBOL.findall(text)) > _MOST_SYMBOLS * len(text)


def _share(found: Iterable[bool]) -> float:
    values = list(found)
    return sum(values) / len(values)
