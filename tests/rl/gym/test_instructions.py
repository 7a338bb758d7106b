"""Rules that code checks: a writer that tries can keep any combination, and nobody else earns."""

from __future__ import annotations

import json
import random
import re
import textwrap
from collections import Counter

import pytest

from selenite.rl.gym.audit import SPEAKERS, audit
from selenite.rl.gym.instructions import (
    KINDS,
    TOPICS,
    Instructions,
    Rule,
    Written,
    combination,
    is_about,
    without_claims,
)
from selenite.types import Message

NUMBERS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}


def compose(topic: str, rules: dict[str, Rule]) -> str:
    """A text that keeps the rules, put together from their words alone."""

    def asked(name: str) -> int:
        found = re.findall(r"\d+|\b(?:one|two|three|four|five|six)\b", rules[name].text)
        return 1 if not found else NUMBERS.get(found[0]) or int(found[0])

    def quoted(name: str) -> list[str]:
        return re.findall(r"“(.*?)”", rules[name].text)

    a, b = TOPICS[topic][:2]
    extra = []
    if "include" in rules:
        extra += quoted("include")
    if "frequency" in rules:
        extra += quoted("frequency") * asked("frequency")
    if "letter" in rules:
        extra += [quoted("letter")[0] * asked("letter")]
    if "number" in rules:
        extra += [str(asked("number"))]
    if "capitals" in rules:
        extra += ["AB", "CD", "EF", "GH"][: asked("capitals")]
    if "placeholders" in rules:
        extra += ["[name]"] * asked("placeholders")
    if "highlights" in rules:
        extra += ["*so*"] * asked("highlights")
    if "json" in rules:
        first, second = quoted("json")
        return json.dumps({first: " ".join([a, b, *extra]), second: "fine"})
    count = 2
    if "sentences" in rules:
        count = asked("sentences")
    if "least_sentences" in rules:
        count = asked("least_sentences")
    ending = quoted("end")[0] if "end" in rules else ""
    count -= bool(ending)
    units = [" ".join([a, b, "here", *extra]), *["so it is"] * (count - 1)]
    if "least_words" in rules:
        units[0] += " more" * asked("least_words")
    marks = "!" * asked("exclamations") if "exclamations" in rules else "."
    tail = ["."] * len(units)
    tail[0] = marks
    if "question" in rules:
        tail[-1] = f"{marks}?" if len(units) == 1 and marks != "." else "?"
    sentences = [unit + end for unit, end in zip(units, tail, strict=True)]
    last = sentences.pop() if "question" in rules else ""
    start = quoted("start")[0] + " " if "start" in rules else ""
    text = start + " ".join(sentences) if sentences else start
    blocks = [text] if text.strip() else []
    if "bullets" in rules:
        blocks += ["\n".join(["- point"] * asked("bullets"))]
    if "numbered" in rules:
        top = int(re.findall(r"“(\d)\. ”", rules["numbered"].text)[-1])
        blocks += ["\n".join(f"{i}. point" for i in range(1, top + 1))]
    if "sections" in rules:
        blocks = [f"Section {i}\nmore" for i in range(1, asked("sections") + 1)]
        blocks[0] = f"{start}\n" * bool(start) + blocks[0] + "\n" + " ".join(sentences)
    if "paragraphs" in rules:
        blocks += ["more"] * (asked("paragraphs") - len(blocks) - bool(last or ending) * 0)
    if "two" in rules:
        blocks += ["******\nanother"]
    end = " ".join(part for part in (last, ending) if part)
    if end:
        if "paragraphs" in rules and len(blocks) >= asked("paragraphs"):
            blocks[-1] += f" {end}"
        else:
            blocks.append(end)
    text = ("\n\n" if "paragraphs" in rules else "\n").join(blocks)
    if "title" in rules:
        text = f"<<my title>>\n{text}"
    if "postscript" in rules:
        text += "\nP.S. bye"
    if "narrow" in rules:
        lines = [textwrap.fill(line, 38) for line in text.split("\n")]
        text = "\n".join(lines)
        if len([line for line in text.split("\n") if line.strip()]) < 2:
            text = "\n".join(text.rsplit(" ", 1))
    if "quotes" in rules:
        text = f'"{text}"'
    if "lower" in rules:
        text = text.lower()
    return text.upper() if "upper" in rules else text


def test_every_combination_can_be_kept() -> None:
    seen = Counter[str]()
    for number in range(1500):
        rng = random.Random(number)
        names = combination(rng, rng.randint(1, 3))
        seen.update(names)
        topic = rng.choice(sorted(TOPICS))
        rules = {name: KINDS[name].make(rng) for name in names}
        text = compose(topic, rules)
        attempt = Written(topic, list(rules.values()))
        attempt.reply(Message("assistant", text))
        assert attempt.score().value == 1, (text, attempt.score())
    assert set(seen) == set(KINDS)


def test_each_rule_can_be_broken() -> None:
    """By one of a few texts; none of them is what it asks for."""
    texts = [
        "Very good, nice thing: really great people are just always there.",
        *("", "x", "A. B, c! 1 2 3 " * 40),
        *("- a\n" * 9, "yes\n\nno\n\nso\n\nmore\n\nall\n\nof"),
    ]
    for name, kind in KINDS.items():
        for seed in range(20):
            rule = kind.make(random.Random(seed))
            assert not all(rule.holds(text) for text in texts), name


@pytest.mark.parametrize(
    "claim",
    [
        "As requested, I have used no commas.",
        "I have written exactly three sentences.",
        "This answer has at least 40 words.",
        "Here is a text without commas.",
        "The response contains exactly two paragraphs.",
        "I made sure to avoid the word nice.",
    ],
)
def test_what_a_text_says_of_itself_does_not_count(claim: str) -> None:
    assert without_claims(f"The sand is warm. {claim}") == "The sand is warm."
    assert without_claims(f"{claim} The sand is warm.").endswith("The sand is warm.")


def test_plain_texts_are_left_alone() -> None:
    text = (
        "Bees live in a hive. They make honey from nectar!\n\n- Pollen feeds them.\nWhy? Who knows."
    )
    assert without_claims(text) == text


def test_a_text_is_about_its_topic_and_no_other() -> None:
    assert is_about("We swim in the sea, and the sand is warm.", "a day at the beach")
    assert not is_about("We swim.", "a day at the beach")
    assert not is_about("We swim in the sea, and the sand is warm.", "baking bread")
    everything = " ".join(word for words in TOPICS.values() for word in words)
    assert not any(is_about(everything, topic) for topic in TOPICS)
    for topic, words in TOPICS.items():
        assert is_about(" ".join(words), topic), topic


@pytest.mark.parametrize("level", [1, 2, 3])
def test_who_does_not_try_earns_next_to_nothing(level: int) -> None:
    environment = Instructions(level)
    everything = " ".join(word for words in TOPICS.values() for word in words)
    agents = {
        **SPEAKERS,
        "kitchen sink": lambda messages, tools, rng: Message("assistant", everything),
        "claiming": lambda messages, tools, rng: Message(
            "assistant", f"I have followed these: {messages[0].content}"
        ),
    }
    earned = audit(environment, range(60), agents)
    # The request names its topic: repeating it is about it, and may keep a rule by chance.
    for name in ("echoing", "longest", "copying a line"):
        assert earned.pop(name) <= 0.5, (name, earned)
    assert set(earned.values()) == {0.0}, earned


def test_the_same_number_is_the_same_task() -> None:
    texts = [Instructions(2).begin(number).opening[0].content for number in range(100)]
    assert texts == [Instructions(2).begin(number).opening[0].content for number in range(100)]
    assert len(set(texts)) > 95
