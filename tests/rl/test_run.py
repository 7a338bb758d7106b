"""Reinforcement learning on a tiny model: it learns, goes on, and serves what it trains."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from selenite.cli.main import app
from selenite.clock import SystemClock
from selenite.config import validate
from selenite.errors import CheckpointError, DataError, SeleniteError
from selenite.rl.config import RlConfig
from selenite.rl.gym.environment import Budget, Check, Score
from selenite.rl.rollout import Status
from selenite.rl.run import open_task, rl
from selenite.rl.task import RlTask
from selenite.train.loop import run
from selenite.train.progress import make_display
from selenite.train.step import train_step
from selenite.types import Message
from tests.fixtures.server import make_model

PEAK = 1e11

BROKEN = """
from selenite.rl.gym.environment import EnvironmentFailedError
from tests.rl.test_run import Brief

class Broken(Brief):
    name, begun = "broken", 0

    def begin(self, number):
        self.begun += 1
        if self.begun > 1:  # the run asks for an opening before it acts
            raise EnvironmentFailedError("out of order")
        return self
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rl")
    make_model(root)
    answer = {"role": "assistant", "content": "Fox."}
    rows = [{"messages": [{"role": "user", "content": f"Say {n}."}, answer]} for n in range(40)]
    (root / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return root


def config_of(root: Path, out_dir: Path, **changes: Any) -> RlConfig:
    tables: dict[str, Any] = {
        "train": {
            "init_from": str(root / "tiny"),
            "out_dir": str(out_dir),
            "steps": 4,
            "seq_len": 512,
            "micro_batch_tokens": 2048,
            "batch_tokens": 2048,
            "checkpoint_every": 2,
            "dtype": "float32",
        },
        # An untrained model ends a turn about once in 200 tokens: what is cut earns less than what
        # ends, and that is what it can learn.
        "environments": [{"kind": "math", "tokens": 48}],
        "rollouts": {"groups": 4, "size": 6, "cache_tokens": 8192, "actor": {"truncated": 0.5}},
        "evaluation": {"tasks": 8, "temperature": 1.0},
        "optim": {"name": "adamw", "lr": 2e-3, "weight_decay": 0.0},
        "schedule": {"kind": "constant", "warmup_fraction": 0.0},
    }
    for path, value in changes.items():
        table, _, key = path.partition("__")
        if key:
            tables[table] = {**tables[table], key: value}
        else:
            tables[table] = value
    return validate(RlConfig, tables, "test")


def opened(config: RlConfig, stack: ExitStack) -> RlTask:
    return open_task(config, "cpu", torch.float32, SystemClock(), stack)


def test_it_learns_what_is_rewarded(root: Path, tmp_path: Path) -> None:
    config = config_of(root, tmp_path / "run", train__steps=10)
    with ExitStack() as stack:
        task = opened(config, stack)
        rows = [train_step(task, step) for step in range(10)]
    # Of 48 attempts each: more are ended in time, and that is what is rewarded.
    for name, change in (("truncated", -0.15), ("reward.math", 0.07)):
        first, last = (sum(row[name] for row in part) / 2 for part in (rows[:2], rows[-2:]))
        assert abs(last - first) > abs(change), (name, first, last)
        assert (last > first) == (change > 0)
    for row in rows:
        assert row["mismatch_max"] < 1e-3  # engine and trainer are one model
        assert row["sync_gap"] < 1e-3
        assert row["rho"] == 0  # one update: the old policy is the policy
        assert row["stale"] == 0
        assert row["failed"] == 0
        assert row["rollouts"] % 24 == 0


@pytest.mark.parametrize("kind", ["k2", "grpo", "dapo", "gspo", "k25"])
def test_every_objective_makes_updates(root: Path, tmp_path: Path, kind: str) -> None:
    config = config_of(root, tmp_path / kind, objective={"kind": kind}, rollouts__updates=2)
    with ExitStack() as stack:
        task = opened(config, stack)
        before = [parameter.detach().clone() for parameter in task.model.parameters()]
        rows = [train_step(task, step) for step in range(4)]
        after = list(task.model.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(np.isfinite(row["loss"]) for row in rows)
    # Two updates with the same rollouts, then new weights for the engine.
    assert ["rollout_seconds" in row for row in rows] == [True, False, True, False]
    assert ["sync_seconds" in row for row in rows] == [False, True, False, True]
    if kind == "k2":
        assert rows[0]["rho"] == 0
        assert rows[1]["rho"] > 0


def test_a_run_that_goes_on_is_the_run(root: Path, tmp_path: Path) -> None:
    whole, _ = rl(config_of(root, tmp_path / "whole"), SystemClock(), PEAK)
    half = config_of(root, tmp_path / "half")
    with ExitStack() as stack:
        run(opened(half, stack), 2, half.train, SystemClock(), make_display(SystemClock()), PEAK)
    rest, summary = rl(half, SystemClock(), PEAK)
    assert summary is not None
    assert (whole.step, rest.step) == (4, 4)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "half")]
    assert weights[0] == weights[1]
    # The same rollouts again, without an engine, make the same model.
    replayed = config_of(
        root, tmp_path / "again", rollouts__replay=str(tmp_path / "half"), train__eval_every=1
    )
    _, again = rl(replayed, SystemClock(), PEAK)
    assert again is not None
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == weights[0]
    with pytest.raises(DataError, match="no more"):
        rl(
            config_of(
                root, tmp_path / "more", rollouts__replay=str(tmp_path / "half"), train__steps=5
            ),
            SystemClock(),
            PEAK,
        )
    shown = CliRunner().invoke(app, ["rl", "show", str(tmp_path / "half"), "--rollouts", "1"])
    assert shown.exit_code == 0, shown.output
    for word in ("held out", "reward.", "generating", "math ", "Answer:"):
        assert word in shown.output, word
    wrong = CliRunner().invoke(app, ["rl", "show", str(tmp_path)])
    assert isinstance(wrong.exception, DataError)
    with pytest.raises(CheckpointError, match="size"):
        rl(
            config_of(root, tmp_path / "half", rollouts__size=4, train__steps=6),
            SystemClock(),
            PEAK,
        )


def test_groups_that_go_on_under_new_weights(root: Path, tmp_path: Path) -> None:
    config = config_of(
        root, tmp_path / "ahead", rollouts__ahead=3, rollouts__most_stale=2, train__steps=6
    )
    with ExitStack() as stack:
        task = opened(config, stack)
        rows = [train_step(task, step) for step in range(6)]
        state = task.state_dict()["tasks"]
        assert len(state["open"]) == 3
        assert state["stream"]["given"] == [int(sum(row["rollouts"] for row in rows)) // 6 + 3]
    assert max(row["stale"] for row in rows) >= 1
    assert max(row["stale"] for row in rows) <= 2


def test_what_must_not_be_forgotten_has_its_share(root: Path, tmp_path: Path) -> None:
    ptx = [
        {
            "kind": "chat",
            "name": "rows",
            "weight": 1.0,
            "paths": [str(root / "rows.jsonl")],
            "held_out": 0.2,
        }
    ]
    config = config_of(root, tmp_path / "ptx", ptx=ptx, ptx_share=0.1)
    with ExitStack() as stack:
        task = opened(config, stack)
        batch = task.next_batch()
        phase = task.phases[0]
        norms = []
        for is_ptx in (False, True):
            phase.optimizer.zero_grad(set_to_none=True)
            for micro_batch in batch:
                if (micro_batch[0] == "ptx") == is_ptx:
                    task.loss(phase, micro_batch, batch).backward()
            grads = [p.grad for p in phase.parameters() if p.grad is not None]
            norms.append(float(torch.nn.utils.get_total_norm(grads)))
        assert norms[1] == pytest.approx(0.1 * norms[0], rel=1e-3)
        before = task.evaluate()
        for step in range(4):
            train_step(task, step)
        after = task.evaluate()
    assert after["val_loss.rows"] < before["val_loss.rows"]


def test_what_must_not_be_forgotten_may_be_learnt_whole(root: Path, tmp_path: Path) -> None:
    """Nothing is held out of it, and nothing of it evaluated."""
    paths = [str(root / "rows.jsonl")]
    rows = {"kind": "chat", "name": "rows", "weight": 1.0, "paths": paths, "held_out": 0.0}
    with ExitStack() as stack:
        task = opened(config_of(root, tmp_path / "whole", ptx=[rows], ptx_share=0.1), stack)
        assert any(micro_batch[0] == "ptx" for micro_batch in task.next_batch())
        assert not any(name.startswith("val_loss") for name in task.evaluate())


def test_weights_that_are_not_what_was_trained_are_noticed(root: Path, tmp_path: Path) -> None:
    with ExitStack() as stack:
        task = opened(config_of(root, tmp_path / "bad"), stack)
        engine = task._bus._engines[0].engine
        swap = engine.swap_weights

        def wrong(model: Any, version: int, running: Any) -> Any:
            with torch.no_grad():
                model.embed.weight.copy_(model.embed.weight.flip(0))
            return swap(model, version, running)

        engine.swap_weights = wrong
        with pytest.raises(SeleniteError, match="does not serve what was trained"):
            train_step(task, 0)


def test_tasks_of_which_nothing_can_be_learnt_move_nothing(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rollouts = {"groups": 1, "size": 2, "actor": {"truncated": 0.0}}  # right is nobody
    config = config_of(root, tmp_path / "none", rollouts=rollouts)
    with ExitStack() as stack:
        task = opened(config, stack)
        before = [parameter.detach().clone() for parameter in task.model.parameters()]
        row = train_step(task, 0)
        after = list(task.model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert row["degenerate"] == 1
    assert row["loss"] == 0
    assert "nothing pulls" in caplog.text


def test_attempts_that_never_end_are_told(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_environment.py").write_text(BROKEN)
    monkeypatch.syspath_prepend(tmp_path)
    environments = [{"kind": "python", "factory": "broken_environment:Broken"}]
    config = config_of(root, tmp_path / "broken", environments=environments)
    with ExitStack() as stack:
        task = opened(config, stack)
        with pytest.raises(DataError, match=r"no attempt came to an end .*out of order"):
            task.next_batch()


def test_attempts_are_cut_at_what_right_ones_took(root: Path, tmp_path: Path) -> None:
    budget = {"rule": "limit", "right": 3, "quantile": 1.0, "factor": 1.0}
    environments = [{"kind": "python", "factory": "tests.rl.test_run:Brief", "weight": 1.0}]
    config = config_of(root, tmp_path / "cut", environments=environments, rollouts__budget=budget)
    with ExitStack() as stack:
        task = opened(config, stack)
        limits = [train_step(task, step).get("limit.brief") for step in range(3)]
        state = json.loads(json.dumps(task.state_dict()["budgets"]))
        groups = task._producer.take(2, 3, 1.0, {"brief": 7})
    assert len(state["lengths"]["brief"]) == 3
    assert limits[-1] == round(max(state["lengths"]["brief"]) + 64)
    lengths = [rollout.num_sampled for group in groups for rollout in group]
    assert max(lengths) == 7
    assert all(
        rollout.status is Status.TRUNCATED
        for group in groups
        for rollout in group
        if rollout.num_sampled == 7 and rollout.reward < 0
    )


class Brief:
    """Whatever is said is right, if it ends."""

    name, budget, opening, tools = "brief", Budget(tokens=300), (Message("user", "Speak."),), ()

    def begin(self, number: int) -> Brief:
        return self

    def reply(self, turn: Message) -> tuple[()]:
        return ()

    def score(self) -> Score:
        return Score((Check("said", 1.0),))
