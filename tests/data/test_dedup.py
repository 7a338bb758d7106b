"""Near-duplicate removal against brute force over all shingles, and its edge cases."""

from __future__ import annotations

import random
import sys

import pytest

from selenite.data.dedup import DedupConfig, deduplicate, jaccard, shingles
from selenite.data.documents import Document
from selenite.errors import MissingExtraError


def _document(text: str, number: int) -> Document:
    return Document(text, "test", "package", f"{number}.txt")


def _words(generator: random.Random, count: int) -> list[str]:
    return [f"{generator.randrange(10**6):06d}" for _ in range(count)]


def _true_jaccard(left: str, right: str) -> float:
    windows = []
    for text in (left, right):
        text = " ".join(text.split())
        windows.append({text[i : i + 32] for i in range(len(text) - 31)})
    return len(windows[0] & windows[1]) / len(windows[0] | windows[1])


def test_similarity_is_that_of_all_windows():
    generator = random.Random(0)
    words = _words(generator, 2000)
    for changed in (0, 5, 20, 80, 400):
        other = list(words)
        for place in generator.sample(range(len(words)), changed):
            other[place] = "changed"
        left, right = " ".join(words), " ".join(other)
        estimate = jaccard(shingles(left), shingles(right))
        # About 1750 sampled of 14000 windows, which overlap in runs of 38 or more around a
        # change: the standard deviation is below sqrt(0.25 / 1750) * sqrt(38 / 8) = 0.026.
        assert estimate == pytest.approx(_true_jaccard(left, right), abs=4 * 0.026)


def test_copies_go_and_the_first_stays():
    generator = random.Random(1)
    originals = [_words(generator, 300) for _ in range(40)]
    texts = [" ".join(words) for words in originals]
    edited = [" ".join([*words[:150], "a few words", *words[150:]]) for words in originals[:10]]
    rewrapped = ["\n\t".join(words) for words in originals[10:15]]
    unlike = [" ".join([*words[:100], *_words(generator, 200)]) for words in originals[15:25]]
    documents = [
        _document(text, number)
        for number, text in enumerate([*texts, *edited, *rewrapped, *unlike])
    ]
    kept, report = deduplicate(documents, DedupConfig())
    assert [document.text for document in kept] == [*texts, *unlike]
    assert (report.documents, report.exact, report.near, report.kept) == (65, 5, 10, 50)


def test_short_texts_are_compared_exactly_only():
    documents = [_document(text, n) for n, text in enumerate(["a b", "a  b", "a c", "", "\n"])]
    kept, report = deduplicate(documents, DedupConfig())
    assert [document.text for document in kept] == ["a b", "a c", ""]
    assert (report.exact, report.near) == (2, 0)


def test_a_threshold_of_one_needs_no_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasketch", None)
    documents = [_document("same", 0), _document("same", 1)]
    kept, report = deduplicate(documents, DedupConfig(threshold=1))
    assert (len(kept), report.exact, report.near) == (1, 1, 0)
    with pytest.raises(MissingExtraError, match=r"datasketch.*selenite\[train\]"):
        deduplicate(documents, DedupConfig())
