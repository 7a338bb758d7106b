"""Episodes: who knows the solution passes every judge, bad agents do not, users invent nothing."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

import pytest

from selenite.agent.episodes.defects import Defect
from selenite.agent.episodes.episode import play, play_script
from selenite.agent.episodes.scripted import ScriptedAgent
from selenite.agent.episodes.style import agent_style
from selenite.agent.episodes.trajectory import Trajectory, Turn
from selenite.agent.judges import replay, rubric
from selenite.agent.judges.verdict import judge
from selenite.agent.randomness import stream
from selenite.agent.tasks.author import make_task
from selenite.agent.tasks.task import Task, TaskClass
from selenite.agent.users.persona import persona
from selenite.agent.users.user import CardUser
from selenite.agent.world.reply import Code, Reply
from selenite.agent.world.world import Event, World
from selenite.types import Message, ToolCall

DOMAINS = range(120)


@pytest.fixture(scope="module")
def trajectories() -> list[Trajectory]:
    found = [play_script(make_task(6, number, DOMAINS)) for number in range(500)]
    return [trajectory for trajectory in found if trajectory is not None]


def test_scripted_agents_pass_and_replay(trajectories: list[Trajectory]) -> None:
    assert len(trajectories) == 500
    rejected = [(t.id, verdict.faults) for t in trajectories if not (verdict := judge(t)).passes]
    assert len(rejected) <= 5, rejected[:3]  # 99 percent; each of them was replayed


@pytest.mark.slow
def test_a_thousand_others_replay() -> None:
    for number in range(1000):
        trajectory = play_script(make_task(8, number, range(400)))
        assert trajectory is not None
        assert not replay.faults(trajectory), trajectory.id


def test_every_class_looks_as_it_should(trajectories: list[Trajectory]) -> None:
    codes: dict[TaskClass, Counter[Code]] = defaultdict(Counter)
    parallel = Counter[TaskClass]()
    for trajectory in trajectories:
        cls = trajectory.task.cls
        codes[cls].update(e.reply.code for e in trajectory.events if e.reply.code)
        parallel[cls] += any(len(message.tool_calls) > 1 for message in trajectory.messages)
        if cls is TaskClass.REPAIR:
            assert len(trajectory.untrained) == 1
        if cls is TaskClass.CHANGE_OF_MIND:
            assert sum(message.role == "user" for message in trajectory.messages) >= 2
    assert codes[TaskClass.CONFLICT].keys() == {Code.CONFLICT}
    assert codes[TaskClass.REPAIR].keys() == {Code.INVALID_ARGUMENT}
    assert {Code.UNAVAILABLE, Code.RATE_LIMITED} <= codes[TaskClass.TRANSIENT].keys()
    assert codes[TaskClass.OUTAGE].keys() == {Code.UNAVAILABLE}
    assert codes[TaskClass.DENIED].keys() == {Code.PERMISSION_DENIED}
    assert not codes[TaskClass.CLEAN]
    assert parallel[TaskClass.PARALLEL] > 25


def calling(whole: Trajectory, *batches: Sequence[Event]) -> Trajectory:
    """The trajectory with other calls: those of a batch in one message."""
    messages = list(whole.messages[:2])
    for batch in batches:
        calls = (ToolCall(e.tool, json.dumps(dict(e.arguments)), "") for e in batch)
        messages.append(Message("assistant", "", tool_calls=tuple(calls)))
    events = tuple(event for batch in batches for event in batch)
    return replace(whole, messages=(*messages, whole.messages[-1]), events=events)


@pytest.mark.parametrize(("template", "right"), [("outage", range(2, 6)), ("denied", range(1, 3))])
def test_what_fails_for_good_is_tried_first_and_not_for_ever(
    trajectories: list[Trajectory], template: str, right: range
) -> None:
    whole = next(t for t in trajectories if t.task.template == template)
    failed = next(e for e in whole.events if not e.reply.is_ok)
    done = [[e] for e in whole.events if e.reply.is_ok]  # the last one hands the case over
    assert sum(not e.reply.is_ok for e in whole.events) == {"outage": 3, "denied": 1}[template]
    for tries in range(9):
        before = calling(whole, *done[:-1], *[[failed]] * tries, done[-1])
        assert (not list(rubric.tried(before))) is (tries in right), tries
        assert list(rubric.tried(calling(whole, *done, *[[failed]] * tries)))
        beside = calling(whole, *done[:-1], [*[failed] * tries, *done[-1]])
        assert list(rubric.tried(beside))
        at_once = calling(whole, *done[:-1], [failed] * tries, done[-1])
        assert (not list(rubric.tried(at_once))) is (tries > 0 and 1 in right)
    assert "colleague" in whole.messages[-1].content
    assert whole.task.setting.faults.lasting.keys() >= {failed.tool}


@pytest.mark.parametrize(
    "text",
    [
        "My role does not have the permission for this, so I passed it on to a specialist.",
        "The service is down at the moment; I tried {tries} times. Our support has the case now.",
        "The service is unavailable, nothing was changed; somebody will come back to you.",
        "I could not do it. The case is now with a human.",
    ],
)
def test_a_refusal_may_be_told_in_many_words(trajectories: list[Trajectory], text: str) -> None:
    for template in ("outage", "denied"):
        whole = next(t for t in trajectories if t.task.template == template)
        tries = sum(not e.reply.is_ok for e in whole.events)
        last = replace(whole.messages[-1], content=text.format(tries=tries))
        assert judge(replace(whole, messages=(*whole.messages[:-1], last))).passes
        more = replace(last, content=f"{last.content} I asked 17 times.")
        assert judge(replace(whole, messages=(*whole.messages[:-1], more))).reason == "faithful"


def test_an_answer_counts_from_its_wish_on(trajectories: list[Trajectory]) -> None:
    whole = next(t for t in trajectories if t.stages and t.task.phases[1].answers)
    assert not list(rubric.said(whole))
    last, early = whole.messages[-1], whole.messages[whole.stages[0].message - 1]
    place = whole.messages.index(early)
    moved = list(whole.messages)
    moved[place] = replace(early, content=f"{early.content} {last.content}")
    moved[-1] = replace(last, content="As I said.")
    assert list(rubric.said(replace(whole, messages=tuple(moved))))


def test_who_babbles_has_not_answered(trajectories: list[Trajectory]) -> None:
    """All numbers up to 200 have the answer among them; so has a guess without a look."""
    asked = [t for t in trajectories if t.task.phases[0].answers and t.events and not t.stages]
    numbers = " ".join(map(str, range(200)))
    assert len(asked) > 10
    for whole in asked:
        assert not list(rubric.said(whole))
        last = whole.messages[-1]
        long = replace(last, content=f"{last.content} {numbers}")
        assert list(rubric.said(replace(whole, messages=(*whole.messages[:-1], long))))
        (fault, *_) = rubric.said(replace(whole, events=()))
        assert fault.endswith("was not looked up")


def test_a_move_that_nobody_asked_for_is_one_although_it_is_undone(
    trajectories: list[Trajectory],
) -> None:
    found = 0
    for whole in trajectories:
        wanted = {step.tool for step in whole.task.steps}
        world = whole.task.setting.open()
        for tool in whole.domain.tools:
            if tool.family != "move" or tool.name in wanted:
                continue
            mine = [t for t in whole.domain.tools if t.name in wanted]
            if any((t.entity, t.verb) == (tool.entity, tool.verb) for t in mine):
                continue
            for id in world.records.of(tool.entity):
                trial = whole.task.setting.open()
                if trial.call(tool.name, {tool.param_of("id").name: id}).is_ok:
                    other = replace(whole, events=(*whole.events, trial.events[0]))
                    said = f"{tool.name}, which nobody asked for"
                    assert said in list(rubric.detour(other)), whole.id
                    found += 1
                    break
    assert found > 100


def deletion(trajectories: list[Trajectory]) -> tuple[Trajectory, int]:
    """One that asked before it deleted, and the place of the question."""
    for whole in trajectories:
        if whole.task.template == "delete" and whole.task.confirms and whole.task.cls == "clean":
            return whole, next(
                i for i, m in enumerate(whole.messages) if "?" in m.content and i > 1
            )
    raise AssertionError("no deletion")


@pytest.mark.parametrize(
    ("question", "is_consent"),
    [
        ("Shall I really delete {id}?", True),
        ("Do you want me to remove it for good?", True),
        ("Should I cancel {id} now?", True),
        ("Should I look {id} up first?", False),
        ("Should I look the record up first?", False),
        ("Shall I delete XY-0001?", False),
        ("I delete {id} now.", False),
    ],
)
def test_a_yes_is_to_what_was_asked(
    trajectories: list[Trajectory], question: str, is_consent: bool
) -> None:
    whole, place = deletion(trajectories)
    assert not list(rubric.confirmed(whole))
    delete = whole.events[-1]
    (id,) = delete.arguments.values()
    other = list(whole.messages)
    other[place] = replace(other[place], content=question.format(id=id))
    assert (not list(rubric.confirmed(replace(whole, messages=tuple(other))))) is is_consent


@pytest.mark.parametrize(
    ("code", "changes", "is_right"),
    [
        (Code.UNAVAILABLE, {}, True),
        (Code.INVALID_ARGUMENT, {"id": 7}, True),
        (None, {"id": "XY-0002"}, False),
    ],
)
def test_one_yes_is_for_one_deletion_however_often_it_is_tried(
    trajectories: list[Trajectory], code: Code | None, changes: dict[str, object], is_right: bool
) -> None:
    whole, place = deletion(trajectories)
    delete = whole.events[-1]
    (name,) = delete.arguments
    arguments = {name: changes.get("id", delete.arguments[name])}
    first = replace(delete, reply=Reply({}, code), arguments=arguments)
    calls = [[e] for e in (*whole.events[:-1], first, delete)]
    other = calling(whole, *calls)
    asked = (*other.messages[:2], *whole.messages[place : place + 2], *other.messages[2:])
    assert (not list(rubric.confirmed(replace(other, messages=asked)))) is is_right


class Null:
    """Says one thing and does nothing."""

    def __init__(self, text: str) -> None:
        self._text = text

    def act(self, messages: Sequence[Message]) -> Turn:
        return Turn(self._text)


class Late:
    """Calls the first wish done, and does it with the second one."""

    def __init__(self, task: Task, world: World) -> None:
        self._agent = ScriptedAgent(task, agent_style(0), world, stream(0, "agent"))
        self._has_lied = False

    def act(self, messages: Sequence[Message]) -> Turn:
        if not self._has_lied:
            self._has_lied = True
            return Turn("It is all taken care of.")
        return self._agent.act(messages)


def test_each_wish_must_be_done_before_the_next_one(trajectories: list[Trajectory]) -> None:
    late = 0
    for whole in trajectories:
        task = whole.task
        if len(task.phases) == 1:
            assert whole.stages == task.milestones == ()
            continue
        assert len(whole.stages) == len(task.milestones) == len(task.phases) - 1
        assert not list(rubric.state(whole))
        if not task.milestones[0].predicates:
            continue
        world = task.setting.open()
        user = CardUser(task, persona(0), world, stream(0, "user"))
        other = play(task, world, Late(task, world), user, agent_style(0))
        assert any("wish 0: " in fault for fault in rubric.state(other)), task.id
        late += not task.goal.unmet(other.before, other.after)
    assert late > 2  # that only the time of it was wrong


def play_with(task: Task, agent: Null) -> Trajectory:
    world = task.setting.open()
    user = CardUser(task, persona(0), world, stream(0, "user"))
    return play(task, world, agent, user, agent_style(0))


def test_an_agent_that_does_nothing_succeeds_only_where_nothing_is_to_do() -> None:
    for number in range(200):
        task = make_task(6, number, DOMAINS)
        verdict = judge(play_with(task, Null("Certainly.")))
        assert verdict.passes is (task.template == "chat"), (task.id, verdict)


@pytest.mark.parametrize("defect", Defect)
def test_judges_find_every_defect(defect: Defect, trajectories: list[Trajectory]) -> None:
    found = [play_script(whole.task, defect) for whole in trajectories]
    spoilt = [trajectory for trajectory in found if trajectory is not None]
    assert len(spoilt) > 5
    missed = [trajectory.id for trajectory in spoilt if judge(trajectory).passes]
    assert not missed


def test_judges_find_what_was_tampered_with(trajectories: list[Trajectory]) -> None:
    whole = next(t for t in trajectories if t.task.cls is TaskClass.CLEAN and len(t.events) > 1)
    event = whole.events[-1]
    other = replace(event, reply=Reply({**event.reply.content, "more": 1}))
    for spoilt, reason in (
        (replace(whole, events=(*whole.events[:-1], other)), "replay"),
        (replace(whole, events=(*whole.events[:-1], replace(event, after="0"))), "replay"),
        (replace(whole, messages=tampered(whole)), "replay"),
        (replace(whole, messages=whole.messages[:-1]), "form"),
        (replace(whole, messages=(*whole.messages[:-1], Message("assistant", ""))), "form"),
        (replace(whole, ended="patience"), "rubric"),
        (said(whole, "It costs 98765 in all, see XYZ-4711."), "faithful"),
        (said(whole, "Well. " * 400), "style"),
    ):
        assert judge(spoilt).reason == reason


def tampered(trajectory: Trajectory) -> tuple[Message, ...]:
    """The last result of a tool is another than the world gave."""
    place = max(i for i, m in enumerate(trajectory.messages) if m.role == "tool")
    messages = list(trajectory.messages)
    messages[place] = replace(messages[place], content='{"ok": true}')
    return tuple(messages)


def said(trajectory: Trajectory, text: str) -> Trajectory:
    last = trajectory.messages[-1]
    changed = replace(last, content=f"{last.content} {text}")
    return replace(trajectory, messages=(*trajectory.messages[:-1], changed))


# --- users


def values_in(text: str) -> set[str]:
    """What could be a value: numbers, those of ids too, and addresses."""
    return set(re.findall(r"\d[\d.,:]*\d|\d|\S+@\S+\w", text))


def test_a_user_says_nothing_that_is_not_on_the_card(trajectories: list[Trajectory]) -> None:
    for trajectory in trajectories:
        task, world = trajectory.task, trajectory.task.setting.open()
        card = " ".join(
            form
            for slot in task.slots.values()
            for value in (slot.value, task.mistaken.get(slot.name, slot.value))
            for form in slot.kind.forms(value, world.today)
        )
        words = " ".join(phase.request for phase in task.phases)
        known = values_in(f"{card} {words}")
        for message in trajectory.messages:
            if message.role == "user":
                assert values_in(message.content) <= known | {"."}, (trajectory.id, message.content)


def test_a_user_waits_for_the_report_and_leaves_when_it_comes() -> None:
    task = next(t for n in range(200) if (t := make_task(6, n, DOMAINS)).withheld)
    user = CardUser(task, persona(1), task.setting.open(), stream(0, "user"))
    user.open()
    slot = task.slots[min(task.withheld)]
    assert slot.name not in user.said
    answer = user.reply(f"What is the {slot.words}?")
    assert answer is not None
    assert slot.name in user.said
    assert user.reply("One moment, let me look.") is not None
    assert user.ended == ""
    assert user.reply("It is done.") is None
    assert user.ended == "done"


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("It is done. Is there anything else I can help you with?", True),
        ("It is done. Let me know if you need anything else.", True),
        ("I'll take care of that.", False),
        ("Let me check that for you.", False),
    ],
)
def test_a_user_understands_how_people_end_and_delay(text: str, ends: bool) -> None:
    task = next(t for n in range(200) if (t := make_task(6, n, DOMAINS)).cls is TaskClass.PARALLEL)
    user = CardUser(task, persona(1), task.setting.open(), stream(0, "user"))
    user.open()
    assert (user.reply(text) is None) is ends


@pytest.mark.parametrize(
    "question",
    ["Please tell me the {words}.", "Which {words} should I set?", "What are the new values?"],
)
def test_a_user_understands_several_ways_to_ask(question: str) -> None:
    task = next(t for n in range(400) if (t := make_task(6, n, DOMAINS)).withheld)
    name = min(task.withheld)
    user = CardUser(task, persona(1), task.setting.open(), stream(0, "user"))
    user.open()
    answer = user.reply(question.format(words=task.slots[name].words.removeprefix("new ")))
    assert answer is not None
    assert name in user.said


def test_a_user_loses_patience() -> None:
    task = next(t for n in range(200) if (t := make_task(6, n, DOMAINS)).steps)
    user = CardUser(task, persona(1), task.setting.open(), stream(0, "user"))
    user.open()
    turns = 0
    while user.reply("What is the colour of the moon?") is not None:
        turns += 1
    assert user.ended == "patience"
    assert turns == persona(1).patience


def test_people_and_agents_are_many() -> None:
    task = make_task(6, 3, DOMAINS)
    world = task.setting.open()
    assert len({agent_style(n).system(task, world) for n in range(2000)}) > 1500
    traits = {replace(persona(n), number=0) for n in range(400)}
    assert len(traits) > 200
    texts = {CardUser(task, persona(n), world, stream(n, "user")).open() for n in range(400)}
    assert len(texts) > 150
