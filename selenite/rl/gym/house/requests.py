"""What somebody asks of a house, and what doing it takes.

A *place* is a room with a device, or with what is done to its temperature. Half of them are shown
in lessons, a quarter is met when a model acts, and a quarter is held out, each room and each thing
among all three: who knows places by heart does not know the others, but all words of their
requests.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from selenite.rl.gym.house.house import COLDEST, DEVICES, ROOMS, STATES, WARMEST, House
from selenite.types import Message, ToolCall

Side = Literal["shown", "met", "held out"]
_SIDES: tuple[Side, ...] = ("held out", "met", "shown", "shown")
_THINGS = (*DEVICES, "set_temperature", "read_temperature")


@dataclass(frozen=True)
class Wish:
    """A request, and what it takes."""

    text: str
    solution: tuple[Message, ...]  # turns of an agent that does it, each after what it has read
    named: frozenset[str]  # words that the last turn must have
    looked: str | None = None  # a room whose temperature must be read, before anything is changed
    told: int | None = None  # degrees that the last turn must tell, and no other number


Sides = frozenset[Side]
Make = Callable[[random.Random, House, Sides], Wish]
"""From a house as it is; of places on some sides."""


def side_of(room: str, thing: str) -> Side:
    """Who sees a place."""
    return _SIDES[(ROOMS.index(room) + _THINGS.index(thing)) % len(_SIDES)]


def _rooms(tool: str, sides: Sides) -> list[str]:
    return [room for room in ROOMS if side_of(room, tool) in sides]


def _device(rng: random.Random, sides: Sides) -> tuple[str, str]:
    return rng.choice([(r, d) for r in ROOMS for d in DEVICES if side_of(r, d) in sides])


def _call(number: int, name: str, **arguments: Any) -> ToolCall:
    return ToolCall(name, json.dumps(arguments), f"functions.{name}:{number}")


def _turn(*calls: ToolCall) -> Message:
    return Message("assistant", "", tool_calls=calls)


def _said(text: str) -> Message:
    return Message("assistant", text)


_SWITCH = (
    "Switch the {device} in the {room} {state}.",
    "Please turn {state} the {device} in the {room}.",
    "I want the {device} in the {room} {state}.",
    "Can you turn the {device} in the {room} {state}?",
    "In the {room}, turn {state} the {device}.",
)


def switch(rng: random.Random, house: House, sides: Sides) -> Wish:
    """A device that is not as it should be."""
    room, device = _device(rng, sides)
    state = STATES[house.devices[room, device] == "off"]
    call = _call(0, "switch", room=room, device=device, state=state)
    return Wish(
        rng.choice(_SWITCH).format(room=room, device=device, state=state),
        (_turn(call), _said(f"The {device} in the {room} is {state}.")),
        named=frozenset((room, state)),
    )


_SET = (
    "Set the {room} to {degrees} degrees.",
    "Please make it {degrees} degrees in the {room}.",
    "I want {degrees} degrees in the {room}.",
    "Can you set the temperature in the {room} to {degrees}?",
)


def set_temperature(rng: random.Random, house: House, sides: Sides) -> Wish:
    """Another temperature than there is."""
    room = rng.choice(_rooms("set_temperature", sides))
    degrees = rng.choice([d for d in range(COLDEST, WARMEST + 1) if d != house.degrees[room]])
    return Wish(
        rng.choice(_SET).format(room=room, degrees=degrees),
        (
            _turn(_call(0, "set_temperature", room=room, degrees=degrees)),
            _said(f"The {room} is set to {degrees} degrees."),
        ),
        named=frozenset((room,)),
        told=degrees,
    )


_READ = (
    "How warm is it in the {room}?",
    "What is the temperature in the {room}?",
    "Please tell me how many degrees the {room} has.",
    "Is it warm in the {room}?",
)


def read_temperature(rng: random.Random, house: House, sides: Sides) -> Wish:
    """A temperature that must be told."""
    room = rng.choice(_rooms("read_temperature", sides))
    degrees = house.degrees[room]
    return Wish(
        rng.choice(_READ).format(room=room),
        (
            _turn(_call(0, "read_temperature", room=room)),
            _said(f"It is {degrees} degrees in the {room}."),
        ),
        named=frozenset((room,)),
        looked=room,
        told=degrees,
    )


_BOTH = (
    "{first} {second}",
    "Two things. {first} {second}",
    "{first} And another thing: {second}",
)


def both(rng: random.Random, house: House, sides: Sides) -> Wish:
    """Two devices."""
    first = switch(rng, house, sides)
    second = switch(rng, house, sides)
    while second.solution == first.solution:
        second = switch(rng, house, sides)
    (one,), (other,) = first.solution[0].tool_calls, second.solution[0].tool_calls
    calls = _turn(one, _call(1, "switch", **json.loads(other.arguments)))
    said = f"{first.solution[1].content} {second.solution[1].content}"
    return Wish(
        rng.choice(_BOTH).format(first=first.text, second=second.text),
        (calls, _said(said)),
        named=first.named | second.named,
    )


_IF_COLD = (
    "If it is colder than {limit} degrees in the {room}, turn on its heater.",
    "Turn on the heater in the {room}, but only if it is below {limit} degrees.",
    "Please look how warm the {room} is, and turn on its heater if that is below {limit}.",
)


def if_cold(rng: random.Random, house: House, sides: Sides) -> Wish:
    """A heater that depends on the temperature; it is off."""
    # It is about two places, of which only held-out tasks may have one on another side.
    rooms = [
        room
        for room in _rooms("read_temperature", sides)
        if "held out" in sides or side_of(room, "heater") in sides
    ]
    room = rng.choice(rooms)
    house.devices[room, "heater"] = "off"
    degrees = house.degrees[room]
    limit = rng.choice([d for d in range(degrees - 4, degrees + 5) if d != degrees])
    look = _turn(_call(0, "read_temperature", room=room))
    turns: tuple[Message, ...]
    if degrees < limit:
        act = _turn(_call(1, "switch", room=room, device="heater", state="on"))
        turns = (look, act, _said(f"It is {degrees} degrees in the {room}, so the heater is on."))
    else:
        turns = (look, _said(f"It is {degrees} degrees in the {room}, so the heater stays off."))
    return Wish(
        rng.choice(_IF_COLD).format(room=room, limit=limit),
        turns,
        named=frozenset((room,)),
        looked=room,
        told=degrees,
    )


LEVELS: Mapping[int, Sequence[Make]] = {
    1: (switch, set_temperature, read_temperature),
    2: (switch, set_temperature, read_temperature, both),
    3: (switch, set_temperature, read_temperature, both, if_cold),
}
"""What is asked, by level."""
