"""Tasks played by models: right ones pass every judge, the same answers give the same episode."""

from __future__ import annotations

import itertools
import json
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from selenite.agent.episodes.episode import play_script
from selenite.agent.episodes.trajectory import Trajectory
from selenite.agent.judges import form, replay
from selenite.agent.judges.verdict import judge
from selenite.agent.models.totals import read_ledger
from selenite.agent.roles.agent_author import introduction_and_rules
from selenite.agent.roles.config import PartConfig, RolesConfig
from selenite.agent.roles.outcomes import Outcomes
from selenite.agent.roles.play import judge_roles, play_roles
from selenite.agent.roles.prompts import prompt_of
from selenite.agent.roles.role import Role
from selenite.agent.roles.roles import open_roles
from selenite.agent.roles.tool_world import drift
from selenite.agent.tasks.task import TaskClass
from selenite.clock import ManualClock
from tests.agent.roles.stub import (
    ADDED,
    Answer,
    GoodEndpoint,
    config_of,
    original,
    roles_by,
    task_of,
    text,
)
from tests.fixtures.scripted_server import scripted_server

PLAYING = [role for role in Role if role is not Role.DOMAIN_AUTHOR]


class Endpoint:
    """One address for the right answers of whatever task is played."""

    def __init__(self) -> None:
        self.current: GoodEndpoint | None = None

    def __call__(self, body: dict[str, object]) -> Answer:
        assert self.current is not None
        return self.current(body)


def played(
    numbers: list[int], *roles: Role, **options: object
) -> tuple[list[Trajectory], Outcomes, int]:
    """Trajectories that passed, what came of it, and how many requests that took."""
    endpoint, whole, found = Endpoint(), Outcomes(), []
    with roles_by(endpoint, *roles, **options) as (opened, server):
        for number in numbers:
            task = task_of(number)
            endpoint.current = GoodEndpoint(task)
            trajectory, outcomes = play_roles(task, opened, number)
            verdict, votes = judge_roles(trajectory, opened, number)
            assert verdict.passes, (trajectory.id, verdict)
            for part in (outcomes, votes):
                part.check_integrity()
                whole.add(part)
            found.append(trajectory)
        opened.ledger.totals().check_integrity()
        return found, whole, len(server.requests)


def without_conflicts(first: int, count: int) -> list[int]:
    """A model cannot know of what others do meanwhile."""
    numbers = range(first, first + 2 * count)
    return [n for n in numbers if task_of(n).cls is not TaskClass.CONFLICT][:count]


def test_with_all_roles_codes_it_is_the_scripted_episode() -> None:
    with open_roles(RolesConfig(), seed=6) as roles:
        for number in range(80):
            task = task_of(number)
            trajectory, outcomes = play_roles(task, roles, number)
            script = play_script(task)
            assert script is not None
            assert trajectory.record() == script.record()
            assert outcomes == Outcomes()
            assert judge_roles(trajectory, roles, number) == (judge(script), Outcomes())


def test_right_answers_in_every_role_pass_every_judge() -> None:
    numbers = without_conflicts(10, 16)
    trajectories, outcomes, _ = played(numbers, *PLAYING)
    assert len({t.task.cls for t in trajectories}) >= 7
    assert outcomes.by_role.keys() == set(PLAYING)
    for role, counts in outcomes.by_role.items():
        assert counts.asked == counts.accepted > 0, (role, counts)
    assert outcomes.splits == {"3-0": 16}
    for trajectory in trajectories:
        assert not drift(trajectory)
        assert trajectory.messages[0].content.startswith(ADDED)
        users = [m.content for m in trajectory.messages if m.role == "user"]
        assert all(said.startswith(ADDED) for said in users)
        assert all(tool.description.startswith(ADDED) for tool in trajectory.tools)
        assert trajectory.models["agent"] == "agent"
        said = trajectory.models["user"].split()
        assert said == ["user", prompt_of(Role.USER).hash]
        assert trajectory.record()["models"] == dict(trajectory.models)


def test_each_role_can_be_a_model_alone() -> None:
    for role in PLAYING:
        trajectories, outcomes, _ = played(without_conflicts(20, 4), role)
        assert list(outcomes.by_role) == [role]
        if role is not Role.JUDGE:
            assert {role.value} in [set(t.models) for t in trajectories]


def test_what_a_model_words_is_that_of_the_script_otherwise() -> None:
    """Whoever words it, the same is done: calls, events and states are those of the script."""
    numbers = without_conflicts(40, 6)
    authors = (Role.TASK_AUTHOR, Role.TOOL_AUTHOR, Role.AGENT_AUTHOR, Role.USER)
    for trajectory, number in zip(played(numbers, *authors)[0], numbers, strict=True):
        script = play_script(task_of(number))
        assert script is not None
        assert trajectory.events == script.events
        assert trajectory.messages != script.messages
        assert trajectory.messages[0].content.removeprefix(ADDED) == script.messages[0].content
        same = [replace(tool, description="") for tool in trajectory.tools]
        assert same == [replace(tool, description="") for tool in script.tools]


def test_system_prompts_have_a_place_where_the_rules_begin() -> None:
    for number in range(60):
        task = task_of(number)
        script = play_script(task)
        assert script is not None
        world, text = task.setting.open(), script.messages[0].content
        introduction, rules = introduction_and_rules(text, world)
        assert f"{introduction} {rules}" == text
        assert world.domain.title.rpartition(" ")[0] in introduction
        assert str(world.today) in rules.partition(".")[0]
        assert all(policy.sentence() in rules for policy in world.domain.policies)


def test_a_second_run_asks_nothing_and_gives_the_same(tmp_path: Path) -> None:
    """Also where the first was interrupted, and in another order."""
    options = {"cache_dir": tmp_path / "cache", "ledger": tmp_path / "ledger.jsonl"}
    numbers = without_conflicts(60, 4)
    some, _, asked = played(numbers[:2], *PLAYING, **options)
    whole, outcomes, rest = played(numbers, *PLAYING, **options)
    assert [t.record() for t in some] == [t.record() for t in whole[:2]]
    again, same, none = played(numbers[::-1], *PLAYING, **options)
    assert [t.record() for t in again[::-1]] == [t.record() for t in whole]
    assert (same, none) == (outcomes, 0)
    assert min(asked, rest) > 0
    totals = read_ledger(tmp_path / "ledger.jsonl")
    totals.check_integrity()
    assert totals.counts["requests"] == asked + rest


def test_tools_are_described_once_for_all_tasks_of_a_domain() -> None:
    numbers = without_conflicts(0, 8)
    trajectories, outcomes, asked = played(numbers, Role.TOOL_AUTHOR)
    uses = [tool.name for trajectory in trajectories for tool in trajectory.tools]
    assert outcomes.of(Role.TOOL_AUTHOR).accepted == len(uses)  # counted each time
    assert asked == len(set(uses)) < len(uses)


MIXED = RolesConfig(
    endpoints=config_of("http://127.0.0.1:9", Role.USER).endpoints,
    user=(PartConfig(weight=3), PartConfig(endpoint="user")),
)


def chosen(numbers: range) -> list[bool]:
    """Items whose user is a model."""
    with open_roles(MIXED, seed=6) as roles:
        return [roles.of(Role.USER, number) is not None for number in numbers]


def test_mixtures_are_the_same_in_every_process() -> None:
    numbers = range(1000)
    whole = chosen(numbers)
    assert 200 < sum(whole) < 300
    with ProcessPoolExecutor(2) as pool:
        parts = list(pool.map(chosen, [numbers[:500], numbers[500:]]))
    assert parts[0] + parts[1] == whole


def test_code_and_models_share_the_items() -> None:
    numbers, by = range(12), Counter[str]()
    endpoint = Endpoint()
    with scripted_server(lambda path, body: endpoint(body)) as server:
        mixed = config_of(server.url, Role.USER, Role.AGENT)
        mixed = mixed.model_copy(update={"user": (PartConfig(), *mixed.user)})
        mixed = mixed.model_copy(update={"agent": (PartConfig(), *mixed.agent)})
        with open_roles(mixed, 6, clock=ManualClock()) as roles:
            for number in numbers:
                task = task_of(number)
                endpoint.current = GoodEndpoint(task)
                trajectory, outcomes = play_roles(task, roles, number)
                assert not form.faults(trajectory)
                assert not replay.faults(trajectory)
                taken = {role for role in Role if roles.of(role, number)}
                assert {role.value for role in taken} == set(trajectory.models)
                assert outcomes.by_role.keys() == taken
                by["+".join(sorted(trajectory.models))] += 1
    assert set(by) == {"", "user", "agent", "agent+user"}


def test_outcomes_add_up() -> None:
    _, outcomes, _ = played(without_conflicts(0, 2), *PLAYING)
    outcomes.of(Role.USER).kept["lost_value"] += 2
    with pytest.raises(AssertionError):
        outcomes.check_integrity()
    twice = Outcomes()
    for _ in range(2):
        twice.add(outcomes)
    assert twice.of(Role.USER).kept["lost_value"] == 4
    assert twice.splits == {"3-0": 4}


def test_threads_ask_for_the_description_of_a_tool_once() -> None:
    """Without a cache, and although no two answers are the same."""
    given = itertools.count()

    def reply(body: dict[str, object]) -> Answer:
        time.sleep(0.01)
        return text({"text": f"{original(body)} {ADDED * (1 + next(given) % 3)}"})

    numbers = [number for number in range(400) if task_of(number).setting.domain == 3][:8]
    with (
        roles_by(reply, Role.TOOL_AUTHOR) as (roles, server),
        ThreadPoolExecutor(8) as pool,
    ):
        played = list(pool.map(lambda n: play_roles(task_of(n), roles, n)[0], numbers))
        offered = {tool.name: tool.description for t in played for tool in t.tools}
        assert len(played) == 8
        assert all(tool.description == offered[tool.name] for t in played for tool in t.tools)
        assert len(server.requests) >= len(offered)
        asked = Counter(json.dumps(body) for _, body in server.requests)
        assert max(asked.values()) == 1


def test_a_description_that_was_cut_off_is_asked_for_again() -> None:
    broken = True

    def reply(body: dict[str, object]) -> Answer:
        return Answer(status=503) if broken else text({"text": ADDED + original(body)})

    with roles_by(reply, Role.TOOL_AUTHOR, retries=0) as (roles, _):
        lost, outcomes = play_roles(task_of(0), roles, 0)
        assert outcomes.is_cut_off
        broken = False
        found, outcomes = play_roles(task_of(0), roles, 0)
        assert not outcomes.is_cut_off
    assert not any(tool.description.startswith(ADDED) for tool in lost.tools)
    assert all(tool.description.startswith(ADDED) for tool in found.tools)


def test_threads_may_share_the_roles() -> None:
    """Texts only: what an endpoint answers must not depend on who asks first."""
    texts = (Role.TASK_AUTHOR, Role.AGENT_AUTHOR, Role.USER)
    numbers = range(100, 116)

    def reply(body: dict[str, object]) -> Answer:
        return text({"text": ADDED + original(body)})

    with roles_by(reply, *texts) as (roles, _):

        def record(number: int) -> dict[str, object]:
            return play_roles(task_of(number), roles, number)[0].record()

        alone = [record(number) for number in numbers]
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(record, numbers)) == alone
