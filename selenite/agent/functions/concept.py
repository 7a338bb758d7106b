"""What a function is about, what it takes, and how people ask for it: read from ``concepts/``.

    [[function]]
    name = ["fence cost", "cost of a fence"]     # words after the verb, the usual ones first
    verbs = ["estimate", "calculate"]
    module = ["garden"]                          # before the dot, in styles that have one
    does = ["Estimate what a fence costs."]      # descriptions
    wish = "estimate the cost of a fence"        # after "I would like to"
    ask = ["What does a {length} m fence cost[ in {wood}][, painted|painted=true]?"]

Braces hold the value of a parameter, by its first name; what is in brackets is said only where its
parameters are given. ``|name=value`` gives a parameter a value that the words before it stand for.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from selenite.config import Config
from selenite.errors import DataError

_FOLDER = Path(__file__).parent
_WORDS = re.compile(r"[a-z0-9]+( [a-z0-9]+)*")
SLOT = re.compile(r"\{([a-z0-9_]+)\}")
CLAUSE = re.compile(r"\[([^\[\]]*)\]")
_FEWEST = {"does": 3, "ask": 6, "about": 2, "words": 10}

Scalar = str | int | float | bool


class Parameter(Config):
    """A parameter, and what its values are drawn from: exactly one of ``low``/``high``, ``pool``,
    ``words`` and ``choices``."""

    name: tuple[str, ...] = Field(min_length=1)  # snake_case, the usual one first
    type: Literal["string", "integer", "number", "boolean", "array"]
    items: Literal["string", "integer", "number"] | None = None  # of an array
    about: tuple[str, ...]
    missing: str  # the question that an assistant asks where a required one is not given
    optional: bool = False
    default: Scalar | None = None  # of an optional one; None: nothing is said of it
    low: float | None = None
    high: float | None = None
    decimals: int = Field(default=0, ge=0, le=6)
    pool: str | None = None  # of pools.toml
    words: tuple[str, ...] | None = None
    choices: dict[str, tuple[str, ...]] | None = None  # by value, the ways to say it
    is_open: bool = False  # choices are not listed in the schema
    count: tuple[int, int] = (2, 4)  # items of an array
    several: bool = False  # people name several, and mean a call for each

    @model_validator(mode="after")
    def _check(self) -> Self:
        name, kinds = self.name[0], (self.low, self.pool, self.words, self.choices)
        rules = {
            "names must be snake_case": all(re.fullmatch(r"[a-z][a-z0-9_]*", n) for n in self.name),
            "exactly one of low and high, pool, words, choices": (
                sum(kind is not None for kind in kinds) == 1
                and (self.low is None) == (self.high is None)
            ),
            "low must be below high": self.low is None or self.low < (self.high or 0),
            "only an array has items": (self.type == "array") == (self.items is not None),
            "numbers have low and high, or choices": (
                (self.items or self.type) not in ("integer", "number")
                or self.low is not None
                or self.choices is not None
            ),
            "a boolean has the choices true and false": (
                self.type != "boolean" or set(self.choices or ()) == {"true", "false"}
            ),
            "a pool must be one of pools.toml": self.pool is None or self.pool in pools(),
            f"{_FEWEST['about']} descriptions or more": len(self.about) >= _FEWEST["about"],
            f"{_FEWEST['words']} words or more": (
                self.words is None or len(set(self.words)) >= _FEWEST["words"]
            ),
            "an integer has no decimals": self.decimals == 0
            or "integer" not in (self.type, self.items),
            "only an optional one has a default": self.optional or self.default is None,
        }
        broken = [rule for rule, holds in rules.items() if not holds]
        if broken:
            raise ValueError(f"parameter {name}: {'; '.join(broken)}")
        return self


class Concept(Config):
    """A function that may have many names."""

    name: tuple[str, ...] = Field(min_length=1)
    verbs: tuple[str, ...] = Field(min_length=1)
    module: tuple[str, ...] = Field(min_length=1)
    does: tuple[str, ...]
    wish: str
    ask: tuple[str, ...]
    parameters: tuple[Parameter, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        words = (*self.name, *self.verbs, *self.module)
        known = {parameter.name[0]: parameter for parameter in self.parameters}
        rules = {
            "names, verbs and modules must be lower-case words": all(map(_WORDS.fullmatch, words)),
            f"{_FEWEST['does']} descriptions or more": len(set(self.does)) >= _FEWEST["does"],
            f"{_FEWEST['ask']} requests or more": len(set(self.ask)) >= _FEWEST["ask"],
            "names of parameters must differ": len(known) == len(self.parameters),
        }
        broken = [rule for rule, holds in rules.items() if not holds]
        for ask in self.ask:
            broken += [f"{fault} ({ask!r})" for fault in _faults_of(ask, known)]
        said = {slot for ask in self.ask for slot in _slots_of(ask)}
        broken += [f"no request gives {name}" for name in known if name not in said]
        if broken:
            raise ValueError(f"function {self.name[0]!r}: {'; '.join(broken)}")
        return self


def constants(clause: str) -> tuple[str, dict[str, str]]:
    """The words of a clause, and the values that they stand for, by parameter."""
    words, *settings = clause.split("|")
    return words, dict(setting.split("=", 1) for setting in settings)


def _slots_of(ask: str) -> list[str]:
    set_by = [name for clause in CLAUSE.findall(ask) for name in constants(clause)[1]]
    return SLOT.findall(ask) + set_by


def _faults_of(ask: str, known: dict[str, Parameter]) -> Iterator[str]:
    outside = CLAUSE.sub("", ask)
    if any(sign in SLOT.sub("", outside) for sign in "[]{}|"):
        yield "a bracket, brace or bar is out of place"
        return
    slots = _slots_of(ask)
    for slot in sorted(set(slots) - set(known)):
        yield f"{slot} is no parameter"
    if len(slots) != len(set(slots)):
        yield "a parameter is given twice"
    for slot in SLOT.findall(outside):
        if slot in known and known[slot].optional:
            yield f"{slot} is optional, so it belongs into brackets"
    for name, parameter in known.items():
        if not parameter.optional and name not in SLOT.findall(outside):
            yield f"{name} is required, but not given outside of brackets"
    for clause in CLAUSE.findall(ask):
        _, settings = constants(clause)
        for name, value in settings.items():
            choices = known[name].choices if name in known else None
            if choices is not None and value not in choices:
                yield f"{value} is no choice of {name}"
        if not settings and not SLOT.search(clause):
            yield f"the clause {clause!r} gives nothing"


@cache
def pools() -> dict[str, tuple[str, ...]]:
    """Words by pool."""
    table = tomllib.loads((_FOLDER / "pools.toml").read_text(encoding="utf-8"))
    return {name: tuple(dict.fromkeys(words)) for name, words in table.items()}


@cache
def concepts() -> dict[str, tuple[Concept, ...]]:
    """Concepts by topic. Raises ``DataError`` for a file that is broken."""
    return {path.stem: read_topic(path) for path in sorted((_FOLDER / "concepts").glob("*.toml"))}


def read_topic(path: Path) -> tuple[Concept, ...]:
    """The concepts of a file."""
    try:
        table: Any = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{path}: not TOML ({error})") from error
    found, faults = [], []
    for entry in table["function"]:
        try:
            found.append(Concept.model_validate(entry))
        except ValidationError as error:
            faults += [f"{entry.get('name')}: {e['loc']} {e['msg']}" for e in error.errors()]
    if faults:
        raise DataError("\n".join([f"{path}:", *faults]))
    return tuple(found)
