"""Documents in pieces: nothing is lost, code is whole, borders are natural."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from selenite.agent.rephrasing.blocks import BlockKind, blocks_of, prose_share, title_of
from selenite.agent.rephrasing.chunks import chunks_of, join
from selenite.agent.rephrasing.sentences import sentences_of
from tests.agent.rephrasing.texts import CODE, article

_BLOCKS = (
    "# T\n",
    "- a\n",
    "1. b\n",
    "```\n",
    "~~~\n",
    "    x = 1\n",
    "| a |\n",
    "---\n",
    "<!--",
    "-->",
)
_WORDS = (
    "Mr. Smith went. He came. ",
    "A\r\n",
    "好。你好。",
    "word " * 40,
    "\u2028",
    "\t",
    " ",
    "\n",
    "\n\n",
)
PIECES = st.sampled_from([*_BLOCKS, *_WORDS])
TEXTS = st.one_of(st.text(max_size=400), st.lists(PIECES, max_size=40).map("".join))


@given(TEXTS)
@example(article(1))
@example("```\nopen")
@example("\n\n  \n")
def test_blocks_and_sentences_are_the_text(text: str) -> None:
    blocks = blocks_of(text)
    assert "".join(block.text for block in blocks) == text
    assert "".join(sentences_of(text)) == text
    for block in blocks:
        assert block.text
        assert "".join(sentences_of(block.text)) == block.text


@given(TEXTS, st.integers(20, 300))
@example(article(2), 200)
def test_chunks_are_the_text_and_of_bounded_length(text: str, most: int) -> None:
    chunks = chunks_of(text, most)
    assert "".join(chunk.text for chunk in chunks) == text
    assert all(chunk.text for chunk in chunks)
    for chunk in chunks:
        blocks = blocks_of(chunk.text)
        is_prose = {block.kind for block in blocks} <= {BlockKind.PROSE}
        longest = max(map(len, chunk.text.split()), default=0)
        if is_prose and longest < most // 2 and "  " not in chunk.text and "\n\n" not in chunk.text:
            assert len(chunk.text) <= most + longest


@given(st.integers(0, 50), st.integers(100, 2000))
def test_chunks_that_stay_are_joined_to_the_document(number: int, most: int) -> None:
    text = article(number)
    chunks = chunks_of(text, most)
    rejoined = join([(chunk, chunk.text) for chunk in chunks])
    assert rejoined.split() == text.split()
    if most >= 400:  # no item of the list is alone
        assert rejoined == text


def test_code_is_kept_whole_and_apart_where_it_is_long() -> None:
    fence = "```python\n" + "x = 1\n\n" * 100 + "```\n"
    text = f"Some words here.\n\n{fence}\nMore words here.\n"
    chunks = chunks_of(text, 200)
    assert [chunk.is_verbatim for chunk in chunks] == [False, True, False]
    assert chunks[1].text.strip() == fence.strip()
    (whole,) = chunks_of(text, 2000)
    assert not whole.is_verbatim


def test_a_heading_stays_with_what_follows() -> None:
    text = "word " * 38 + "\n\n# Title\n\n" + "other " * 30 + "\n"
    first, second = chunks_of(text, 200)
    assert "Title" not in first.text
    assert second.text.startswith("# Title")


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("Title\n=====\ntext\n", ["heading", "prose"]),
        ("Intro:\n- a\n- b\n  more\n\nEnd.\n", ["prose", "list", "prose"]),
        ("Text.\n\n    code\n\n    more\n\nText.\n", ["prose", "verbatim", "prose"]),
        ("- a\n\n  words of a\n", ["list", "prose"]),
        ("| a | b |\n|---|---|\n| 1 | 2 |\n", ["verbatim"]),
        (">>> 1 + 1\n2\n", ["verbatim"]),
        ("[![badge](x)](y)\n![b](z)\n", ["verbatim"]),
        ("A [link](x)\n[other](y)\nis here.\n", ["prose"]),
        ("<!-- a\n\nb -->\nText.\n", ["verbatim", "prose"]),
        ("~~~\n```\n~~~\nText.\n", ["verbatim", "prose"]),
    ],
)
def test_kinds_of_blocks(text: str, kinds: list[str]) -> None:
    assert [block.kind.value for block in blocks_of(text)] == kinds


def test_prose_share() -> None:
    assert prose_share("Plain words. And more of them.\n") == 1
    assert prose_share(CODE) < 0.1
    assert 0.5 < prose_share(article(3)) < 1


def test_titles() -> None:
    assert title_of("## The end ##\n\n") == "The end"
    assert title_of("The end\n-------\n") == "The end"


def test_sentences() -> None:
    text = 'Dr. A. Smith paid $3.50, i.e. little. Did he? Yes! "Fine." It was No. 5 of U.S. make.'
    assert [sentence.strip() for sentence in sentences_of(text)] == [
        "Dr. A. Smith paid $3.50, i.e. little.",
        "Did he?",
        "Yes!",
        '"Fine."',
        "It was No. 5 of U.S. make.",
    ]
    assert sentences_of("犬がいる。猫もいる。") == ["犬がいる。", "猫もいる。"]
