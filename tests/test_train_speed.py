"""The benchmark of training speed: that both sides do the same work, and what is made of times."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import pytest

from benchmarks import memory_plan, train_speed
from benchmarks.trainees import DType, Ours, Remote, Setting, Step, Theirs, Work, prepare
from selenite.model.config import ModelConfig
from selenite.train.pretrain_config import PretrainConfig
from tests.fixtures.tiny import k2_config, llama_config

SDPA, EAGER = Theirs("float32", "sdpa"), Theirs("float32", "eager")
AUTOCAST, LOW = Theirs("autocast", "sdpa"), Theirs("bfloat16", "sdpa")
BATCH = 64


def work(model: ModelConfig, directory: Path) -> Work:
    sizes = {"seq_len": 16, "batch_tokens": BATCH, "micro_batch_tokens": BATCH}
    config = PretrainConfig.model_validate(
        {
            "model": model,
            "train": {"out_dir": directory, "steps": 20, **sizes},
            "data": {"tokenizer": {"vocab_size": model.vocab_size}},
        }
    )
    return prepare(config, directory)


@pytest.mark.parametrize("model", [k2_config(), llama_config()], ids=["k2", "llama"])
def test_all_settings_take_the_same_steps(model: ModelConfig, tmp_path: Path) -> None:
    """Three steps of AdamW: loss, gradient, update and learning rate all have to agree."""
    given = work(model, tmp_path)
    ours = Ours("float32", "adamw").build(given)
    reference = [ours.step() for _ in range(3)]
    assert len({step.loss for step in reference}) == 3
    theirs = train_speed.their_settings(model.moe is not None, ["float32"])
    assert len(theirs) == (4 if model.moe else 2)
    for setting in theirs:
        trainee = setting.build(given)
        for expected in reference:
            train_speed.check_same_work(setting, trainee.step(), expected)


@pytest.mark.parametrize("setting", [Ours("bfloat16"), AUTOCAST, LOW], ids=str)
def test_bfloat16_is_the_same_work_too(setting: Setting, tmp_path: Path) -> None:
    given = work(llama_config(init_std=0.02), tmp_path)
    reference = Ours("float32").build(given).step()
    train_speed.check_same_work(setting, setting.build(given).step(), reference)


def test_other_work_is_refused() -> None:
    for changed in (Step(1.0, 4.001, 2.0), Step(1.0, 4.0, 2.1)):
        with pytest.raises(RuntimeError, match="not the same work"):
            train_speed.check_same_work(SDPA, changed, Step(1.0, 4.0, 2.0))


def test_a_process_steps_and_says_when_it_ended(tmp_path: Path) -> None:
    given = work(llama_config(), tmp_path)
    with Remote(Ours("float32"), given) as trainee:
        assert trainee.step().loss == pytest.approx(Ours("float32").build(given).step().loss)
        (process,) = multiprocessing.active_children()
        process.kill()
        with pytest.raises(RuntimeError, match=r"ours, muonclip, float32.*exit code -9"):
            trainee.step()


def test_the_setting_of_the_rows_comes_first() -> None:
    assert train_speed.our_settings("adamw", ["bfloat16", "float32"]) == [
        Ours("bfloat16", "adamw"),
        Ours("float32", "adamw"),
        Ours("bfloat16"),
    ]


def test_settings_far_behind_are_dropped_dtype_by_dtype() -> None:
    seconds = {SDPA: 10.0, EAGER: 15.1, LOW: 3.0, AUTOCAST: 2.0}
    assert train_speed.near(seconds) == [AUTOCAST, SDPA, LOW]
    assert train_speed.near(seconds | {EAGER: 14.9}) == [AUTOCAST, SDPA, LOW, EAGER]


class Scripted:
    """A trainee that took known times, and notes whose turn it was."""

    def __init__(self, name: str, seconds: Sequence[float], turns: list[str]) -> None:
        self.name, self.seconds, self.turns = name, iter(seconds), turns

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self.turns.append(f"end of {self.name}")

    def step(self) -> Step:
        self.turns.append(self.name)
        return Step(next(self.seconds), 1.0, 1.0)


def test_start_ends_those_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One far behind takes one step; of those near, the last of more than three is ended."""
    ours = [Ours("bfloat16"), Ours("float32"), Ours("bfloat16", "adamw")]
    late = Theirs("bfloat16", "eager")
    seconds = {SDPA: 10.0, EAGER: 15.1, AUTOCAST: 2.0, LOW: 2.4, late: 2.5}
    turns: list[str] = []

    def remote(setting: Setting, _: Work) -> Scripted:
        return Scripted(str(setting), [seconds.get(setting, 1.0)] * 2, turns)

    monkeypatch.setattr(train_speed, "Remote", remote)
    given = work(llama_config(), tmp_path)
    with ExitStack() as stack:
        started = train_speed.start(ours, list(seconds), given, stack)
        assert list(started) == [*ours, SDPA, AUTOCAST, LOW]
        counted = {s: turns.count(str(s)) for s in (*ours, *seconds)}
        assert counted == {**dict.fromkeys(ours, 1), **dict.fromkeys(seconds, 2), EAGER: 1}
        assert [turn for turn in turns if "end of" in turn] == [f"end of {EAGER}", f"end of {late}"]
    assert all(f"end of {s}" in turns for s in counted)


def test_rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = iter([1e9, 3e9, 2e9, 5e9])
    monkeypatch.setattr(train_speed, "measure_peak", lambda dtype: next(peaks))
    turns: list[str] = []
    ours = Ours("float32")
    trainees = {
        ours: Scripted("ours", [1.0, 2.0, 4.0], turns),
        Ours("float32", "adamw"): Scripted("adamw", [1.0, 1.0, 1.0], turns),
        SDPA: Scripted("sdpa", [3.0, 5.0, 12.0], turns),
        EAGER: Scripted("eager", [6.0, 6.0, 6.0], turns),
    }
    dtypes: list[DType] = ["float32"]
    config = work(llama_config(), tmp_path).config
    rounds = train_speed.take_turns(config, trainees, dtypes, runs=3)

    assert turns[:4] == turns[8:] == ["eager", "sdpa", "adamw", "ours"]
    assert turns[4:8] == ["ours", "adamw", "sdpa", "eager"]
    assert rounds.ours == ours
    assert rounds.fastest() == rounds.fastest("float32") == SDPA
    assert rounds.ratios(ours, SDPA) == [3.0, 2.5, 3.0]
    low, middle, high = rounds.mfu(ours)
    assert middle == pytest.approx(rounds.flops / 2.0 / 2.5e9)
    assert high / middle == pytest.approx(2.0 / 1.0 * 2.5 / 1.0)
    assert middle / low == pytest.approx(4.0 / 2.0 * 5.0 / 2.5)
    assert train_speed.other_ratios(rounds) == "muonclip 3.00, adamw 5.00, both in float32 3.00"


@pytest.mark.parametrize("name", memory_plan.RUNS)
def test_the_memory_runs_are_configs(name: str) -> None:
    assert memory_plan.run_config(name, None).train.device == "cpu"
    assert memory_plan.run_config(name, 1024).train.batch_tokens == 1024
