"""A model judges by its letters, learns from attempts whose better one is known, and in a run."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from selenite.chat.profile import detect_profile
from selenite.chat.tokenizer import Tokenizer
from selenite.clock import SystemClock
from selenite.config import validate
from selenite.errors import ConfigError
from selenite.model.hf_adapter import load_pretrained
from selenite.model.transformer import Transformer
from selenite.ops.attention_context import packed_context
from selenite.rl.config import RlConfig
from selenite.rl.critic.critic import ModelCritic, letter_ids, verdict_ids
from selenite.rl.critic.lessons import LessonBatch, lesson_batches
from selenite.rl.gym.environment import Budget, Check, Score
from selenite.rl.rollout import Rollout
from selenite.rl.run import open_task
from selenite.serve.engine.engine import Engine, EngineConfig
from selenite.serve.engine.loop import EngineThread
from selenite.train.inputs import to_inputs
from selenite.train.step import train_step
from selenite.types import Message, ToolSpec
from tests.fixtures.server import make_model
from tests.rl.critic.test_judge import rollout


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("critic")
    make_model(root)
    return root


@pytest.fixture(scope="module")
def tokenizer(root: Path) -> Tokenizer:
    return Tokenizer.load(root / "tiny")


@pytest.fixture(scope="module")
def model(root: Path) -> Transformer:
    return load_pretrained(root / "tiny", torch.float32)


@pytest.fixture(scope="module")
def thread(model: Transformer) -> Iterator[EngineThread]:
    thread = EngineThread(Engine(model, EngineConfig(num_pages=128), clock=SystemClock()))
    thread.start()
    yield thread
    thread.stop()


def by_trainer(model: Transformer, ids: Sequence[int], letters: tuple[int, int]) -> float:
    context = packed_context([len(ids)])
    with torch.no_grad():
        output = model(torch.tensor(ids), context.positions_T, context)
        logits_V = output.hidden_TD[-1] @ model.head_weight.T
    return float(logits_V[list(letters)].softmax(-1)[0])


def test_a_model_says_what_its_letters_say(
    thread: EngineThread, model: Transformer, tokenizer: Tokenizer
) -> None:
    profile = detect_profile(tokenizer)[0]
    rubrics = ("It is short.",)
    critic = ModelCritic([thread], tokenizer, profile, rubrics)
    for first, second in (("assistant: Fox.", "assistant: Dog."), ("a" * 30, "\U0001f642")):
        said = asyncio.run(critic.prefers("user: Say fox.", first, second))
        ids = verdict_ids(tokenizer, profile, "user: Say fox.", first, second, rubrics)
        assert "It is short." in tokenizer.decode(ids)
        assert said == pytest.approx(by_trainer(model, ids, letter_ids(tokenizer)), abs=1e-4)
    # What is longer than the context is not judged.
    assert asyncio.run(critic.prefers("x " * 9000, "a", "b")) == 0.5


def groups(count: int, first: int) -> list[list[Rollout]]:
    rng = Random(first)
    found = []
    for _ in range(count):
        name = rng.choice(("fox", "dog", "cat", "hen"))
        found.append([rollout(f"Good {name}", 1.0, length=5), rollout(f"bad {name}", length=5)])
    return found


def lesson_loss(model: Transformer, batch: LessonBatch) -> tuple[Tensor, int]:
    """As ``RlTask`` has it, computed from whole rows of logits; and how many are right."""
    inputs = to_inputs(batch.packed, torch.device("cpu"), None)
    output = model(inputs.tokens_T, inputs.context.positions_T, inputs.context)
    logits_NV = output.hidden_TD[torch.from_numpy(batch.rows_N)] @ model.head_weight.T
    pairs_N2 = torch.stack([torch.from_numpy(batch.right_N), torch.from_numpy(batch.wrong_N)], 1)
    two_N2 = logits_NV.gather(1, pairs_N2)
    return -two_N2.log_softmax(-1)[:, 0].mean(), int((two_N2[:, 0] > two_N2[:, 1]).sum())


def test_lessons_are_both_orders_of_known_pairs(tokenizer: Tokenizer) -> None:
    profile = detect_profile(tokenizer)[0]
    batches = lesson_batches(groups(3, 0), tokenizer, profile, (), 1024)
    letters = letter_ids(tokenizer)
    rights = np.concatenate([batch.right_N for batch in batches])
    assert rights.tolist() == [letters[0], letters[1]] * 3
    for batch in batches:
        assert set(batch.right_N) | set(batch.wrong_N) == set(letters)
        starts = [0, *(batch.rows_N[:-1] + 1)]
        for start, row, right in zip(starts, batch.rows_N, batch.right_N, strict=True):
            text = tokenizer.decode(batch.packed.tokens_T[start : row + 1].tolist())
            a, b = text.index("Conversation A"), text.index("Conversation B")
            good = text.index("Good ")
            assert (a < good < b) == (right == letters[0])
            assert len(set(batch.packed.document_T[start : row + 1])) == 1
        assert len(batch.packed.tokens_T) <= 1024
    # Too long for a micro-batch: left out.
    assert lesson_batches(groups(3, 0), tokenizer, profile, (), 32) == []


def test_lessons_make_a_critic_better_on_others(root: Path, tokenizer: Tokenizer) -> None:
    profile = detect_profile(tokenizer)[0]
    torch.manual_seed(0)
    model = load_pretrained(root / "tiny", torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    unseen = lesson_batches(groups(12, 99), tokenizer, profile, (), 4096)
    taught = lesson_batches(groups(24, 0), tokenizer, profile, (), 2048)
    for _ in range(6):
        for batch in taught:
            optimizer.zero_grad()
            lesson_loss(model, batch)[0].backward()
            optimizer.step()
    right = sum(lesson_loss(model, batch)[1] for batch in unseen)
    assert right / sum(len(batch.rows_N) for batch in unseen) > 0.9


def run_config(root: Path, out_dir: Path, **critic: Any) -> RlConfig:
    return validate(
        RlConfig,
        {
            "train": {
                "init_from": str(root / "tiny"),
                "out_dir": str(out_dir),
                "steps": 3,
                "seq_len": 1024,
                "micro_batch_tokens": 2048,
                "batch_tokens": 2048,
                "dtype": "float32",
            },
            "environments": [
                {
                    "kind": "python",
                    "factory": "tests.rl.critic.test_lessons:Coins",
                    "settings": {"name": name},
                    "judged": name == "open",
                }
                for name in ("coins", "open")
            ],
            "rollouts": {"groups": 4, "size": 6, "cache_tokens": 8192},
            "optim": {"name": "adamw", "lr": 1e-3},
            "critic": critic or {"learns": True, "share": 0.2},
        },
        "test",
    )


class Coin:
    """Right by the first letter that is said, so that an untrained model is right now and then."""

    def __init__(self, number: int) -> None:
        self.opening = [Message("user", f"Say something, {number}.")]
        self.tools: tuple[ToolSpec, ...] = ()
        self._said = ""

    def reply(self, turn: Message) -> tuple[()]:
        self._said = turn.content
        return ()

    def score(self) -> Score:
        return Score((Check("coin", float(len(self._said) % 2)),))


class Coins:
    """An environment."""

    def __init__(self, name: str) -> None:
        self.name, self.budget = name, Budget(tokens=300)

    def begin(self, number: int) -> Coin:
        return Coin(number)


@pytest.mark.slow
def test_a_run_with_a_judge_that_learns(root: Path, tmp_path: Path) -> None:
    config = run_config(root, tmp_path / "run")
    with ExitStack() as stack:
        task = open_task(config, "cpu", torch.float32, SystemClock(), stack)
        rows = [train_step(task, step) for step in range(3)]
        state = json.loads(json.dumps(task.state_dict()))
        found = task.evaluate()
    lines = [
        json.loads(line)
        for file in sorted((tmp_path / "run" / "rollouts").iterdir())
        for line in file.read_text().splitlines()
    ]
    judged = [line for line in lines if line["environment"] == "open.judged"]
    done = [line for line in judged if line["status"] == "done"]
    assert done
    for line in done:
        assert line["judgement"]["correct"] is None
        assert 0 <= line["reward"] <= 1
        assert {check["name"] for check in line["checks"]} == {"coin"}
    assert "hidden.open.judged" in rows[0]
    assert 0 <= rows[0]["critic_consistent"] <= 1
    learnt = [row for row in rows if "critic_loss" in row]
    assert learnt, "no pair in three iterations"
    assert all(0 < row["critic_sure"] < 1 for row in learnt)
    assert state["weights"]["critic"] > 0
    # Held-out tasks are measured by the hidden score, which no critic can be talked out of.
    assert 0 <= found["val_reward.open.judged"] <= 1


def test_a_frozen_critic_stays_what_it_was(root: Path, tmp_path: Path) -> None:
    config = run_config(root, tmp_path / "frozen", kind="model")
    with ExitStack() as stack:
        task = open_task(config, "cpu", torch.float32, SystemClock(), stack)
        judge = task._producer._actor._judge  # type: ignore[attr-defined]
        asked = ("user: x", "assistant: a", "assistant: b")
        before = asyncio.run(judge._critic.prefers(*asked))
        for step in range(2):
            train_step(task, step)
        assert asyncio.run(judge._critic.prefers(*asked)) == before


def test_judged_environments_need_a_critic(root: Path, tmp_path: Path) -> None:
    config = run_config(root, tmp_path).model_dump(mode="json", exclude_none=True)
    del config["critic"]
    with pytest.raises(ConfigError, match="nobody judges"):
        validate(RlConfig, config, "test")
    for critic, message in (
        ({"kind": "endpoint"}, "base_url"),
        ({"kind": "python"}, "factory"),
        ({"kind": "model", "learns": True}, "is not trained"),
    ):
        with pytest.raises(ConfigError, match=message):
            run_config(root, tmp_path, **critic)
