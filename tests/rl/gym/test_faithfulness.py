"""Answers from a text: what is told must be what the text says, of whom it says it."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from statistics import mean

import pytest
from pydantic import TypeAdapter

from selenite.rl.gym.audit import SPEAKERS, attempt, audit
from selenite.rl.gym.config import EnvironmentPart
from selenite.rl.gym.environment import HELD_OUT, Score
from selenite.rl.gym.faithfulness.claims import sentences
from selenite.rl.gym.faithfulness.environment import Faithfulness, Told, copied
from selenite.rl.gym.faithfulness.passage import MONTHS, Derived, Fact, Passage
from selenite.rl.gym.faithfulness.reading import Value, read
from selenite.rl.gym.faithfulness.topics import EVALUATION, TRAINING, Attribute, Kind, Topic
from selenite.types import Message

NUMBERS = [*range(150), *range(HELD_OUT, HELD_OUT + 100)]
LEVELS = (1, 2, 3)


def judged(episode: Told, text: str) -> Score:
    assert not episode.reply(Message("assistant", text))
    return episode.score()


def checks(score: Score) -> dict[str, float]:
    return {check.name: check.value for check in score.checks}


# --- writers that do what is asked, each in another way


def calculated(one: Derived) -> str:
    word = "sum" if one.is_sum else "difference"
    return f"The {word} of the {one.attribute.label} of {one.more} and {one.fewer} is {one.value}."


def plain(p: Passage) -> str:
    told = [f"The {f.attribute.label} of {f.subject} is {f.value}." for f in p.required]
    return " ".join([*told, *map(calculated, p.derived)])


def turned(p: Passage) -> str:
    told = [f"{f.value} is the {f.attribute.label} of {f.subject}." for f in p.required]
    lines = [*told, *map(calculated, p.derived)]
    return "\n".join(f"{number}. {line}" for number, line in enumerate(lines, start=1))


def by_subject(p: Passage) -> str:
    parts = []
    for name in sorted({fact.subject for fact in p.required}):
        own = [fact for fact in p.required if fact.subject == name]
        parts.append(f"- **{name}**: " + "; ".join(f"{f.attribute.label} {f.value}" for f in own))
    return "\n".join([*parts, *(f"- {calculated(one)}" for one in p.derived)])


def with_pronouns(p: Passage) -> str:
    parts, last = [], ""
    for fact in sorted(p.required, key=lambda fact: fact.subject):
        who = "Its" if fact.subject == last else f"As for {fact.subject}, the"
        parts.append(f"{who} {fact.attribute.label} is {written(fact)}.")
        last = fact.subject
    return " ".join([*parts, *map(compared, p.derived)])


def written(fact: Fact) -> str:
    """A value in another form."""
    if fact.attribute.kind is Kind.DATE:
        day, month, year = fact.value.split()
        return f"{month} {day}, {year}"
    if fact.attribute.kind is Kind.NUMBER:
        return in_words(int(fact.value)) if int(fact.value) < 1000 else f"{int(fact.value):,}"
    if fact.attribute.kind is Kind.PERSON:
        return fact.value.split()[1]
    return fact.value


def in_words(number: int) -> str:
    small = {
        1: "one", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight",
        9: "nine", 10: "ten", 11: "eleven", 12: "twelve", 13: "thirteen", 14: "fourteen",
        15: "fifteen", 16: "sixteen", 17: "seventeen", 18: "eighteen", 19: "nineteen",
    }  # fmt: skip
    tens = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
    if number >= 100:
        rest = f" and {in_words(number % 100)}" if number % 100 else ""
        return f"{small[number // 100]} hundred{rest}"
    if number < 20:
        return small[number]
    ten, unit = divmod(number, 10)
    return tens[ten - 2] + (f"-{small[unit]}" if unit else "")


def compared(one: Derived) -> str:
    if one.is_sum:
        return f"Together, {one.fewer} and {one.more} have a {one.attribute.label} of {one.value}."
    return f"{one.more} has {one.value} more than {one.fewer} in {one.attribute.label}."


WRITERS = (plain, turned, by_subject, with_pronouns)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("write", WRITERS)
def test_who_tells_what_the_text_says_earns_everything(
    write: Callable[[Passage], str], level: int
) -> None:
    environment = Faithfulness(level)
    for number in NUMBERS:
        episode = environment.begin(number)
        score = judged(episode, write(episode.passage))
        assert score.value == 1, (write(episode.passage), score)


# --- writers that do not


def other(p: Passage, fact: Fact, rng: random.Random) -> Fact:
    """The same of another subject."""
    others = [
        f for f in p.facts if f.attribute is fact.attribute and f.subject != fact.subject
    ]  # fmt: skip
    return rng.choice(others)


def swapped(p: Passage, rng: random.Random) -> str:
    fact = rng.choice(p.required)
    return plain(p).replace(fact.value, other(p, fact, rng).value)


def invented(p: Passage, rng: random.Random) -> str:
    fact = rng.choice(p.required)
    made = {
        Kind.NUMBER: str(rng.randint(5000, 9999) * 2 + 1),
        Kind.DATE: f"{rng.randint(1, 28)} {rng.choice(MONTHS)} 2024",
        Kind.ID: "ZZ-0007",
        Kind.PERSON: "Marvin Crabtree",
        Kind.PLACE: "Paris",
    }
    return plain(p).replace(fact.value, made[fact.attribute.kind])


def added(p: Passage, rng: random.Random) -> str:
    """All that is right, and one thing more that the text does not say."""
    name = p.required[0].subject
    more = (
        f"{name} won 17 prizes.",
        f"{name} won seventeen prizes.",
        f"{name} was visited by Marvin Crabtree.",
        f"{name} was sold on 3 May 2022.",
        f"{name} has the number ZZ-0007.",
        f"{name} was robbed by {rng.choice([f.value for f in p.facts if f.subject == name])}.",
        f"Marvolo, like {name}, is {p.required[0].value} old.",
    )
    return f"{plain(p)} {rng.choice(more)}"


def misnamed(p: Passage, rng: random.Random) -> str:
    """Right values of the right subject under another name."""
    fact = rng.choice(p.required)
    labels = [a.label for a in p.topic.attributes if a is not fact.attribute]
    right = f"The {fact.attribute.label} of {fact.subject} is"
    return plain(p).replace(right, f"The {rng.choice(labels)} of {fact.subject} is")


def of_nobody(p: Passage, rng: random.Random) -> str:
    return " ".join(f"The {f.attribute.label} is {f.value}." for f in p.required)


def hedged(p: Passage, rng: random.Random) -> str:
    fact = rng.choice(p.required)
    wrong = other(p, fact, rng).value
    return plain(p).replace(
        fact.value, rng.choice((f"{fact.value} or {wrong}", f"perhaps {fact.value}"))
    )


def denied(p: Passage, rng: random.Random) -> str:
    return plain(p).replace(" is ", rng.choice((" is not ", " isn't ", " was never ")))


def asked_back(p: Passage, rng: random.Random) -> str:
    return plain(p).replace(".", "?")


def endless(p: Passage, rng: random.Random) -> str:
    """Everything in one sentence."""
    return " and ".join(f"{f.subject} {f.attribute.label} {f.value}" for f in p.facts) + "."


def heaped(p: Passage, rng: random.Random) -> str:
    """All subjects, then all values."""
    names = " ".join(sorted(p.asked))
    return f"{names}: {' '.join(f'{f.attribute.label} {f.value}' for f in p.required)}."


def all_pairs(p: Passage, rng: random.Random) -> str:
    """Each subject with each value that is asked for."""
    return " ".join(
        f"The {f.attribute.label} of {name} is {f.value}." for f in p.required for name in p.asked
    )


def everything(p: Passage, rng: random.Random) -> str:
    """The whole text in other words."""
    return " ".join(f"The {f.attribute.label} of {f.subject} is {f.value}." for f in p.facts)


def copying(p: Passage, rng: random.Random) -> str:
    return p.text


def copying_what_is_asked(p: Passage, rng: random.Random) -> str:
    values = {fact.value for fact in p.required}
    return " ".join(s for s in sentences(p.text) if any(value in s for value in values))


def multiplied(p: Passage, rng: random.Random) -> str:
    numbers = [f for f in p.required if f.attribute.kind is Kind.NUMBER]
    text = plain(p)
    for fact in numbers:
        text = text.replace(f" {fact.value}.", f" {fact.value} thousand.")
    return text if numbers else ""


def turned_around(p: Passage, rng: random.Random) -> str:
    """Who has less is said to have more."""
    told = [one for one in p.derived if not one.is_sum]
    lines = (f"{o.fewer} has {o.value} more than {o.more} in {o.attribute.label}." for o in told)
    return " ".join(lines)


VAGUE = (
    "", "It is all in the text.", "The text says when and by whom.", "I cannot tell.",
    "As the text says, each of them has its own number and date.",
)  # fmt: skip


def vague(p: Passage, rng: random.Random) -> str:
    return rng.choice(VAGUE)


FORGERS = (
    *(swapped, invented, added, misnamed, of_nobody, hedged, denied, asked_back, endless, heaped),
    *(everything, copying, multiplied, turned_around, vague),
)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("forge", FORGERS)
def test_who_tells_something_else_earns_nothing(
    forge: Callable[[Passage, random.Random], str], level: int
) -> None:
    environment = Faithfulness(level)
    for number in NUMBERS[::2]:
        episode = environment.begin(number)
        text = forge(episode.passage, random.Random(number))
        if forge is heaped and len({fact.subject for fact in episode.passage.required}) == 1:
            continue  # then it is right
        score = judged(episode, text)
        assert score.value == 0, (text, score)


def test_copied_sentences_and_all_pairs_earn_next_to_nothing() -> None:
    """A sentence of eight words cannot be told from a paraphrase; one subject makes no pairs."""
    for forge in (copying_what_is_asked, all_pairs):
        earned = []
        for number in NUMBERS:
            episode = Faithfulness(2).begin(number)
            text = forge(episode.passage, random.Random(number))
            earned.append(judged(episode, text).value)
        assert mean(earned) <= 0.05, forge.__name__


def test_what_is_left_out_costs_its_share() -> None:
    for number in NUMBERS[:60]:
        episode = Faithfulness(3).begin(number)
        text = sentences(plain(episode.passage))
        assert len(text) == 5
        for kept in range(1, 6):
            score = judged(episode, " ".join(text[:kept]))
            assert score.value == pytest.approx(kept / 5)


def test_a_part_of_a_date_is_true_but_does_not_tell_it() -> None:
    episode = next(dated())
    fact = next(f for f in episode.passage.required if f.attribute.kind is Kind.DATE)
    day, month, year = fact.value.split()
    for part in (year, f"{month} {year}"):
        text = f"The {fact.attribute.label} of {fact.subject} lies in {part}."
        assert checks(judged(episode, text)) == {
            "length": 1, "own words": 1, "faithful": 1, "told": 0
        }  # fmt: skip
    number = [month[:3] for month in MONTHS].index(month[:3]) + 1
    for whole in (
        f"{year}-{number:02d}-{int(day):02d}",
        f"{month} {day}, {year}",
        f"the {day}th of {month} {year}",
    ):
        text = f"The {fact.attribute.label} of {fact.subject} is {whole}."
        assert judged(episode, text).value == pytest.approx(0.5), whole


def dated() -> Iterator[Told]:
    for number in range(100):
        episode = Faithfulness(1).begin(number)
        if sum(f.attribute.kind is Kind.DATE for f in episode.passage.required) == 1:
            yield episode


@pytest.mark.parametrize("level", LEVELS)
def test_who_does_not_try_earns_nothing(level: int) -> None:
    earned = audit(Faithfulness(level), range(40), SPEAKERS)
    assert set(earned.values()) == {0.0}, earned


def test_agents_that_copy_lines_of_the_request_earn_nothing() -> None:
    def line(messages, tools, rng):  # type: ignore[no-untyped-def]
        return Message("assistant", rng.choice(messages[0].content.splitlines()))

    def sentence(messages, tools, rng):  # type: ignore[no-untyped-def]
        return Message("assistant", rng.choice(sentences(messages[0].content)))

    for agent in (line, sentence):
        earned = mean(attempt(Faithfulness(1), number, agent) for number in range(100))
        assert earned <= 0.02


def test_numbers_are_read_in_digits_and_in_words() -> None:
    passage = Faithfulness(1).begin(0).passage
    for number in range(2, 1000):
        for text in (str(number), in_words(number)):
            values = [
                token for token in read(f"so {text} it is", passage) if isinstance(token, Value)
            ]
            assert [value.number for value in values] == [number], text
    (value,) = (token for token in read("12,345 of them", passage) if isinstance(token, Value))
    assert value.number == 12_345


PIECES = (
    *(
        "9" * 5000,
        "31 ſep 1999",
        "May",
        "may",
        "٣",
        "²",
        "hundred",
        "hundred and",
        "ten-",
        "-7",
        "1.5%",
    ),
    *(
        "\ud800",
        "\x00",
        "**",
        "1.",
        "“",
        "ſix",
        "K",
        "is",
        "than",
        "more",
        ":",
        ",",
        "?",
        "\n",
        "it",
    ),
)


def test_whatever_is_written_is_judged() -> None:
    rng = random.Random(0)
    for number in range(300):
        episode = Faithfulness(3).begin(number % 20)
        words = episode.opening[0].content.split()
        text = " ".join(rng.choice((rng.choice(PIECES), rng.choice(words))) for _ in range(60))
        assert 0 <= judged(episode, text).value < 1


def test_copied_is_the_share_of_rows_of_eight_words() -> None:
    text = "one two three four five six seven eight nine ten eleven twelve"
    assert copied(text, text) == 1
    assert copied("a b c d e f g h i", text) == 0
    assert copied("short", text) == 0
    assert copied(f"{text} a b c d e f g h", text) == pytest.approx(5 / 13)


def test_texts_have_each_value_once() -> None:
    for level in LEVELS:
        for number in NUMBERS[:80]:
            passage = Faithfulness(level).begin(number).passage
            assert len({fact.value for fact in passage.facts}) == len(passage.facts)
            assert len(passage.subjects) == 2 + level
            for fact in passage.facts:
                assert fact.told() in passage.text
            for one in passage.derived:
                assert str(one.value) not in passage.text.replace(",", "").split()


def test_no_word_names_two_attributes_of_a_topic() -> None:
    def named(topic: Topic) -> list[tuple[str, Attribute]]:
        return [(word, attribute) for attribute in topic.attributes for word in attribute.words]

    for topic in (*TRAINING, *EVALUATION):
        for word, attribute in named(topic):
            for text, another in named(topic):
                assert attribute is another or not text.startswith(word), (word, text)
        for attribute in topic.attributes:
            assert any(word.startswith(attribute.words) for word in attribute.label.split())


def test_training_and_evaluation_share_no_topic_and_no_request() -> None:
    own, held_out = (
        {attribute.label for topic in topics for attribute in topic.attributes}
        for topics in (TRAINING, EVALUATION)
    )
    assert not own & held_out


def test_the_same_number_is_the_same_task_in_every_process() -> None:
    program = (
        "from selenite.rl.gym.faithfulness.environment import Faithfulness as F; import json, sys; "
        "print(json.dumps([F(3).begin(n).opening[0].content for n in json.load(sys.stdin)]))"
    )
    told = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(NUMBERS), capture_output=True, text=True, check=True,
    )  # fmt: skip
    own = [Faithfulness(3).begin(number).opening[0].content for number in NUMBERS]
    assert json.loads(told.stdout) == own
    assert len(set(own)) == len(own)


def test_a_config_opens_it() -> None:
    adapter: TypeAdapter[EnvironmentPart] = TypeAdapter(EnvironmentPart)
    opened = adapter.validate_python({"kind": "faithfulness", "level": 2, "seed": 4}).open()
    assert opened.begin(7).opening == Faithfulness(2, 4).begin(7).opening
