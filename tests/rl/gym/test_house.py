"""A house to look after: solutions earn everything, what is half done or half told nothing."""

from __future__ import annotations

import dataclasses
import json
import random
import re
from collections.abc import Sequence
from statistics import mean

import pytest

from selenite.rl.gym.audit import SPEAKERS, Agent, attempt, audit
from selenite.rl.gym.environment import HELD_OUT, SHOWN, Demonstrating, Environment
from selenite.rl.gym.house.environment import HouseKeeping
from selenite.rl.gym.house.house import COLDEST, DEVICES, ROOMS, STATES, TOOLS, WARMEST, House
from selenite.rl.gym.house.requests import side_of
from selenite.types import Message, ToolCall, ToolSpec

NUMBERS = [*range(200), *range(SHOWN, SHOWN + 100), *range(HELD_OUT, HELD_OUT + 200)]
LEVELS = (1, 2, 3)
_TEMPERATURE = ("set_temperature", "read_temperature")


def earned(level: int, number: int, turns: Sequence[Message]) -> dict[str, float]:
    episode = HouseKeeping(level).begin(number)
    for turn in turns:
        episode.reply(turn)
    score = episode.score()
    return {check.name: check.value for check in score.checks} | {"": score.value}


def call(name: str, **arguments: object) -> Message:
    found = ToolCall(name, json.dumps(arguments), f"functions.{name}:0")
    return Message("assistant", "", tool_calls=(found,))


def places(number: int) -> set[tuple[str, str]]:
    """What a task is about: rooms, and the device where there is one."""
    found = set()
    for turn in HouseKeeping(3).solution(number):
        for made in turn.tool_calls:
            given = json.loads(made.arguments)
            found.add((given["room"], given.get("device", made.name)))
    return found


def rooms(turns: Sequence[Message]) -> list[str]:
    return [json.loads(c.arguments)["room"] for turn in turns for c in turn.tool_calls]


def test_it_is_an_environment_that_can_do_its_tasks() -> None:
    environment: Environment = HouseKeeping(1)
    assert isinstance(environment, Demonstrating)


@pytest.mark.parametrize("level", LEVELS)
def test_solutions_earn_everything(level: int) -> None:
    for number in NUMBERS:
        assert earned(level, number, HouseKeeping(level).solution(number))[""] == 1


@pytest.mark.parametrize("level", LEVELS)
def test_the_same_number_is_the_same_task(level: int) -> None:
    for number in NUMBERS[::20]:
        one, other = (HouseKeeping(level).begin(number) for _ in range(2))
        assert one.opening == other.opening
        asked = call("read_temperature", room="attic")
        assert [m.content for m in one.reply(asked)] == [m.content for m in other.reply(asked)]
    assert HouseKeeping(level, seed=1).begin(0).opening != HouseKeeping(level).begin(0).opening


def test_who_sees_a_place() -> None:
    """Acting meets what no lesson shows; neither has what is held out, of which each held-out task
    has some."""
    shown = set().union(*(places(SHOWN + number) for number in range(1500)))
    acted = set().union(*(places(number) for number in range(1500)))
    held_out = set().union(*(places(HELD_OUT + number) for number in range(1500)))
    every = [(room, thing) for room in ROOMS for thing in (*DEVICES, *_TEMPERATURE)]
    by_side = {
        side: {place for place in every if side_of(*place) == side}
        for side in ("shown", "met", "held out")
    }
    assert shown == by_side["shown"]
    assert acted == by_side["shown"] | by_side["met"]
    assert held_out >= by_side["held out"]
    for number in range(HELD_OUT, HELD_OUT + 1500):
        assert places(number) & by_side["held out"], number
    for place in (*zip(ROOMS), *zip((*DEVICES, *_TEMPERATURE))):
        for side, own in by_side.items():
            assert any(place[0] in known for known in own), (place, side)


@pytest.mark.parametrize("level", LEVELS)
def test_a_solution_without_a_turn_earns_nothing(level: int) -> None:
    for number in NUMBERS:
        turns = HouseKeeping(level).solution(number)
        for left_out in range(len(turns)):
            some = [turn for place, turn in enumerate(turns) if place != left_out]
            assert earned(level, number, some)[""] == 0, (number, left_out)


def test_more_than_was_asked_for_earns_nothing() -> None:
    for number in NUMBERS:
        *acts, said = HouseKeeping(3).solution(number)
        named = {json.loads(c.arguments)["room"] for turn in acts for c in turn.tool_calls}
        room = next(room for room in ROOMS if room not in named)
        switched = [call("switch", room=room, device="fan", state=state) for state in STATES]
        results = [earned(3, number, [*acts, one, said]) for one in switched]
        # One of the two changes nothing.
        assert sorted(result["house"] for result in results) == [0, 1]


def test_what_is_told_is_what_was_read() -> None:
    seen = 0
    for number in NUMBERS:
        *acts, said = HouseKeeping(3).solution(number)
        degrees = re.findall(r"It is (\d+) degrees", said.content)
        if degrees:
            seen += 1
            for wrong in (f"It is {int(degrees[0]) + 1}.", f"{said.content} Or 99.", "It is warm."):
                told = dataclasses.replace(said, content=wrong)
                assert earned(3, number, [*acts, told])["told"] == 0
            for wrong in (degrees[0], f"It is surely not -{degrees[0]} there.", "9" * 5000):
                told = dataclasses.replace(said, content=wrong)
                assert earned(3, number, [*acts, told])[""] == 0
            told = dataclasses.replace(said, content=f"{degrees[0]}, {rooms(acts)[0]}")
            assert earned(3, number, [*acts, told])[""] == 1
            unread = [t for t in acts if t.tool_calls[0].name != "read_temperature"]
            assert earned(3, number, [*unread, said])["looked"] == 0
    assert seen > 50


@pytest.mark.parametrize("said", ["I refuse.", ".", "Done.", "On it."])
def test_an_answer_is_about_what_was_done(said: str) -> None:
    for number in NUMBERS:
        *acts, _ = HouseKeeping(3).solution(number)
        assert earned(3, number, [*acts, Message("assistant", said)])["named"] == 0


def test_acting_before_looking_earns_nothing() -> None:
    """In the turn that reads, or to take it back once it was wrong."""
    seen = 0
    for number in NUMBERS:
        look, *acts, said = HouseKeeping(3).solution(number)
        if not said.content.endswith(("so the heater is on.", "so the heater stays off.")):
            continue
        seen += 1
        (read,) = look.tool_calls
        room = json.loads(read.arguments)["room"]
        on, off = (call("switch", room=room, device="heater", state=s) for s in ("on", "off"))
        both = Message("assistant", "", tool_calls=(read, on.tool_calls[0]))
        after = [] if acts else [off]
        assert earned(3, number, [both, *after, said])["house"] == 0
        if not acts:
            assert earned(3, number, [look, on, off, said])["house"] == 0
    assert seen > 30


@pytest.mark.parametrize(
    "turn",
    [
        call("switch", room="kitchen", device="lamp"),
        call("switch", room="moon", device="lamp", state="on"),
        call("switch", room="kitchen", device="lamp", state="on", color="red"),
        call("set_temperature", room="kitchen", degrees=WARMEST + 1),
        call("set_temperature", room="kitchen", degrees="20"),
        call("read_temperature"),
        call("open_door", room="kitchen"),
        Message("assistant", "", tool_calls=(ToolCall("switch", "{", "functions.switch:0"),)),
        Message("assistant", "", tool_calls=(ToolCall("switch", "[1]", "functions.switch:0"),)),
    ],
    ids=str,
)
def test_a_wrong_call_changes_nothing_and_says_why(turn: Message) -> None:
    house = House.draw(random.Random(0))
    before = house.copy()
    (made,) = turn.tool_calls
    assert json.loads(house.do(made))["error"]
    assert house == before
    episode = HouseKeeping(1).begin(0)
    (result,) = episode.reply(turn)
    assert result.role == "tool"
    assert result.tool_call_id == made.id


def test_calls_do_what_they_say() -> None:
    house = House.draw(random.Random(1))
    for room in ROOMS:
        for device in DEVICES:
            for state in STATES:
                (made,) = call("switch", room=room, device=device, state=state).tool_calls
                assert json.loads(house.do(made)) == {"state": state}
                assert house.devices[room, device] == state
        for degrees in (COLDEST, WARMEST):
            (made,) = call("set_temperature", room=room, degrees=degrees).tool_calls
            assert json.loads(house.do(made)) == {"degrees": degrees}
            (made,) = call("read_temperature", room=room).tool_calls
            assert json.loads(house.do(made)) == {"degrees": degrees}


def _calling(name: str, says: str) -> Agent:
    """Calls one tool with anything that fits, then says something."""

    def agent(
        messages: Sequence[Message], tools: Sequence[ToolSpec], rng: random.Random
    ) -> Message:
        if messages[-1].role == "tool":
            return Message("assistant", says)
        values = {
            "room": rng.choice(ROOMS),
            "device": rng.choice(DEVICES),
            "state": rng.choice(STATES),
            "degrees": rng.randint(COLDEST, WARMEST),
        }
        (spec,) = (tool for tool in TOOLS if tool.name == name)
        return call(name, **{key: values[key] for key in spec.parameters["properties"]})

    return agent


@pytest.mark.parametrize("level", LEVELS)
def test_who_does_not_try_earns_nothing(level: int) -> None:
    found = audit(HouseKeeping(level), NUMBERS, SPEAKERS)
    assert max(found.values()) == 0, found


@pytest.mark.parametrize("name", [tool.name for tool in TOOLS])
@pytest.mark.parametrize("says", ["Done.", "It is 20 degrees."])
def test_who_calls_anything_earns_little(name: str, says: str) -> None:
    agent = _calling(name, says)
    assert mean(attempt(HouseKeeping(3), number, agent) for number in NUMBERS) < 0.03
