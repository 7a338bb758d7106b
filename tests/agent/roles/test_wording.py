"""Which texts may stand for another: the same values, things and deeds, and no others."""

from __future__ import annotations

import re

import pytest

from selenite.agent.roles.objection import Why
from selenite.agent.roles.vocabulary import stem, vocabulary_of
from selenite.agent.roles.wording import Wording
from selenite.agent.world.domain import Domain
from selenite.agent.world.setting import known_domain
from tests.agent.roles.stub import task_of


@pytest.fixture(scope="module")
def shop() -> Domain:
    """With purchases, products and customers."""
    found = (known_domain(6, number) for number in range(120))
    return next(d for d in found if {"purchase", "product", "customer"} <= d.by_entity.keys())


ID, DATE, COUNT, PLACE = (
    ["PRCH-0012", "prch-0012", "PRCH 0012", "PRCH0012"],
    ["2026-03-06", "March 6, 2026", "Friday next week"],
    ["5", "five", "5 pieces", "five pieces"],
    ["Oslo", '"Oslo"'],
)

SAME = [
    ("Please cancel the purchase PRCH-0012.", "Could you cancel my purchase PRCH-0012 for me?"),
    ("Please cancel the purchase PRCH-0012.", "The purchase PRCH0012 has to be cancelled, thanks!"),
    ("Please delete the purchase PRCH-0012.", "Get rid of the purchase PRCH-0012, would you?"),
    ("The delivery day is Friday next week.", "Delivery is due on 2026-03-06."),
    ("The quantity is 5. The city is Oslo.", "Quantity: five pieces, please, in the city Oslo."),
    (
        "What is the quantity of the purchase PRCH-0012?",
        "I'd like to know the quantity of purchase PRCH-0012.",
    ),
    ("Hello! How are you today?", "Hi there, how is it going?"),
]
OTHER = [
    ("Please cancel the purchase PRCH-0012.", "Please cancel the purchase.", Why.LOST_VALUE),
    ("Please cancel the purchase PRCH-0012.", "Cancel the purchase PRCH-00123.", Why.LOST_VALUE),
    ("The quantity is 5.", "The quantity is 5.5.", Why.LOST_VALUE),
    ("The quantity is 5.", "The quantity is 15.", Why.LOST_VALUE),
    ("The city is Oslo.", "The city is oslo.", Why.LOST_VALUE),
    ("How many minutes are two hours?", "How many minutes has an hour?", Why.LOST_VALUE),
    (
        "Please cancel the purchase PRCH-0012.",
        "Please cancel the purchase PRCH-0012 of Oslo.",
        Why.INVENTED,
    ),
    (
        "Please cancel the purchase PRCH-0012.",
        "Please cancel the purchase PRCH-0012 tomorrow.",
        Why.INVENTED,
    ),
    ("The city is Oslo.", "The city is Oslo, for my friend Ragnhild.", Why.INVENTED),
    ("The city is Oslo.", "The city is Oslo, in the red house.", Why.INVENTED),
    ("The city is Oslo.", "Ragnhild wants the city Oslo.", Why.INVENTED),
    ("The city is Oslo.", "the city is Oslo, for ragnhild.", Why.INVENTED),
    ("The city is Oslo.", "The city is Oslo, for my spaceship.", Why.INVENTED),
    (
        "Please cancel the purchase PRCH-0012.",
        "Do it today: cancel the purchase PRCH-0012.",
        Why.INVENTED,
    ),
    (
        "Please cancel the purchase PRCH-0012.",
        "I will cancel the purchase PRCH-0012.",
        Why.CHANGED_SENSE,
    ),
    (
        "Thanks. Cancel the purchase PRCH-0012.",
        "Cancel the purchase PRCH-0012. Thank you very much. Thank you very much.",
        Why.REPEATS,
    ),
    (
        "Please cancel the purchase PRCH-0012.",
        "Cancel the purchase PRCH-0012 of my purchase.",
        Why.NEW_WORD,
    ),
    (
        "Please delete the purchase PRCH-0012.",
        "Delete the purchase PRCH-0012 and remove all.",
        Why.CHANGED_SENSE,
    ),
    (
        "Please cancel the purchase PRCH-0012.",
        "Please see to the purchase PRCH-0012.",
        Why.LOST_WORD,
    ),
    (
        "Please cancel the purchase PRCH-0012.",
        "Please cancel the purchase PRCH-0012 and ship it.",
        Why.NEW_WORD,
    ),
    (
        "Please cancel the purchase PRCH-0012.",
        "Please do not cancel the purchase PRCH-0012.",
        Why.LOST_WORD,
    ),
    (
        "Please delete the purchase PRCH-0012.",
        "Please show me the purchase PRCH-0012.",
        Why.CHANGED_SENSE,
    ),
    (
        "If it is no trouble: delete the purchase PRCH-0012.",
        "Never delete the purchase PRCH-0012, if you can.",
        Why.CHANGED_SENSE,
    ),
    (
        "This cannot be undone: I am not joking.",
        "This cannot be undone: I am not joking, not now.",
        Why.CHANGED_SENSE,
    ),
    (
        "Cancel all purchases above 5 pieces.",
        "Cancel the purchases of 5 pieces.",
        Why.CHANGED_SENSE,
    ),
    (
        "The quantity is 5. The city is Oslo.",
        "The city is 5. The quantity is Oslo.",
        Why.REORDERED,
    ),
    (
        "The quantity is 5. The city is Oslo.",
        "The city is Oslo. The quantity is 5.",
        Why.REORDERED,
    ),
    (
        "Move 5 pieces from the purchase PRCH-0012 to Oslo.",
        "Move 5 pieces to the purchase PRCH-0012 from Oslo.",
        Why.REORDERED,
    ),
]


def said_in(text: str) -> list[list[str]]:
    return [forms for forms in (ID, DATE, COUNT, PLACE) if any(re.search(f, text) for f in forms)]


@pytest.mark.parametrize(("before", "after"), SAME)
def test_the_same_in_other_words(shop: Domain, before: str, after: str) -> None:
    assert Wording(shop).objection(before, after, said_in(before)) is None


@pytest.mark.parametrize(("before", "after", "why"), OTHER)
def test_something_else(shop: Domain, before: str, after: str, why: Why) -> None:
    found = Wording(shop).objection(before, after, said_in(before))
    assert found is not None
    assert found.why is why, found


def test_a_value_that_cannot_be_seen_is_not_left_unchecked(shop: Domain) -> None:
    found = Wording(shop).objection("The city is Oslo-ish.", "Oslo-ish is the city.", [PLACE])
    assert found is not None
    assert found.why is Why.UNSEEN


def test_the_words_of_a_domain(shop: Domain) -> None:
    words = vocabulary_of(shop)
    assert {stem("purchase"), stem("quantity"), stem("customer")} <= words.nouns
    assert {stem("cancel"), stem("paid"), stem("express")} <= words.words - words.nouns
    assert not {"the", "by", "not", "id"} & words.words


@pytest.mark.parametrize(
    "forms",
    [
        ("cancel", "Cancels", "cancelled", "cancelling"),
        ("order", "orders", "order's", "ordered"),
        ("category", "categories"),
        ("close", "closed", "closing", "closes"),
        ("run", "runs"),
        ("address", "addresses"),
    ],
)
def test_endings_do_not_matter(forms: tuple[str, ...]) -> None:
    assert len(set(map(stem, forms))) == 1


def test_words_that_differ_stay_apart() -> None:
    assert len({stem(word) for word in ("note", "not", "pay", "play", "ship", "shop")}) == 6


def test_a_text_with_a_greeting_stands_for_itself() -> None:
    """Of every template: nothing that the check sees is in a greeting."""
    for number in range(150):
        task = task_of(number)
        wording = Wording(task.setting.open().domain)
        for phase in task.phases:
            slots = [(f"{{{name}}}",) for name in phase.slots_of_request]
            assert wording.objection(phase.request, f"Ahem! {phase.request}", slots) is None
