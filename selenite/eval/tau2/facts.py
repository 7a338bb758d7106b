"""What a user knows and says only when asked: a table of facts, read out of the task by code.

A fact is a value in the user's instructions that has the form of its slot, or that is an argument
of the solution's calls under the slot's name: what identifies somebody or something. Two choices
that instructions mostly leave open are the solution's: the reason, out of those that a tool knows,
and the means of payment. What is wanted is no fact but the wish itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from selenite.eval.tau2.task import Task


@dataclass(frozen=True)
class Slot:
    """A kind of fact."""

    label: str  # as the user and those who ask call it
    asked: str  # pattern of texts that ask for it, lower case
    form: str = ""  # pattern of values; "": they are found by their arguments alone
    arguments: tuple[str, ...] = ()  # names of the arguments that hold them
    is_choice: bool = False  # the solution's, whether the instructions have it or not; no secret


SLOTS: dict[str, Slot] = {
    "name": Slot("name", r"\bname\b", r"\b(?:are|name is) ([A-Z][\w'-]+ [A-Z][\w'-]+)"),
    "zip": Slot("zip code", r"\bzip|postal", r"\b(\d{5})\b", ("zip",)),
    "email": Slot("email address", r"e-?mail", r"([\w.+-]+@[\w-]+\.\w+)", ("email",)),
    "user_id": Slot(
        "user id",
        r"\buser ?(id|name)|\baccount (id|number)|\bcustomer id",
        r"\b([a-z]+_[a-z]+_\d{4})\b",
        ("user_id",),
    ),
    "order_id": Slot(
        "order number",
        r"\border(s|'s)? ?(number|id)|which orders?\b|number of (the|your) order",
        r"(#?W\d{7})\b",
        ("order_id",),
    ),
    "reservation_id": Slot(
        "reservation number",
        r"\b(reservation|booking|confirmation)s? ?(number|id|code)|which (reservation|booking)",
        r"\b((?=[A-Z]*\d)(?=\d*[A-Z])[A-Z0-9]{6})\b",
        ("reservation_id",),
    ),
    "phone": Slot(
        "phone number",
        r"\bphone number|number of your phone",
        r"\b(\d{3}-\d{3}-\d{4})\b",
        ("phone_number",),
    ),
    "birth": Slot("date of birth", r"birth", arguments=("dob",)),
    "reason": Slot("reason", r"\breasons?\b|\bwhy\b", arguments=("reason",), is_choice=True),
    "payment": Slot(
        "means of payment",
        r"\b(payment|refund) (method|source|option)|(method|means) of payment|which (card|payment)|"
        r"how would you like to pay",
        arguments=("payment_method_id", "payment_id"),
        is_choice=True,
    ),
}

QUESTIONS = {name: f"What is your {slot.label}?" for name, slot in SLOTS.items()}
"""One of each slot, which asks for no other."""


@dataclass(frozen=True)
class Fact:
    """``value`` is as the instructions write it."""

    slot: str
    value: str

    @property
    def forms(self) -> frozenset[str]:
        """How calls and texts have it, as a whole and in parts."""
        parts = self.value.split() if self.slot == "name" else []
        marked = [f"#{self.value.removeprefix('#')}"] if self.slot == "order_id" else []
        return frozenset({self.value, self.value.removeprefix("#"), *parts, *marked})


def facts_of(task: Task) -> tuple[Fact, ...]:
    """The table of a task, in the order of the slots."""
    told = "\n".join((task.wish, task.known, task.directions))
    found = dict[Fact, None]()
    for name, slot in SLOTS.items():
        values = [match for match in re.findall(slot.form, told) if slot.form]
        for action in task.actions:
            values += [
                str(value) for key, value in action.arguments.items() if key in slot.arguments
            ]
        if slot.is_choice:
            found |= {Fact(name, re.sub(r"_\d+$", "", v).replace("_", " ")): None for v in values}
            continue
        for value in values:
            written = value if value in told else value.removeprefix("#")
            if len(written) > 2 and re.search(rf"(?<!\w){re.escape(written)}(?!\w)", told):
                found[Fact(name, written)] = None
    return tuple(found)


def slots_asked(text: str) -> list[str]:
    """The slots that a text asks for."""
    return [name for name, slot in SLOTS.items() if re.search(slot.asked, text.lower())]


def without(text: str, facts: tuple[Fact, ...]) -> str:
    """The text with these facts left out."""
    values = {form for fact in facts for form in fact.forms}
    for value in sorted(values, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", "", text)
    return re.sub(r"\s+([,.;:!?]|$)", r"\1", re.sub(r"[ \t]+", " ", text)).strip()
