"""The back end without a model: other words, the same facts, the same text for the same seed."""

from __future__ import annotations

import random
import re

import pytest

from selenite.agent.rephrasing.blocks import BlockKind, blocks_of
from selenite.agent.rephrasing.chunks import chunks_of
from selenite.agent.rephrasing.fidelity import Defect, Fault, FidelityConfig, faults_of
from selenite.agent.rephrasing.original import Original
from selenite.agent.rephrasing.overlap import copied_share
from selenite.agent.rephrasing.passage import Attempt, Passage
from selenite.agent.rephrasing.rules import clauses
from selenite.agent.rephrasing.rules.masks import Masks
from selenite.agent.rephrasing.rules.phrases import rephrased
from selenite.agent.rephrasing.rules.rewriter import NOT_ENGLISH, Rules
from selenite.agent.rephrasing.rules.wording import reworded
from selenite.agent.rephrasing.styles import PERSPECTIVES, STYLES, Form, Tone, choose
from tests.agent.rephrasing.texts import GERMAN, article

SMALL = frozenset({"radium"})


def passage(number: int, round_number: int = 0, text: str = "") -> Passage:
    text = text or article(number)
    style, perspective = choose(5, number, round_number)
    path = (number, round_number, 0)
    return Passage(text.strip(), Original(text), "", "", style, perspective, 5, path)


def rewrite(one: Passage, earlier: tuple[Attempt, ...] = ()) -> str:
    written = Rules().rewrite(one, earlier)
    assert isinstance(written, str)
    return written


def test_the_facts_are_kept_in_every_style() -> None:
    seen = set()
    for number in range(20):
        one = passage(number)
        written = rewrite(one)
        seen.add(one.style.name)
        faults = faults_of(one.original, one.text, written, FidelityConfig())
        assert {fault.reason for fault in faults} <= {Defect.COPY}, (number, faults)
        verbatim = [b.text.strip() for b in blocks_of(one.text) if b.kind is BlockKind.VERBATIM]
        assert all(code in written for code in verbatim)
    assert len(seen) > 7


def test_it_is_no_copy_as_a_rule() -> None:
    shares = [copied_share(article(n), rewrite(passage(n))) for n in range(30)]
    assert sum(share > 0.9 for share in shares) <= 3
    assert sum(shares) / len(shares) < 0.8


def test_the_same_passage_gives_the_same_text_and_another_try_another() -> None:
    one = passage(1)
    assert rewrite(one) == rewrite(passage(1))
    assert rewrite(one) != rewrite(one, (Attempt("", ()),))
    assert rewrite(one) != rewrite(passage(1, 1))


def test_other_languages_are_left_to_others() -> None:
    fault = Rules().rewrite(passage(1, text=GERMAN), [])
    assert isinstance(fault, Fault)
    assert (fault.reason, fault.is_final) == (NOT_ENGLISH, True)


def test_styles_and_perspectives() -> None:
    assert len(STYLES) >= 8
    assert len(PERSPECTIVES) >= 6
    assert {style.form for style in STYLES} == set(Form)
    pairs = [choose(1, 7, n) for n in range(len(STYLES) * len(PERSPECTIVES))]
    assert len({(style.name, perspective.name) for style, perspective in pairs}) == len(pairs)
    assert len({style.name for style, _ in pairs[:10]}) == 10
    assert choose(1, 7, 0) == pairs[0]
    assert len({choose(1, document, 0)[0].name for document in range(60)}) == len(STYLES)


@pytest.mark.parametrize(
    ("rule", "sentence", "moved"),
    [
        (
            clauses.to_the_end,
            "If a key is lost, the door stays shut.",
            "The door stays shut if a key is lost.",
        ),
        (clauses.to_the_end, "If a key is lost, it stays shut.", None),
        (
            clauses.to_the_front,
            "The door stays shut because a key is lost.",
            "Because a key is lost, the door stays shut.",
        ),
        (clauses.to_the_front, "It did not close because of that alone.", None),
        (
            clauses.adverbial_last,
            "In 1931, the city built a bridge.",
            "The city built a bridge in 1931.",
        ),
        (clauses.adverbial_last, "In fact, the city built a bridge.", None),
        (
            clauses.active,
            "Radium was discovered by Marie Curie in 1898.",
            "Marie Curie discovered radium in 1898.",
        ),
        (clauses.active, "The rows were sorted by size.", None),
        (clauses.active, "The bridge was finished by January.", None),
        (clauses.active, "The bridge was built by Anna in May and sold.", None),
        (clauses.to_the_end, "If a key is lost, then the door stays shut.", None),
    ],
)
def test_clauses(rule: clauses.Rule, sentence: str, moved: str | None) -> None:
    assert rule(sentence, SMALL) == moved


@pytest.mark.parametrize(
    ("sentence", "inner"),
    [
        ("The door is shut.", "the door is shut."),
        ("It's shut.", "it's shut."),
        ("Radium glows.", "radium glows."),
        ("IT is hard.", None),
        ("I think.", None),
        ("A door.", "a door."),
        ("NASA flies.", None),
        ("May is warm.", None),
        ("Uppsala is far.", None),
    ],
)
def test_only_what_is_no_name_loses_its_capital(sentence: str, inner: str | None) -> None:
    assert clauses.small_start(sentence, frozenset({"radium", "nasa", "may", "i"})) == inner


def test_a_list_keeps_its_nesting_and_its_steps() -> None:
    words = "The dog is in the garden and that is not bad for it, as they were with him."
    for items in (
        "- a\n  - b\n  - c",
        "1. a\n2. b\n3. c",
        "- first a\n- then b",
        "  - a\n    b\n  - c",
    ):
        for number in range(8):
            assert items in rewrite(passage(number, text=f"{words}\n\n{items}\n"))
    orders = {rewrite(passage(n, text=f"{words}\n\n- a\n- b\n- c\n"))[-11:] for n in range(30)}
    assert len(orders) == 6


def test_sentences_are_split() -> None:
    assert clauses.split(
        "The bridge was closed in the winter, but the road is open to everybody."
    ) == [
        "The bridge was closed in the winter.",
        "However, the road is open to everybody.",
    ]
    for whole in (
        "They bought many apples in the garden, and the pears of the neighbours in the cellar.",
        "If you are using the old tool of the house, which is very slow these days.",
    ):
        assert clauses.split(whole) == [whole]
    assert clauses.split("They bought apples, pears and plums.") == [
        "They bought apples, pears and plums."
    ]


def test_phrases() -> None:
    rng = random.Random(1)
    assert rephrased("The size of the file is known.", rng, 1.0) == "The file's size is known."
    assert rephrased("The size of the file system is known.", rng, 1.0).startswith("The size of")
    assert (
        rephrased("We want files that are stored in it.", rng, 1.0) == "We want files stored in it."
    )
    assert rephrased("Note that is stored in it.", rng, 1.0) == "Note that is stored in it."
    names = {
        rephrased("It runs on Linux, macOS and Windows.", random.Random(n), 1.0) for n in range(20)
    }
    assert len(names) == 6
    assert len({tuple(sorted(re.findall(r"\w+", name))) for name in names}) == 1
    first = {
        rephrased("He had red cars, bikes and boats.", random.Random(n), 1.0) for n in range(20)
    }
    assert all("red cars" in text for text in first)


def test_words() -> None:
    def plain(text: str) -> str:
        return reworded(text, Tone.PLAIN, random.Random(0), 1.0)

    assert plain("He is not here.") == "He isn't here."
    assert plain("So it is.") == "So it is."
    assert plain("An additional file") in ("A further file", "An extra file")
    assert plain("NUMEROUS files") == "NUMEROUS files"
    assert reworded("You can't", Tone.FORMAL, random.Random(0), 1.0) == "You can't"
    assert reworded("We can't go", Tone.FORMAL, random.Random(0), 1.0) == "We cannot go"


@pytest.mark.parametrize(
    "piece",
    [
        "1,000,",
        "1.2",
        "a",
        "A.",
        "...",
        '"a',
        "“",
        "`",
        "# \n",
        "May ",
        "If a, ",
        "a@",
        "[a](",
        "- a\n",
    ],
)
def test_odd_texts_are_no_trouble(piece: str) -> None:
    """Each was slow once, with the square of its length, or worse."""
    words = "The dog is in the garden and that is not bad for it, as they were with him. "
    one = passage(1, text=f"{words * 60}\n\n{piece * (4000 // len(piece))}\n\n{words}")
    chunks = chunks_of(one.original.text, 1024)
    assert "".join(chunk.text for chunk in chunks) == one.original.text
    faults_of(one.original, one.text, rewrite(one), FidelityConfig())


@pytest.mark.parametrize(
    "text",
    [
        'He said "it is not so" and `x is not y`.',
        "See [it is not](https://a.org/it-is) and https://a.org/is?x=is not.",
        "A ``role is`` over\ntwo `lines is\nhere`.",
        "A sign \U000f0005 of nobody's.",
    ],
)
def test_what_is_masked_comes_back(text: str) -> None:
    masks = Masks()
    hidden = masks.hide(text)
    assert "https" not in hidden
    assert "`" not in hidden
    assert masks.show(hidden).split() == text.split()
