"""lm-eval's checkers as we run them: against verdicts by hand, and as what they are: foreign."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from selenite.errors import DataError
from selenite.eval.ifeval.check import check
from selenite.eval.ifeval.prompts import Prompt

pytestmark = pytest.mark.usefixtures("checkers")

ENGLISH = "the weather in the mountains was good today and we walked for a long time"
GERMAN = "Das Wetter in den Bergen war heute gut, und wir sind lange gewandert."
CASES: list[tuple[str, dict[str, Any], str, bool]] = [
    ("punctuation:no_comma", {}, "No commas here.", True),
    ("punctuation:no_comma", {}, "Well, one.", False),
    ("length_constraints:number_words", {"relation": "at least", "num_words": 4}, "a b c d", True),
    ("length_constraints:number_words", {"relation": "at least", "num_words": 4}, "a b c", False),
    ("length_constraints:number_words", {"relation": "less than", "num_words": 3}, "a b", True),
    ("length_constraints:number_words", {"relation": "less than", "num_words": 3}, "a b c", False),
    (
        "length_constraints:number_sentences",
        {"relation": "at least", "num_sentences": 3},
        "Dr. Smith came at 5 p.m. yesterday. He left. Why?",
        True,
    ),
    (
        "length_constraints:number_sentences",
        {"relation": "less than", "num_sentences": 3},
        "Mr. Brown met Mrs. Green. They talked.",
        True,
    ),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "One.\n***\nTwo.", True),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "One.\n\nTwo.", False),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "then"},
        "First this.\n\nThen that.",
        True,
    ),
    ("detectable_format:title", {}, "<<A title>>\nText.", True),
    ("detectable_format:title", {}, "A title\nText.", False),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* one\n* two", True),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* one\n* two\n* three", False),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*a* and *b*", True),
    ("detectable_format:json_format", {}, '```json\n{"a": [1]}\n```', True),
    ("detectable_format:json_format", {}, "{'a': 1}", False),
    ("detectable_format:constrained_response", {}, "My answer is maybe.", True),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Section", "num_sections": 2},
        "Section 1\na\nSection 2\nb",
        True,
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name], [street]", True),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name]", False),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye.\nP.S. More.", True),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye.", False),
    ("keywords:existence", {"keywords": ["fox", "den"]}, "A Fox and its den.", True),
    ("keywords:existence", {"keywords": ["fox", "den"]}, "A fox.", False),
    ("keywords:forbidden_words", {"forbidden_words": ["fox"]}, "A foxglove.", True),
    ("keywords:forbidden_words", {"forbidden_words": ["fox"]}, "A fox.", False),
    (
        "keywords:frequency",
        {"keyword": "fox", "frequency": 2, "relation": "at least"},
        "Fox, fox.",
        True,
    ),
    (
        "keywords:letter_frequency",
        {"letter": "z", "let_frequency": 2, "let_relation": "less than"},
        "A zoo in Zurich.",
        False,
    ),
    ("change_case:english_lowercase", {}, ENGLISH, True),
    ("change_case:english_lowercase", {}, ENGLISH.capitalize(), False),
    ("change_case:english_capital", {}, ENGLISH.upper(), True),
    ("change_case:english_capital", {}, GERMAN.upper(), False),
    (
        "change_case:capital_word_frequency",
        {"capital_relation": "at least", "capital_frequency": 2},
        "This is VERY GOOD.",
        True,
    ),
    (
        "change_case:capital_word_frequency",
        {"capital_relation": "less than", "capital_frequency": 2},
        "This is VERY GOOD.",
        False,
    ),
    ("language:response_language", {"language": "de"}, GERMAN, True),
    ("language:response_language", {"language": "de"}, ENGLISH, False),
    ("startend:quotation", {}, '"All of it."', True),
    ("startend:quotation", {}, '"All" of it.', False),
    ("startend:end_checker", {"end_phrase": "The end."}, "So it goes. the end.", True),
    ("startend:end_checker", {"end_phrase": "The end."}, "The end. Or not.", False),
    ("combination:two_responses", {}, "One.\n******\nTwo.", True),
    ("combination:two_responses", {}, "One.\n******\nOne.", False),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it."}, "Say it. It.", True),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it."}, "It. Say it.", False),
]


def prompt(key: str, *instructions: tuple[str, dict[str, Any]]) -> Prompt:
    names, arguments = zip(*instructions, strict=True)
    return Prompt(key, "Do as I say.", names, arguments)


def test_every_kind_of_instruction_as_a_person_reads_it(prompts: list[Prompt]) -> None:
    asked = [prompt(str(n), (name, own)) for n, (name, own, _, _) in enumerate(CASES)]
    found = check(asked, {str(n): reply for n, (_, _, reply, _) in enumerate(CASES)})
    expected = {str(n): (is_followed,) for n, (*_, is_followed) in enumerate(CASES)}
    assert {key: each.strict for key, each in found.items()} == expected
    assert {name for name, *_ in CASES} == {n for p in prompts for n in p.instructions}


def test_loose_is_without_a_first_or_last_line_or_asterisks() -> None:
    comma, quoted = ("punctuation:no_comma", {}), ("startend:quotation", {})
    replies = {
        "first": 'Sure, here it is:\n"All of it."',
        "last": '"All of it."\nI hope, it helps.',
        "both": 'Sure, here:\n"All of it."\nHere, you are.',
        "bold": '**"All of it."**',
        "none": '"All, of it."',
    }
    found = check([prompt(key, comma, quoted) for key in replies], replies)
    strict = {key: each.strict for key, each in found.items()}
    loose = {key: each.loose for key, each in found.items()}
    assert strict == {
        "first": (False, False), "last": (False, False), "both": (False, False),
        "bold": (True, False), "none": (False, True),
    }  # fmt: skip
    assert loose == {key: (key != "none", True) for key in replies}


def test_the_same_replies_have_the_same_verdicts_in_any_order(prompts: list[Prompt]) -> None:
    """Languages are told by drawing: from a seed, at each reply anew."""
    asked = [p for p in prompts if any("language" in n or "case" in n for n in p.instructions)][:40]
    words = f"{ENGLISH} {GERMAN} det er godt vejr".split()
    rng = random.Random(3)
    replies = {p.id: " ".join(rng.sample(words, 7)).lower() for p in asked}
    first = check(asked, replies)
    assert len({each.strict for each in first.values()}) > 1
    assert check(asked[::-1], replies) == first
    assert check(asked[5:6], replies) == {asked[5].id: first[asked[5].id]}


def test_a_reply_is_judged_and_not_run(tmp_path: Path) -> None:
    target = tmp_path / "owned"
    attacks = [
        f"open({str(target)!r}, 'w')",
        f"import os; os.system('touch {target}')",
        "exit(0)",
        "raise SystemExit",
        "{'a': __import__('os')._exit(1)}",
    ]
    asked = [prompt(str(n), ("detectable_format:json_format", {})) for n in range(len(attacks))]
    found = check(asked, {str(n): attack for n, attack in enumerate(attacks)})
    assert [each.strict for each in found.values()] == [(False,)] * len(attacks)
    assert not target.exists()


@pytest.mark.parametrize(
    ("instruction", "arguments"),
    [
        ("length_constraints:number_rhymes", {}),
        ("length_constraints:number_words", {"relation": "about", "num_words": 3}),
        ("punctuation:no_comma", {"unheard_of": 1}),
    ],
)
def test_a_checker_that_fails_gives_no_score(instruction: str, arguments: dict[str, Any]) -> None:
    asked = [prompt("7", ("startend:quotation", {})), prompt("8", (instruction, arguments))]
    with pytest.raises(DataError, match=r"(?s)ended with 1 at the reply to prompt 8: .*Error"):
        check(asked, {"7": "A reply.", "8": "A reply."})


def test_prompts_without_a_reply_are_left_out() -> None:
    asked = [prompt(key, ("startend:quotation", {})) for key in "abc"]
    assert check(asked, {"b": ""}).keys() == {"b"}
    assert check(asked, {}) == {}
