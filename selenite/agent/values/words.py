"""Texts of each sort: names, places, titles, notes."""

from __future__ import annotations

import random
import tomllib
from collections.abc import Callable
from importlib.resources import files

_FILE = tomllib.loads(files(__package__).joinpath("words.toml").read_text(encoding="utf-8"))
_LISTS = {
    name: text.strip().split("\n" if name == "reasons" else None) for name, text in _FILE.items()
}
_LETTERS = "ABCDEFGHJKLMNPRSTUVWXYZ"  # none that looks like a digit

Draw = Callable[[random.Random], str]


def _one(name: str) -> Draw:
    words = _LISTS[name]
    return lambda rng: rng.choice(words)


_given, _family, _street_name = _one("given"), _one("family"), _one("streets")
_adjective, _noun = _one("adjectives"), _one("nouns")


def _person(rng: random.Random) -> str:
    return f"{_given(rng)} {_family(rng)}"


def _email(rng: random.Random) -> str:
    return f"{_given(rng)}.{_family(rng)}{rng.randint(1, 99)}@example.org".lower()


def _phone(rng: random.Random) -> str:
    return f"+{rng.randint(30, 99)} {rng.randint(100, 999)} {rng.randint(1000, 9999)}"


def _street(rng: random.Random) -> str:
    return f"{rng.randint(1, 180)} {_street_name(rng)} {rng.choice(('Street', 'Road', 'Lane'))}"


def _title(rng: random.Random) -> str:
    return f"{_adjective(rng)} {_noun(rng)}".capitalize()


def _company(rng: random.Random) -> str:
    return f"{_family(rng)} {_noun(rng).capitalize()} {rng.choice(('Ltd', 'AG', 'Co'))}"


def _code(rng: random.Random) -> str:
    return "".join(rng.choice(_LETTERS) for _ in range(3)) + str(rng.randint(100, 999))


def _place(rng: random.Random) -> str:
    return f"{_noun(rng).capitalize()} {rng.randint(1, 40)}{rng.choice('ABCD')}"


def _url(rng: random.Random) -> str:
    return f"https://{_adjective(rng)}-{_noun(rng)}.example.com"


SORTS: dict[str, Draw] = {
    "person": _person,
    "email": _email,
    "phone": _phone,
    "street": _street,
    "title": _title,
    "company": _company,
    "code": _code,
    "place": _place,
    "url": _url,
    "note": _one("reasons"),
    "city": _one("cities"),
    "country": _one("countries"),
    "colour": _one("colours"),
    "language": _one("languages"),
    "tag": _adjective,
}
"""What draws a text of each sort."""
