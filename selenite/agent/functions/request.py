"""What a user asks of a function, and the arguments that answer it."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from selenite.agent.functions.concept import CLAUSE, SLOT, Parameter, constants, pools
from selenite.agent.functions.signature import Function, typed
from selenite.agent.values.kind import joined

_NUMBERS = (
    *("zero", "one", "two", "three", "four", "five", "six"),
    *("seven", "eight", "nine", "ten", "eleven", "twelve"),
)


@dataclass(frozen=True)
class Request:
    """A text, and the arguments of the call for it (several: of the calls)."""

    text: str
    calls: tuple[Mapping[str, Any], ...]
    begins_with_value: bool = False  # of a parameter, whose letters must stay as they are


def make_request(function: Function, rng: random.Random, calls: int = 1) -> Request | None:
    """Draws values and words for one call, or for several that differ in one parameter.

    None where several cannot be meant: no parameter can be named more than once.
    """
    known = {p.name[0]: p for p in function.concept.parameters}
    ask = rng.choice(function.concept.ask)
    spoken = CLAUSE.sub(lambda found: _clause(found.group(1), function, rng), ask)
    settings = dict[str, Any]()
    for found in _MARK.findall(spoken):
        name, value = found.split("=", 1)
        settings[name] = typed(value, known[name].type)
    spoken = _MARK.sub("", spoken)
    words, values = dict[str, str](), dict[str, Any](settings)
    fan: tuple[str, list[Any]] | None = None
    for name in SLOT.findall(spoken):
        parameter = known[name]
        if calls > 1 and fan is None and parameter.several and parameter.type == "string":
            drawn = _distinct(parameter, calls, rng)
            fan = name, [value for value, _ in drawn]
            words[name] = joined([word for _, word in drawn])
        else:
            values[name], words[name] = _other(parameter, set(words.values()), rng)
    if calls > 1 and fan is None:
        return None
    text = SLOT.sub(lambda found: words[found.group(1)], _polished(spoken))
    every = [values] if fan is None else [{**values, fan[0]: value} for value in fan[1]]
    calls_made = tuple(_arguments(function, each) for each in every)
    return Request(text, calls_made, _polished(spoken).startswith("{"))


def spelt(
    function: Function, opening: str, rng: random.Random, left_out: int = 0
) -> tuple[Request, tuple[Parameter, ...]] | None:
    """A wish and its values one by one, but for ``left_out`` of the required ones; and these.

    None where nothing would be said, or left out, or a value has no words of its own.
    """
    kept = [p for p in function.concept.parameters if p.name[0] in function.names]
    required = [p for p in kept if not p.optional]
    if len(required) <= left_out or any(p.type == "boolean" for p in required):
        return None
    gone = rng.sample(required, left_out)
    others = [p for p in kept if p.optional and p.type != "boolean" and rng.random() < 0.3]
    told = [p for p in required if p not in gone] + others
    rng.shuffle(told)
    values = dict[str, Any]()
    words = list[tuple[str, str]]()
    for parameter in told:
        name = parameter.name[0]
        values[name], word = draw(parameter, rng)
        words.append((rng.choice(parameter.name).replace("_", " "), word))
    form = rng.randrange(4)
    if form == 0:
        text = f"{opening} {', '.join(f'{name}: {word}' for name, word in words)}"
    elif form == 1:
        text = "\n".join([opening, *(f"- {name}: {word}" for name, word in words)])
    elif form == 2:
        text = " ".join([opening, *(f"The {name} is {word}." for name, word in words)])
    else:
        text = f"{opening} Take {joined([f'{word} as the {name}' for name, word in words])}."
    return Request(text, (_arguments(function, values),)), tuple(p for p in required if p in gone)


def once_more(function: Function, request: Request, rng: random.Random) -> Request | None:
    """The request and a second one like it, but for one number or word: "the same for …"."""
    known = {p.name[0]: p for p in function.concept.parameters}
    names = [
        ours
        for ours, theirs in function.names.items()
        if theirs in request.calls[0]
        and not known[ours].optional
        and known[ours].type in ("integer", "number", "string")
    ]
    if not names:
        return None
    name = rng.choice(names)
    value, word = draw(known[name], rng)
    if value == request.calls[0][function.names[name]]:
        return None
    spoken = name.replace("_", " ")
    second = rng.choice(
        [
            f"Then do the same with {spoken} {word}.",
            f"And once more with {spoken} {word}, please.",
            f"I also need it for {spoken} {word}, everything else unchanged.",
            f"Please repeat that with {word} as the {spoken}.",
            f"Also for {spoken} = {word}.",
        ]
    )
    first = request.text if request.text[-1:] in ".?!" else f"{request.text}."
    changed = {**request.calls[0], function.names[name]: value}
    return Request(f"{first} {second}", (request.calls[0], changed))


def draw(parameter: Parameter, rng: random.Random) -> tuple[Any, str]:
    """A value, and how it is said."""
    if parameter.type == "array":
        drawn = _distinct(parameter, rng.randint(*parameter.count), rng)
        return [value for value, _ in drawn], joined([word for _, word in drawn])
    return _draw_one(parameter, rng)


def _other(parameter: Parameter, said: set[str], rng: random.Random) -> tuple[Any, str]:
    """A value that was not said yet, if one is found: nobody travels from Oslo to Oslo."""
    for _ in range(5):
        value, word = draw(parameter, rng)
        if word not in said:
            break
    return value, word


def _draw_one(parameter: Parameter, rng: random.Random) -> tuple[Any, str]:
    kind = parameter.items or parameter.type
    if parameter.choices is not None:
        value = rng.choice(list(parameter.choices))
        return typed(value, kind), rng.choice(parameter.choices[value] or (value,))
    if parameter.low is not None and parameter.high is not None:
        if parameter.low >= 1000 and parameter.high <= 2200:  # a year: neither rounded nor grouped
            year = rng.randint(int(parameter.low), int(parameter.high))
            return (str(year) if kind == "string" else year), str(year)
        return _number(parameter.low, parameter.high, parameter.decimals, kind, rng)
    text = rng.choice(parameter.words or pools()[parameter.pool or ""])
    return text, text


def _number(
    low: float, high: float, decimals: int, kind: str, rng: random.Random
) -> tuple[Any, str]:
    value = rng.uniform(low, high)
    if rng.random() < 0.5 and high > 20:  # people like round numbers
        step = 10 ** max(0, len(str(int(high))) - 2)
        value = min(high, max(low, round(value / step) * step))
    digits = 0 if kind == "integer" else rng.randint(0, decimals)
    if not low <= round(value, digits) <= high:
        digits = decimals
    number: int | float = min(high, max(low, round(value, digits)))
    if float(number).is_integer():
        number = int(number)
    if kind == "string":
        return str(number), str(number)
    if isinstance(number, int) and 0 <= number <= 12 and rng.random() < 0.1:
        return number, _NUMBERS[number]
    if abs(number) >= 1000 and rng.random() < 0.4:
        return number, f"{number:,}"
    return number, str(number)


def _distinct(parameter: Parameter, count: int, rng: random.Random) -> list[tuple[Any, str]]:
    """Values that differ; fewer where there are not so many."""
    found: dict[str, tuple[Any, str]] = {}
    for _ in range(20 * count):
        value, word = _draw_one(parameter, rng)
        found.setdefault(str(value), (value, word))
        if len(found) == count:
            break
    return list(found.values())


_MARK = re.compile("\0([a-z0-9_]+=[^\0]*)\0")


def _clause(clause: str, function: Function, rng: random.Random) -> str:
    """A clause's words where it is said and its parameters are there; settings are marked."""
    words, settings = constants(clause)
    names = [*SLOT.findall(words), *settings]
    if not all(name in function.names for name in names) or rng.random() < 0.35:
        return ""
    return words + "".join(f"\0{name}={value}\0" for name, value in settings.items())


def _arguments(function: Function, values: Mapping[str, Any]) -> dict[str, Any]:
    """In the order of the function's parameters."""
    return {theirs: values[ours] for ours, theirs in function.names.items() if ours in values}


def _polished(text: str) -> str:
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r" ([,.?!])", r"\1", text)
    return re.sub(r",([.?!])", r"\1", text)


def merged(requests: list[Request], rng: random.Random) -> Request:
    """Several requests in one message."""
    texts = [request.text for request in requests]
    form = rng.random()
    if form < 0.2:
        text = "\n".join(f"{number}. {text}" for number, text in enumerate(texts, 1))
    else:
        text = texts[0] if texts[0][-1:] in ".?!" else f"{texts[0]}."
        for request in requests[1:]:
            link = rng.choice(["", "", "Also, ", "And then: ", "In addition, ", "Next, ", "Then "])
            other = request.text
            if link and not request.begins_with_value and not _keeps_capital(other):
                other = other[:1].lower() + other[1:]
            text = f"{text} {link}{other}" if other[-1:] in ".?!" else f"{text} {link}{other}."
    calls = tuple(call for request in requests for call in request.calls)
    return replace(requests[0], text=text, calls=calls)


def _keeps_capital(text: str) -> bool:
    first = text.split(maxsplit=1)[0] if text else ""
    return first in ("I", "I'm", "I'd", "I've", "I'll") or first[1:].lower() != first[1:]
