"""Archetypes that a model proposes: read, tried, and refused with a reason."""

from __future__ import annotations

import random
import tomllib
from collections import Counter
from dataclasses import replace
from importlib.resources import files
from typing import Any

import pytest

from selenite.agent.ontology.archetypes import Addition, Category, categories
from selenite.agent.ontology.field_spec import read_field, read_life
from selenite.agent.roles.archetype import Archetype, read_archetype
from selenite.agent.roles.objection import Objection, Why
from selenite.agent.roles.outcomes import Outcomes
from selenite.agent.roles.play import propose_archetype
from selenite.agent.roles.role import Role
from selenite.agent.roles.trial import working_domain
from selenite.agent.world.domain import Domain
from tests.agent.roles.stub import ARCHETYPE, Stage, one_stage, text

COMMERCE = next(category for category in categories() if category.name == "commerce")
FIELDS, LIFE = ARCHETYPE["fields"], ARCHETYPE["life"]
assert isinstance(FIELDS, list)
assert isinstance(LIFE, list)


def read(
    name: str = "loyalty_card",
    fields: list[str] = FIELDS,
    life: list[str] = LIFE,
    category: Category = COMMERCE,
) -> Archetype | Objection:
    return read_archetype(name, fields, life, category)


def why(**changes: Any) -> Why:
    found = read(**changes)
    assert isinstance(found, Objection), found
    assert found.detail
    return found.why


GOOD_FIELDS = [
    *("customer ref customer !", "starts moment 1..30", "due day -5..60 ?", "length span"),
    *("weight measure 0.5..20 kg", "place group floor count 0..9, city city", "tags several tag"),
    *("marks several gold|silver|none", "price money 5..900", "page url ?"),
]


def test_lines_of_the_language() -> None:
    found = read(fields=GOOD_FIELDS)
    assert isinstance(found, Archetype)
    assert [field.name for field in found.entity.fields][:3] == ["customer", "starts", "due"]
    assert isinstance(working_domain(found.entity, COMMERCE, 6), Domain)
    without_life = read(life=[])
    assert isinstance(without_life, Archetype)
    assert isinstance(working_domain(without_life.entity, COMMERCE, 6), Domain)


@pytest.mark.parametrize(
    "line",
    [
        *("", "x", "holder", "holder ", "holder somebody", "holder person person", "seats count"),
        *("seats count 1", "seats count a..b", "seats count 1..2..3", "due day nan..1", "to ref"),
        *("tags several", "place group", "place group floor", "place group , ", "x" * 200),
        *("größe person", "holder person\0", "holder person\nx flag", "level a|", "tags several ?"),
        *("tags several several tag", "place group inner group floor flag", "e day 1e999..1"),
    ],
)
def test_lines_that_are_not_of_the_language(line: str) -> None:
    assert why(fields=[*FIELDS, line]) in (Why.UNREADABLE, Why.BAD_NAME, Why.BAD_BOUNDS)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"name": "Loyalty Card"}, Why.BAD_NAME),
        ({"name": ""}, Why.BAD_NAME),
        ({"name": "x" * 31}, Why.BAD_NAME),
        ({"name": "purchase"}, Why.NOT_NEW),
        ({"name": "voucher_"}, Why.BAD_NAME),
        ({"name": "purchases"}, Why.NOT_NEW),  # its ids would look like those of a purchase
        ({"fields": FIELDS[:1]}, Why.BAD_BOUNDS),
        ({"fields": [f"f{number} flag" for number in range(13)]},
         Why.BAD_BOUNDS),
        ({"fields": [f"{line} ?" for line in ("holder person", "level gold|tin")]}, Why.BAD_BOUNDS),
        ({"fields": [*FIELDS, "id code"]}, Why.BAD_NAME),
        ({"fields": [*FIELDS, "holder person"]}, Why.BAD_NAME),
        ({"fields": [*FIELDS, "Other person"]}, Why.BAD_NAME),
        ({"fields": [*FIELDS, "grade a|a"]}, Why.BAD_BOUNDS),
        ({"fields": [*FIELDS, "grade good|Two"]}, Why.BAD_NAME),
        ({"fields": [*FIELDS, "seats count 9..1"]}, Why.BAD_BOUNDS),
        ({"fields": [*FIELDS, "seats count 1..99999999"]}, Why.BAD_BOUNDS),
        ({"fields": [*FIELDS, "price money -5..9"]}, Why.BAD_BOUNDS),
        ({"fields": [*FIELDS, "due day 1..99999999"]}, Why.BAD_BOUNDS),
        ({"fields": [*FIELDS, "seats count 1..9 {braces}"]}, Why.UNREADABLE),
        ({"fields": [*FIELDS, "friend ref spaceship"]}, Why.UNKNOWN_REFERENCE),
        ({"life": ["issued", "block issued blocked"]}, Why.UNREADABLE),
        ({"life": ["issued", "block issued >"]}, Why.UNREADABLE),
        ({"life": ["issued", "block issued > > blocked"]}, Why.UNREADABLE),
        ({"life": ["issued"]}, Why.BAD_LIFE),
        ({"life": ["issued", "block lost > blocked"]}, Why.BAD_LIFE),
        ({"life": ["issued", "delete issued > gone"]}, Why.BAD_NAME),
        ({"life": ["issued", "block issued > gone", "block gone > issued"]}, Why.BAD_NAME),
        ({"life": ["Issued now", "block issued > gone"]}, Why.BAD_NAME),
    ],
)  # fmt: skip
def test_archetypes_that_would_not_do(changes: dict[str, Any], expected: Why) -> None:
    assert why(**changes) is expected


def test_every_archetype_that_was_written_by_hand_can_be_read() -> None:
    """But for a verb or two that tools have, too."""
    reasons = Counter[Why]()
    for category in categories():
        for entity in category.archetypes:
            others = tuple(e for e in category.archetypes if e.name != entity.name)
            lines = LINES[category.name][entity.name]
            found = read(
                entity.name,
                lines["fields"],
                lines.get("life", []),
                replace(category, archetypes=others),
            )
            if isinstance(found, Objection):
                reasons[found.why] += 1
            else:
                assert found.entity == entity
    assert reasons.keys() <= {Why.BAD_NAME}
    assert reasons.total() < 5


def written() -> dict[str, Any]:
    """The files of the categories."""
    folder = files("selenite.agent.ontology").joinpath("categories")
    return {
        entry.name.removesuffix(".toml"): tomllib.loads(entry.read_text(encoding="utf-8"))
        for entry in folder.iterdir()
        if entry.name.endswith(".toml")
    }


LINES = written()


def test_no_lines_break_the_reader() -> None:
    """Lines of the categories with parts left out, doubled and swapped."""
    rng, read_well = random.Random(0), 0
    entities = [e for table in LINES.values() for e in table.values() if isinstance(e, dict)]
    fields = [line for entity in entities for line in entity["fields"]]
    lives = [entity["life"] for entity in entities if "life" in entity]

    def mangled(line: str) -> str:
        letters = list(line)
        for _ in range(rng.choice((0, 0, 1, 3))):
            place = rng.randrange(len(letters) or 1)
            letters[place : place + 1] = rng.choice(
                ("", " ", "..", "|", ">", ",", "9", "ref", "?!")
            )
        return "".join(letters)

    for _ in range(3000):
        found = read(
            fields=[mangled(line) for line in rng.sample(fields, rng.randint(1, 6))],
            life=[mangled(line) for line in rng.choice(lives)],
        )
        if isinstance(found, Archetype):
            read_well += 1
            assert working_domain(found.entity, COMMERCE, 6)
    assert read_well > 5


# --- models


@pytest.fixture(scope="module")
def stage() -> Any:
    with one_stage() as opened:
        yield opened


def proposed(stage: Stage, *answers: dict[str, Any]) -> tuple[Archetype | None, Outcomes]:
    """For commerce, by an author who gives the answers in turn, and the last one again."""
    rest = list(answers)
    roles = stage.roles(
        lambda body: text(rest.pop(0) if len(rest) > 1 else rest[0]), Role.DOMAIN_AUTHOR, repairs=1
    )
    found, outcomes = propose_archetype(COMMERCE, roles, 6, categories().index(COMMERCE))
    outcomes.check_integrity()
    return found, outcomes


def test_a_proposal_is_a_part_of_a_category_s_file(stage: Stage) -> None:
    found, outcomes = proposed(stage, ARCHETYPE)
    assert found is not None
    assert outcomes.of(Role.DOMAIN_AUTHOR).accepted == 1
    assert found.lines == Addition("commerce", "loyalty_card", tuple(FIELDS), tuple(LIFE))
    assert tuple(map(read_field, FIELDS)) == found.entity.fields
    assert read_life(LIFE) == (found.entity.states, found.entity.moves)


def test_a_proposal_is_mended_when_its_author_is_told(stage: Stage) -> None:
    found, outcomes = proposed(stage, {**ARCHETYPE, "fields": ["holder somebody", "x"]}, ARCHETYPE)
    assert found is not None
    assert outcomes.of(Role.DOMAIN_AUTHOR).objections == 1


def test_refused_proposals_are_counted_by_reason(stage: Stage) -> None:
    for changes, reason in (
        ({"name": "customer"}, "not_new"),
        ({"fields": ["friend ref spaceship", "holder person"]}, "unknown_reference"),
        ({"life": ["issued", "nonsense"]}, "unreadable"),
    ):
        found, outcomes = proposed(stage, {**ARCHETYPE, **changes})
        assert found is None
        assert outcomes.of(Role.DOMAIN_AUTHOR).failed == {reason: 1}


def test_an_archetype_whose_tools_do_not_work(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that can be read is known to fail, so the trial is made stricter: no state at all."""
    monkeypatch.setattr("selenite.agent.roles.trial.STATES", 0)
    found, outcomes = proposed(stage, ARCHETYPE)
    assert found is None
    assert outcomes.of(Role.DOMAIN_AUTHOR).failed == {"tools_fail": 1}
