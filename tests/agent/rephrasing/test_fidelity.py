"""Pairs of a passage and a rewrite, made by hand: each defect is found, and good ones pass."""

from __future__ import annotations

import pytest

from selenite.agent.rephrasing.fidelity import Defect, FidelityConfig, faults_of
from selenite.agent.rephrasing.original import Original
from selenite.agent.rephrasing.overlap import copied_share, shared_topic
from selenite.errors import ConfigError
from tests.agent.rephrasing.texts import GERMAN

BEFORE = "# Ships\n\nThe harbour of Bergen had 12 ships in the days of Olaf Berg.\n\n"
SOURCE = """\
The bridge was opened by Anna Larsen on 3 May 1931, after 4 years of work. It cost 1,200,000 crowns,
and the city of Bergen paid half of it. The engineers said that "nobody will ever need a second
one". Today `traffic.py` counts about 7,500 cars a day:

```python
count(bridge, per="day")
```

Because the bridge is narrow, lorries must take the road over Voss."""
GOOD = """\
Work on it had taken 4 years when Anna Larsen opened the bridge on May 3, 1931. Half of the price,
1.2 million or to be exact 1200000 crowns, came from Bergen, the city itself. In the eyes of its
engineers, "nobody will ever need a second one". Some 7500 cars cross daily, as counted by
`traffic.py`:

```python
count(bridge, per="day")
```

Lorries have to go by way of Voss, since there is too little room for them."""
ORIGINAL = Original(BEFORE + SOURCE)


def defects(rewrite: str, source: str = SOURCE, **changes: float) -> list[str]:
    config = FidelityConfig(**changes)  # type: ignore[arg-type]
    return [fault.reason for fault in faults_of(ORIGINAL, source, rewrite, config)]


def test_a_good_rewrite_passes_but_for_a_number_of_its_own() -> None:
    assert defects(GOOD) == [Defect.NEW_NUMBERS]  # "1.2 million" is no form of 1,200,000
    assert defects(GOOD.replace("1.2 million or to be exact ", "")) == []


REWRITE = GOOD.replace("1.2 million or to be exact ", "")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("4 years", "some years", [Defect.LOST_NUMBERS]),
        ("4 years", "5 years", [Defect.LOST_NUMBERS, Defect.NEW_NUMBERS]),
        ("4 years", "four years", []),
        ("May 3, 1931", "3 May 1931", []),
        ("May 3, 1931", "1931-05-03", []),
        ("May 3, 1931", "May 4, 1931", [Defect.LOST_DATES, Defect.NEW_DATES]),
        ("May 3, 1931", "a day in spring", [Defect.LOST_DATES]),
        ("Anna Larsen", "the mayor", [Defect.LOST_NAMES]),
        ("Anna Larsen", "Anna Larsen and Erik Moe", [Defect.NEW_NAMES]),
        ("Some 7500", "Seventeen times 7500", [Defect.NEW_NUMBERS]),
        (
            '"nobody will ever need a second one"',
            '"nobody needs it"',
            [Defect.LOST_QUOTES, Defect.NEW_QUOTES],
        ),
        ('"nobody will ever need a second one"', "no other would be needed", [Defect.LOST_QUOTES]),
        ('per="day"', 'per="week"', [Defect.LOST_CODE, Defect.NEW_CODE]),
        ("`traffic.py`", "a program", [Defect.LOST_CODE]),
        ("`traffic.py`", "`traffic.py` and `cars.py`", [Defect.NEW_CODE]),
        ("Lorries", "As in the days of Olaf Berg and his 12 ships, lorries", []),  # said before
        (", since there is too little room for them.", ", since there is", [Defect.TRUNCATED]),
    ],
)
def test_each_defect_is_found(old: str, new: str, expected: list[Defect]) -> None:
    assert old in REWRITE
    assert defects(REWRITE.replace(old, new)) == expected


def test_form() -> None:
    assert defects(" \n") == [Defect.EMPTY]
    assert defects(SOURCE) == [Defect.COPY]
    slim = SOURCE.replace("narrow", "slim")
    assert (defects(slim), defects(slim, most_copied=0.9)) == ([], [Defect.COPY])
    assert Defect.TOO_SHORT in defects(REWRITE[: len(SOURCE) // 3] + ".")
    assert Defect.TOO_LONG in defects(REWRITE + " And so on it goes with it." * 40)
    cut_in_code = REWRITE.rpartition("```")[0]
    assert Defect.TRUNCATED in defects(cut_in_code)


def test_language_and_topic() -> None:
    translated = (
        "Die Brücke wurde am 3. Mai 1931 von Anna Larsen eröffnet, und die Arbeit hatte 4 Jahre "
        "gedauert. Sie ist zu schmal für die Lastwagen, die über Voss fahren, wenn sie nach Bergen "
        "wollen. Das hat 1,200,000 Kronen gekostet, und es war nicht zu viel für eine Stadt."
    )
    assert Defect.LANGUAGE in defects(translated)
    other = (
        "A recipe for soup is of great use to those who cook in the evening for their family. " * 5
    )
    assert Defect.UNRELATED in defects(other)
    assert faults_of(Original(GERMAN), GERMAN, GERMAN, FidelityConfig())[0].reason == Defect.COPY


def test_thresholds_are_shares() -> None:
    source = "The parts weigh 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 11 grams."
    rewrite = "In grams, what the parts weigh is 1, 2, 3, 4, 5, 6, 7, 8, 9 and 10."
    original = Original(source)
    assert faults_of(original, source, rewrite, FidelityConfig()) == ()
    strict = FidelityConfig(recall=1.0)
    (fault,) = faults_of(original, source, rewrite, strict)
    assert (fault.reason, fault.detail) == (Defect.LOST_NUMBERS, "it lost numbers 11")


def test_overlap() -> None:
    assert copied_share(SOURCE, SOURCE) == 1
    assert copied_share(SOURCE, REWRITE) < 0.4
    assert copied_share("a b", "c d") == 0
    assert copied_share("", "") == 0
    assert shared_topic(SOURCE, SOURCE) == shared_topic("", "x") == 1
    assert shared_topic("Bridges carried lorries", "A bridge carries a lorry") > 0.6
    assert copied_share("犬は庭にいます。", "猫は家にいます。") < 1


def test_bounds_that_cross_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shortest=3.0: must be below longest=2.0"):
        FidelityConfig(shortest=3.0)
    assert issubclass(ConfigError, ValueError)
