"""Rooms with devices and a temperature, and the three tools that look after them."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selenite.chat.schema import ToolSchemas
from selenite.types import ToolCall, ToolSpec

ROOMS = ("kitchen", "bedroom", "bathroom", "study", "hall", "attic", "cellar", "garage")
DEVICES = ("lamp", "fan", "heater", "radio")
STATES = ("off", "on")
COLDEST, WARMEST = 12, 27  # degrees that a room may have, or be set to


def _tool(name: str, description: str, **properties: dict[str, Any]) -> ToolSpec:
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return ToolSpec(name, description, schema)


_TEXT, _INTEGER = {"type": "string"}, {"type": "integer"}

# Without their choices: a small model would take a room from the list instead of the request.
TOOLS = (
    _tool("switch", "Switches a device on or off.", room=_TEXT, device=_TEXT, state=_TEXT),
    _tool("set_temperature", "Sets a temperature.", room=_TEXT, degrees=_INTEGER),
    _tool("read_temperature", "Reads a temperature.", room=_TEXT),
)
_SCHEMAS = ToolSchemas(TOOLS)
_CHOICES: Mapping[str, Sequence[Any]] = {
    "room": ROOMS,
    "device": DEVICES,
    "state": STATES,
    "degrees": range(COLDEST, WARMEST + 1),
}


@dataclass
class House:
    """What is on, and how warm it is."""

    devices: dict[tuple[str, str], str]  # the state of a room's device
    degrees: dict[str, int]  # of a room

    @classmethod
    def draw(cls, rng: random.Random) -> House:
        """Any house."""
        return cls(
            {(room, device): rng.choice(STATES) for room in ROOMS for device in DEVICES},
            {room: rng.randint(COLDEST, WARMEST) for room in ROOMS},
        )

    def copy(self) -> House:
        """Another one in the same state."""
        return House(dict(self.devices), dict(self.degrees))

    def lies_between(self, one: House, other: House) -> bool:
        """Whether everything is as in one of two others."""
        devices = (one.devices, other.devices)
        degrees = (one.degrees, other.degrees)
        return all(
            state in (known[place] for known in devices) for place, state in self.devices.items()
        ) and all(warm in (known[room] for known in degrees) for room, warm in self.degrees.items())

    def do(self, call: ToolCall) -> str:
        """Carries out a call; returns its result, or what is wrong with it, as JSON."""
        checked = _SCHEMAS.check(call)
        if not checked.valid:
            return json.dumps({"error": checked.detail})
        given = json.loads(call.arguments)
        for name, value in given.items():
            if value not in _CHOICES[name]:
                listed = ", ".join(map(str, _CHOICES[name]))
                return json.dumps({"error": f"{name} {value}: must be one of {listed}"})
        room = given["room"]
        if call.name == "switch":
            self.devices[room, given["device"]] = given["state"]
            return json.dumps({"state": given["state"]})
        if call.name == "set_temperature":
            self.degrees[room] = given["degrees"]
        return json.dumps({"degrees": self.degrees[room]})
