"""Tasks: proved, of every template, and the same whoever makes them."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import pytest

from selenite.agent.randomness import stream
from selenite.agent.tasks.author import RECIPES, Template, make_task, write_task
from selenite.agent.tasks.draft import Unfit
from selenite.agent.tasks.goal import Changed, Goal, Made, Removed
from selenite.agent.tasks.mutations import near_misses
from selenite.agent.tasks.plan import Given, Read, sources_of
from selenite.agent.tasks.prove import call, play, unproved
from selenite.agent.tasks.task import Task, TaskClass
from selenite.agent.world.records import Records
from selenite.agent.world.setting import Setting, known_domain

DOMAINS = range(120)
SEEDS = 40  # of each template
TEMPLATES = sorted(
    {t for recipe in RECIPES.values() for t in (*recipe.templates, *recipe.then)},
    key=lambda template: template.__name__,
)


def of_template(template: Template, count: int) -> list[Task]:
    """Tasks of one template, each in a world of its own."""
    cls = next((c for c, r in RECIPES.items() if template in r.templates), TaskClass.CHANGE_OF_MIND)
    found: list[Task] = []
    for number in range(400 * count):
        rng = stream(11, "test", template.__name__, number)
        setting = Setting(11, number % len(DOMAINS), number)
        first = RECIPES[cls].templates[0] if template not in RECIPES[cls].templates else template
        try:
            task = write_task(number, cls, first, setting, rng)
        except Unfit:
            continue
        if template is first or task.phases[-1].is_amendment:
            found.append(task)
        if len(found) == count:
            return found
    raise AssertionError(f"{template.__name__} fits nowhere")


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.__name__)
def test_a_solution_reaches_its_goal_and_no_near_miss_does(template: Template) -> None:
    kinds = Counter[str]()
    for task in of_template(template, SEEDS):
        assert list(unproved(task)) == []
        whole = play(task, task.steps)
        assert whole.went_as_planned
        assert task.goal.unmet(whole.before, whole.world.records) == []
        if task.goal.predicates:  # doing nothing is not enough
            assert task.goal.unmet(whole.before, task.setting.open().records)
        rng = stream(12, "near", task.number)
        for wrong, calls in near_misses(task, whole.world.domain, whole.world, rng):
            world = task.setting.open()
            for tool, arguments in calls:
                call(world, tool, arguments)
            assert task.goal.unmet(whole.before, world.records), (task.id, wrong)
            kinds[wrong.partition(" ")[0]] += 1
    if any(step.is_write for step in task.steps):
        assert {"without", "call", "one"} <= set(kinds)


def test_every_argument_has_a_source() -> None:
    for number in range(150):
        task = make_task(4, number, DOMAINS)
        for place, step in enumerate(task.steps):
            assert step.sources.keys() == step.arguments.keys()
            for source in step.sources.values():
                for part in sources_of(source):
                    if isinstance(part, Given):
                        assert part.slot in task.slots
                    if isinstance(part, Read):
                        assert part.step < place
                        assert part.step in step.needs
        told = {name for phase in task.phases for name in phase.slots}
        assert told == set(task.slots)  # the user can say all that they know
        assert task.withheld <= told


def test_the_agent_has_the_tools_and_not_the_one_that_is_missing() -> None:
    missing = 0
    for number in range(200):
        task = make_task(4, number, DOMAINS)
        assert {step.tool for step in task.steps} <= set(task.tools)
        assert len(set(task.tools)) == len(task.tools) <= 60
        assert not set(task.forbidden) & set(task.tools)
        missing += bool(task.forbidden)
    assert missing > 2


def text_of(number: int) -> str:
    return json.dumps(make_task(4, number, DOMAINS).record())


def test_a_task_is_the_same_in_whatever_order_and_process() -> None:
    expected = [text_of(number) for number in range(60)]
    assert len(set(expected)) == 60
    assert [text_of(number) for number in reversed(range(60))] == expected[::-1]
    with ProcessPoolExecutor(2) as pool:
        assert list(pool.map(text_of, range(60))) == expected


def test_classes_have_their_shares() -> None:
    found = Counter(make_task(4, number, DOMAINS).cls for number in range(700))
    assert set(found) == set(RECIPES)
    for cls, recipe in RECIPES.items():
        assert found[cls] > 0.4 * recipe.share * 700, (cls, found[cls])
    assert abs(sum(recipe.share for recipe in RECIPES.values()) - 1) < 1e-9


def test_a_goal_sees_each_kind_of_difference() -> None:
    before = Records({"order": {"A": {"n": 1, "tags": ["x", "y"]}, "B": {"n": 2, "tags": []}}})
    after = before.copy()
    after.put("order", "A", {"n": 1, "tags": ["y", "x"]})  # lists have no order
    assert Goal.between(before, after, {}) == Goal(())
    after.put("order", "A", {"n": 5, "tags": ["x", "y"]})
    after.remove("order", "B")
    after.put("order", "C", {"n": 9, "tags": [], "why": "because"})
    goal = Goal.between(before, after, {"order": {"why"}})
    assert set(map(type, goal.predicates)) == {Made, Changed, Removed}
    assert goal.unmet(before, after) == []
    other = after.copy()
    other.remove("order", "C")
    other.put("order", "Z", {"n": 9, "tags": [], "why": "another id and other words"})
    assert goal.unmet(before, other) == []
    for spoil in (
        lambda r: r.put("order", "A", {"n": 6, "tags": ["x", "y"]}),
        lambda r: r.put("order", "A", {"n": 5, "tags": ["x"]}),
        lambda r: r.put("order", "B", {"n": 2, "tags": []}),
        lambda r: r.put("order", "D", {"n": 9, "tags": []}),
        lambda r: r.remove("order", "C"),
    ):
        spoilt = after.copy()
        spoil(spoilt)
        assert goal.unmet(before, spoilt)


def test_a_proof_finds_what_is_wrong() -> None:
    task = next(
        task
        for number in range(200)
        if (task := make_task(4, number, DOMAINS)).template == "update" and task.cls == "clean"
    )
    assert list(unproved(task)) == []
    assert list(unproved(replace(task, goal=Goal(()))))
    assert list(unproved(replace(task, slots={})))
    assert known_domain(4, task.setting.domain).by_tool[task.steps[-1].tool].family == "update"
