"""Facts in their forms: the same value, however it is written."""

from __future__ import annotations

import pytest

from selenite.agent.rephrasing.facts import Evidence, FactKind, facts_of
from selenite.agent.rephrasing.language import language_of, same_language
from selenite.agent.rephrasing.names import names_in
from selenite.agent.rephrasing.numerals import dates_in, numbers_in
from tests.agent.rephrasing.texts import CODE, GERMAN, article


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("1,000 and 2.50 and .5", {"1000", "2.5", "0.5"}),
        ("-5 degrees, but 10-20 of them, and −7", {"-5", "10", "20", "-7"}),
        ("5kg, 3B, the 21st, the 1990s, 50%", {"5", "3", "21", "1990", "50"}),
        ("version 3.11.2 at 14:30", {"3.11.2", "14:30"}),
        ("H200 and v2 and x86", set()),
        ("01/05/2024", {"1/5/2024"}),
        ("$1,234.50", {"1234.5"}),
    ],
)
def test_numbers(text: str, numbers: set[str]) -> None:
    assert numbers_in(text) == numbers


@pytest.mark.parametrize(
    ("text", "dates"),
    [
        ("on 1 May 2024", {"2024-05-01"}),
        ("May 1st, 2024", {"2024-05-01"}),
        ("2024-05-01", {"2024-05-01"}),
        ("the 1st of May", {"--05-01"}),
        ("in Sept. 2020", {"2020-09"}),
        ("They may 5 times march 3 miles", set()),
    ],
)
def test_dates(text: str, dates: set[str]) -> None:
    assert dates_in(text)[0] == dates


def test_names() -> None:
    text = (
        "# Big Title Words\n\nYesterday Anna met the Great Council of Rome. NASA's new PyTorch and "
        'H200 were there. "They came," said O\'Brien. - The end.\n\n- Items begin with capitals'
    )
    assert names_in(text) == {
        "Anna",
        "Great",
        "Council",
        "Rome",
        "NASA",
        "PyTorch",
        "H200",
        "O'Brien",
    }
    assert names_in(
        "Der Hund von Frau Angela Merkel ist im Garten, und das ist nicht der Hof."
    ) == {
        "Angela",
        "Merkel",
    }


def test_code_and_quotes() -> None:
    facts = facts_of(
        'Call `f(x)` or run_all() at https://a.org/x?y=1. He said "go now" and “stop”.\n\n'
        "```\na = 1\n\nb = 2\n```\n\n    c = 3\n"
    )
    code = {"f(x)", "run_all()", "https://a.org/x?y=1", "a = 1", "b = 2", "    c = 3"}
    assert facts[FactKind.CODE] == code
    assert facts[FactKind.QUOTES] == {"go now", "stop"}


def test_a_text_is_evidence_of_its_own_facts() -> None:
    for text in (*map(article, range(20)), GERMAN, CODE):
        evidence = Evidence(text)
        for kind, facts in facts_of(text).items():
            for fact in facts:
                assert evidence.supports(kind, fact), (kind, fact)
    assert all(len(facts) for facts in facts_of(article(1)).values())


def test_evidence_takes_other_forms() -> None:
    evidence = Evidence(
        "On May 1, 2024 three men of Rome’s guard saw 1000 ships and Navier-Stokes."
    )
    for kind, fact in (
        (FactKind.DATES, "2024-05-01"),
        (FactKind.DATES, "2024-05"),
        (FactKind.DATES, "--05-01"),
        (FactKind.NUMBERS, "3"),
        (FactKind.NUMBERS, "1000"),
        (FactKind.NUMBERS, "2024"),
        (FactKind.NAMES, "Rome"),
        (FactKind.NAMES, "Stokes"),
    ):
        assert evidence.supports(kind, fact), fact
    assert not evidence.supports(FactKind.DATES, "2024-05-02")
    assert not evidence.supports(FactKind.NUMBERS, "4")
    assert not evidence.supports(FactKind.NAMES, "Paris")


def test_enumerators_are_no_facts() -> None:
    assert facts_of("1. One thing\n2. Another with 7\n")[FactKind.NUMBERS] == {"7"}


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (article(1), "en"),
        (GERMAN, "de"),
        ("Le chien est dans le jardin et il ne peut pas sortir avec les enfants.", "fr"),
        ("El perro está en el jardín y no puede salir con los niños por la lluvia.", "es"),
        ("Собака в саду, и это не так плохо, как он думал, но она хотела есть.", "ru"),
        ("犬は庭にいます。それは悪いことではありません。", "kana"),
        ("狗在花园里，这并不是一件坏事，因为它很高兴。", "han"),
        ("Quux frobnicate bar.", ""),
        ("12 34", ""),
    ],
)
def test_languages(text: str, language: str) -> None:
    assert language_of(text) == language


def test_only_what_is_decided_can_differ() -> None:
    assert not same_language(article(1), GERMAN)
    assert not same_language(article(1), "犬は庭にいます。それは悪いことではありません。")
    assert same_language(article(1), "Quux frobnicate bar.")
