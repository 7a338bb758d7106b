"""Environments of ours under ``verifiers``: its own evaluation, our server, our actor's scores."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from selenite.chat.profile import detect_profile
from selenite.chat.tokenizer import Tokenizer
from selenite.model.hf_adapter import load_pretrained
from selenite.rl.actor import Actor, ActorConfig
from selenite.rl.gym.config import EnvironmentPart
from selenite.rl.gym.environment import HELD_OUT, Environment
from selenite.rl.gym.verifiers.messages import lines_of, turn_lines
from selenite.rl.gym.verifiers.theirs import selenite_lines
from selenite.rl.gym.verifiers.theirs.selenite_lines import Asked
from selenite.rl.rollout import Rollout, Status
from selenite.rl.tasks import Assigned
from selenite.serve.engine.engine import Engine, EngineConfig
from selenite.serve.engine.loop import EngineThread
from selenite.types import Message
from tests.fixtures.server import KEY, ServerProcess, make_model

THEIRS = Path(selenite_lines.__file__).parent
TASKS = 4
TABLES: dict[str, dict[str, Any]] = {
    "math": {"kind": "math", "level": 1, "tokens": 1000},
    "letters": {"kind": "python", "factory": "letters:Letters", "settings": {"tokens": 2000}},
    "cut": {"kind": "python", "factory": "letters:Letters", "settings": {"tokens": 20}},
    "worlds": {"kind": "worlds", "domains": 3, "tokens": 30, "unused_tools": 2},
}

EVALUATE = """
import json, sys, verifiers as vf
from verifiers.types import ClientConfig
python, table, url, tasks, temperature = sys.argv[1:]
env = vf.load_environment("selenite-gym", python=python, table=json.loads(table), tasks=int(tasks))
client = ClientConfig(api_base_url=url, api_key_var="KEY_OF_TEST")
found = env.evaluate_sync(
    client, "tiny", {"temperature": float(temperature)}, num_examples=-1, rollouts_per_example=1,
    state_columns=["checks", "value"],
)
outputs = found["outputs"]
keys = ("completion", "reward", "is_truncated", "error", "info")
plain = [{key: output[key] for key in keys} for output in outputs]
print(json.dumps(plain, default=lambda message: message.model_dump()))
"""


def opened(name: str, monkeypatch: pytest.MonkeyPatch) -> Environment:
    monkeypatch.syspath_prepend(str(Path(__file__).with_name("toys")))
    environment: Environment = TypeAdapter(EnvironmentPart).validate_python(TABLES[name]).open()
    return environment


def test_lines_carry_our_environment_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the same episodes here: equal openings, tools, answers and scores."""
    server = "selenite.rl.gym.verifiers.server"
    for name in ("worlds", "letters"):
        environment = opened(name, monkeypatch)
        asked = Asked([sys.executable, "-m", server, json.dumps(TABLES[name])])
        for number in (3, HELD_OUT + 4):
            episode, there = environment.begin(number), asked.ask("begin", number=number)
            assert there["messages"] == [lines_of(message) for message in episode.opening]
            assert [tool["parameters"] for tool in there["tools"]] == [
                tool.parameters for tool in episode.tools
            ]
            turn = Message("assistant", "I cannot do that.")
            answer = asked.ask("reply", attempt=there["attempt"], turn=turn_lines(turn))
            assert answer["messages"] == [lines_of(message) for message in episode.reply(turn)]
            score = asked.ask("score", attempt=there["attempt"])
            assert score["reward"] == episode.score().value
            asked.ask("close", attempt=there["attempt"])
        asked.close()


def our_rollouts(directory: Path, environment: Environment) -> list[Rollout]:
    thread = EngineThread(Engine(load_pretrained(directory), EngineConfig(num_pages=600)))
    thread.start()
    tokenizer = Tokenizer.load(directory)
    profile, _ = detect_profile(tokenizer)
    actor = Actor([thread], tokenizer, profile, ActorConfig())

    async def all_of_them() -> list[Rollout]:
        numbers = range(HELD_OUT, HELD_OUT + TASKS)
        groups = [actor.group(Assigned(environment, number), 1, 0, 0.0) for number in numbers]
        return [group[0] for group in await asyncio.gather(*groups)]

    try:
        return asyncio.run(all_of_them())
    finally:
        thread.stop()


def replayed(environment: Environment, output: dict[str, Any]) -> float:
    """What the replies of an evaluation earn here."""
    episode = environment.begin(output["info"]["number"])
    replies = [m["content"] for m in output["completion"] if m["role"] == "assistant"]
    if output["is_truncated"]:
        return 0.0
    answers = [episode.reply(Message("assistant", text)) for text in replies]
    assert [bool(more) for more in answers] == [True] * (len(replies) - 1) + [False]
    return episode.score().value


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A random model's directory, and its server's address."""
    directory = make_model(tmp_path_factory.mktemp("ours"))
    server = ServerProcess(directory)
    yield directory, f"{server.url}/v1"
    assert server.stop() == 0


Evaluate = Callable[[str, float], list[dict[str, Any]]]


@pytest.fixture
def evaluate(python: str, served: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> Evaluate:
    """``verifiers``' own evaluation of a table at a temperature, by task."""
    monkeypatch.setenv("KEY_OF_TEST", KEY)
    toys = Path(__file__).with_name("toys")
    monkeypatch.setenv("PYTHONPATH", f"{THEIRS}:{toys}:{Path.cwd()}")

    def run(name: str, temperature: float) -> list[dict[str, Any]]:
        command = [python, "-c", EVALUATE, sys.executable, json.dumps(TABLES[name])]
        command += [served[1], str(TASKS), str(temperature)]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert ran.returncode == 0, ran.stderr
        found: list[dict[str, Any]] = json.loads(ran.stdout.splitlines()[-1])
        assert [output["error"] for output in found] == [None] * TASKS
        return sorted(found, key=lambda output: int(output["info"]["number"]))

    return run


@pytest.mark.network  # an environment of its own is installed
@pytest.mark.slow
def test_their_evaluation_earns_what_its_replies_earn_here(
    evaluate: Evaluate, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewards = []
    for name in ("math", "letters"):
        environment = opened(name, monkeypatch)
        for output in evaluate(name, 1.0):
            assert output["reward"] == replayed(environment, output)
            rewards.append(output["reward"])
    assert len(set(rewards)) > 2


@pytest.mark.network  # an environment of its own is installed
@pytest.mark.slow
def test_their_greedy_evaluation_is_our_actor_s_rollouts(
    evaluate: Evaluate, served: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Token for token, cut at the same budget; a random model seldom ends a greedy reply."""
    for name in ("math", "cut"):
        ours = our_rollouts(served[0], opened(name, monkeypatch))
        for output, rollout in zip(evaluate(name, 0.0), ours, strict=True):
            replies = [m["content"] for m in output["completion"] if m["role"] == "assistant"]
            assert replies == [m.content for m in rollout.messages if m.role == "assistant"]
            is_cut = rollout.status is Status.TRUNCATED
            assert output["is_truncated"] == is_cut
            assert output["reward"] == (0 if is_cut else rollout.reward)
