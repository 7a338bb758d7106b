"""Our own server with its random model in the roles: nothing that it says spoils a trajectory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from selenite.agent.episodes.episode import play_script
from selenite.agent.judges import form, replay
from selenite.agent.models.totals import read_ledger
from selenite.agent.ontology.archetypes import categories
from selenite.agent.roles.agent import GAVE_UP
from selenite.agent.roles.outcomes import Outcomes
from selenite.agent.roles.play import judge_roles, play_roles, propose_archetype
from selenite.agent.roles.role import Role
from selenite.agent.roles.roles import open_roles
from selenite.agent.tasks.task import Task
from tests.agent.roles.stub import config_of, task_of
from tests.fixtures.server import KEY, ServerProcess, make_model

pytestmark = pytest.mark.slow  # a server of our own is started

WORDING = (Role.TASK_AUTHOR, Role.AGENT_AUTHOR, Role.USER, Role.JUDGE)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    started = ServerProcess(make_model(tmp_path_factory.mktemp("model")))
    yield started
    started.stop()


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELENITE_API_KEY", KEY)


def small_tasks(count: int) -> list[Task]:
    """Of few tools, which fit into the model's 4096 positions, and of short requests."""
    tasks = [task for n in range(200) if (task := task_of(n)).steps and not task.phases[0].details]
    return sorted(tasks, key=lambda task: (len(task.tools), task.number))[:count]


def played(
    server: ServerProcess, folder: Path, tasks: list[Task], *roles: Role, max_tokens: int
) -> Outcomes:
    """What came of it; with the script's agent, the trajectory is as good as the script's."""
    config = config_of(
        server.url,
        *roles,
        ledger=folder / "ledger.jsonl",
        model="tiny",
        api_key_env="SELENITE_API_KEY",
        timeout=60,
        repairs=0,
        votes=1,
        max_tokens=max_tokens,
    )
    whole = Outcomes()
    with open_roles(config, seed=6) as opened:
        for task in tasks:
            trajectory, outcomes = play_roles(task, opened, task.number)
            verdict, votes = judge_roles(trajectory, opened, task.number)
            whole.add(outcomes)
            whole.add(votes)
            script = play_script(task)
            assert script is not None
            assert Role.TOOL_WORLD in roles or not replay.faults(trajectory)
            if Role.AGENT in roles:
                assert trajectory.ended in (GAVE_UP, "done", "patience", "turns")
                assert trajectory.ended == "turns" or not form.faults(trajectory)
            else:
                assert trajectory.events == script.events
                assert verdict.reason in ("", "model", "replay")
        if Role.DOMAIN_AUTHOR in roles:
            whole.add(propose_archetype(categories()[0], opened, 6, 0)[1])
    whole.check_integrity()
    totals = read_ledger(folder / "ledger.jsonl")
    totals.check_integrity()
    reasons = sum((c.kept + c.failed for c in whole.by_role.values()), start=Counter[str]())
    assert totals.failed <= reasons
    assert totals.calls == sum(counts.asked for counts in whole.by_role.values())
    return whole


def test_a_random_model_words_and_judges(server: ServerProcess, tmp_path: Path) -> None:
    whole = played(server, tmp_path, small_tasks(1), *WORDING, max_tokens=64)
    assert whole.by_role.keys() == set(WORDING)
    for role in WORDING[:-1]:  # nonsense is no wording of anything
        assert whole.of(role).accepted == 0
        assert whole.of(role).kept.total() == whole.of(role).asked > 0


def test_a_random_model_acts(server: ServerProcess, tmp_path: Path) -> None:
    whole = played(server, tmp_path, small_tasks(1), Role.AGENT, max_tokens=32)
    assert whole.of(Role.AGENT).asked > 0


def test_a_random_model_in_every_role(server: ServerProcess, tmp_path: Path) -> None:
    others = tuple(role for role in Role if role is not Role.AGENT)
    whole = played(server, tmp_path, small_tasks(1), *others, max_tokens=300)
    assert whole.by_role.keys() >= {*WORDING[:-1], Role.TOOL_AUTHOR, Role.TOOL_WORLD}
    assert whole.of(Role.TOOL_AUTHOR).accepted == 0
