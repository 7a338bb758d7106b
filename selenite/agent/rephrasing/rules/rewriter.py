"""A passage by rules: block by block, with everything in it that states a fact."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence

from selenite.agent.randomness import stream
from selenite.agent.rephrasing.blocks import LIST_MARK, Block, BlockKind, blocks_of, title_of
from selenite.agent.rephrasing.chunks import items_of
from selenite.agent.rephrasing.fidelity import Fault
from selenite.agent.rephrasing.language import language_of
from selenite.agent.rephrasing.passage import Attempt, Passage
from selenite.agent.rephrasing.rules.clauses import recast
from selenite.agent.rephrasing.rules.forms import Section, render, voices
from selenite.agent.rephrasing.rules.masks import Masks
from selenite.agent.rephrasing.rules.phrases import rephrased
from selenite.agent.rephrasing.rules.wording import reworded
from selenite.agent.rephrasing.sentences import sentences_of

NOT_ENGLISH = "not_english"
_SHARE = 0.7  # of the changes that are possible; a second try makes all
_ORDERED = re.compile(r"\s*\d")
_SEQUENCE = re.compile(
    r"\b(?:first|second|third|then|next|after|before|finally|last|above|below|former|latter|following"
    r"|previous|also|this|these|it|otherwise)\b",
    re.IGNORECASE,
)


class Rules:
    """The back end without a model. The same passage and number of tries give the same text."""

    name = "rules"

    def rewrite(self, passage: Passage, earlier: Sequence[Attempt]) -> str | Fault:
        """The passage in its style's form; a fault for what is not English."""
        if (language_of(passage.text) or passage.original.language) != "en":
            return Fault(NOT_ENGLISH, "the rules know English only", is_final=True)
        rng = stream(passage.seed, "rules", *passage.path, len(earlier))
        share = 1.0 if earlier else _SHARE
        masks = Masks()
        parts = _Parts(passage, rng, share, masks)
        blocks = [part for block in blocks_of(passage.text) for part in parts.of(block)]
        if not passage.written and rng.random() < _SHARE:
            blocks.insert(_behind_headings(passage.text), rng.choice(passage.perspective.openings))
        return "\n\n".join(blocks)


class _Parts:
    """What the blocks of one passage become."""

    def __init__(self, passage: Passage, rng: random.Random, share: float, masks: Masks) -> None:
        self._passage = passage
        self._rng = rng
        self._share = share
        self._masks = masks
        self._heading = passage.heading
        self._small = passage.original.small_words
        who = stream(passage.seed, "voices", *passage.path[:2])
        self._speakers = voices(passage.style.form, who)

    def of(self, block: Block) -> Iterator[str]:
        """The texts that stand in a block's place."""
        match block.kind:
            case BlockKind.VERBATIM:
                yield block.text.strip("\n").rstrip()
            case BlockKind.HEADING:
                self._heading = title_of(block.text)
                yield block.text.strip()
            case BlockKind.LIST:
                yield self._list(block.text)
            case BlockKind.PROSE:
                yield self._paragraph(block.text)

    def _paragraph(self, text: str) -> str:
        form, length = self._passage.style.form, self._passage.perspective.sentences
        flat = " ".join(self._masks.hide(text).split())
        sentences = [sentence.strip() for sentence in sentences_of(flat)]
        sentences = recast(sentences, self._small, length, self._rng, self._share)
        sentences = [self._reworded(sentence) for sentence in sentences]
        section = Section(self._heading, self._speakers, self._small)
        return self._masks.show(render(form, sentences, section, self._rng))

    def _list(self, text: str) -> str:
        """Items in words of our own; in another order where their order says nothing."""
        lead = text[: len(text) - len(text.lstrip("\n"))]
        items = items_of(text[len(lead) :].rstrip())
        marks = [LIST_MARK.match(item) for item in items]
        first = marks[0][0] if marks[0] else None
        is_flat = all(mark is not None and mark[0] == first for mark in marks)
        is_free = is_flat and not any(
            _ORDERED.match(item) or _SEQUENCE.search(item) or "\n" in item.strip() for item in items
        )
        items = [self._item(item) for item in items]
        if is_free:
            self._rng.shuffle(items)
        return "\n".join(items)

    def _item(self, item: str) -> str:
        mark = LIST_MARK.match(item)
        start = mark[0] if mark else ""
        lines = self._masks.hide(item[len(start) :]).rstrip().split("\n")
        body = "\n".join(self._reworded(line) for line in lines)
        return start + self._masks.show(body)

    def _reworded(self, text: str) -> str:
        text = rephrased(text, self._rng, self._share)
        return reworded(text, self._passage.perspective.tone, self._rng, self._share)


def _behind_headings(text: str) -> int:
    """The first place that is no heading's."""
    kinds = [block.kind for block in blocks_of(text)]
    return next((n for n, kind in enumerate(kinds) if kind is not BlockKind.HEADING), len(kinds))
