"""The memory plan against closed forms, against real steps, and in the error that carries it."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_run import TINY, overrides, write_text
from torch import nn

from selenite.config import load
from selenite.errors import OutOfMemoryError
from selenite.model.accounting import count_parameters
from selenite.ops import allocator, native
from selenite.runtime import Available, multiplies_bfloat16
from selenite.train.checkpoint import CheckpointStore
from selenite.train.live_bytes import LiveBytes
from selenite.train.memory import MemoryPlan, plan_memory
from selenite.train.memory_measure import measure_memory
from selenite.train.pretrain_config import PretrainConfig
from selenite.types import Decision

NANO = TINY.with_name("nano.toml")
PLENTY = Available(2**60, "no limit")

needs_kernels = pytest.mark.skipif(
    not native.availability().value, reason=native.availability().reason
)

needs_bfloat16 = pytest.mark.skipif(
    multiplies_bfloat16("cpu").value != "bfloat16",
    reason=f"a step takes minutes: {multiplies_bfloat16('cpu').reason}",
)


def plan(path: Path, *changes: str, available: Available = PLENTY) -> MemoryPlan:
    return plan_memory(load(PretrainConfig, path, changes), process=0, available=available)


def test_live_bytes_are_those_of_a_chain_of_products() -> None:
    """x -> x W1 -> relu -> W2: autograd keeps x, the weights and the relu's output."""
    rows, width = 1000, 64
    matrix, block = width * width * 4, rows * width * 4
    with LiveBytes() as live, torch.device("meta"):
        with live.label("weights"):
            layers = nn.Sequential(
                nn.Linear(width, width, bias=False), nn.ReLU(), nn.Linear(width, width, bias=False)
            )
        with live.label("activations"):
            x = torch.empty(rows, width)
            out = layers(x)
        assert live.live["weights"] == 2 * matrix
        assert live.live["activations"] == 3 * block  # x, relu(x W1), out
        assert live.peak.total == 2 * matrix + 3 * block  # x W1 went before out came
        del out, x
        assert live.live["activations"] == 0


def test_weights_gradients_and_optimizer_state_follow_from_the_parameters() -> None:
    config = load(PretrainConfig, NANO)
    count = count_parameters(config.model)
    routers = config.model.moe.num_experts * (config.model.num_layers - 1)
    parts = plan(NANO, "train.dtype=float32", "train.micro_batch_tokens=4096").parts
    assert parts["weights"] == 4 * (count.total + routers)  # and the balancing biases
    assert parts["gradients"] == 4 * count.total
    latent = config.model.kv_lora_rank + config.model.q_lora_rank
    adamw = count.embedding + count.head + count.norms + config.model.num_layers * latent
    counters = 4 * (3 + (4 * config.model.num_layers))  # a step number for each AdamW tensor
    assert parts["optimizer state"] == 4 * count.total + 4 * adamw + counters


def test_activations_grow_with_the_micro_batch_and_shrink_with_recomputation() -> None:
    base = ("train.batch_tokens=4096", "train.eval_tokens=4096")
    small = plan(TINY, *base, "train.micro_batch_tokens=1024").parts["activations"]
    large = plan(TINY, *base, "train.micro_batch_tokens=2048").parts["activations"]
    recomputed = plan(
        TINY, *base, "train.micro_batch_tokens=2048", "train.checkpoint_activations=true"
    )
    assert 1.9 < large / small < 2.1  # random documents are cut at other places
    assert recomputed.parts["activations"] < large / 5


def test_bfloat16_halves_what_a_product_saves_and_counts_the_cast_weights() -> None:
    wide = plan(NANO, "train.dtype=float32").parts
    narrow = plan(NANO, "train.dtype=bfloat16").parts
    assert "weight copies" not in wide
    assert 0 < narrow["weight copies"] <= wide["weights"] / 2
    assert narrow["activations"] < 0.75 * wide["activations"]  # norms and rotations stay float32


def test_a_plan_that_does_not_fit_says_what_each_dial_brings() -> None:
    tight = plan(TINY, available=Available(2**10, "a test"))
    assert not tight.fits
    settings = {dial.setting: dial.total for dial in tight.dials}
    halved = "train.micro_batch_tokens=128"
    assert settings[halved] == plan(TINY, halved).total
    assert settings["train.checkpoint_activations=true"] < tight.total
    assert any("num_layers" in setting for setting in settings)


def test_a_layer_of_a_trillion_parameters_is_planned_without_memory() -> None:
    changes = ("model={preset='kimi-k2', num_layers=2}", "train.dtype=bfloat16")
    batch = ("train.batch_tokens=512", "train.micro_batch_tokens=512")
    parts = plan(NANO, *changes, *batch).parts
    config = load(PretrainConfig, NANO, changes)
    assert parts["weights"] == pytest.approx(4 * count_parameters(config.model).total, rel=1e-4)


def test_extra_prediction_layers_are_part_of_the_plan() -> None:
    changes = ("model.num_nextn_predict_layers=2",)
    without, parts = plan(TINY).parts, plan(TINY, *changes).parts
    config = load(PretrainConfig, TINY, changes).model
    extra = count_parameters(config).nextn
    assert parts["weights"] - without["weights"] == 4 * (extra + 2 * config.moe.num_experts)
    assert parts["gradients"] - without["gradients"] == 4 * extra
    assert parts["activations"] > 1.5 * without["activations"]


@pytest.mark.parametrize("blocks", [(16, 3), (64, 1), (512, 2)])
def test_rows_that_choose_blocks_are_planned(blocks: tuple[int, int]) -> None:
    """Without values nobody knows what they choose; weights and gradients are the same."""
    size, top_k = blocks
    full = plan(TINY).parts
    parts = plan(TINY, f"model.moba.block_size={size}", f"model.moba.top_k={top_k}").parts
    assert parts["weights"] == full["weights"]
    assert parts["optimizer state"] == full["optimizer state"]
    assert 0.5 < parts["activations"] / full["activations"] < 2


@needs_kernels
def test_holes_are_what_the_allocator_may_keep() -> None:
    parts = plan(NANO).parts
    live = sum(size for name, size in parts.items() if name not in ("holes", "kernels"))
    assert parts["holes"] == allocator.slack(live)


def test_holes_are_unknown_without_our_allocator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "availability", lambda: Decision("", "no compiler"))
    without = plan(TINY)
    assert "holes" not in without.parts
    (row,) = [row for row in without.rows() if row[0] == "holes"]
    assert row[1] == "unknown"
    assert "no compiler" in row[2]


@needs_kernels
@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=needs_bfloat16)])
@pytest.mark.parametrize("recompute", ["false", "true"])
@pytest.mark.parametrize("tokens", [4096, 8192])
def test_the_plan_is_within_a_tenth_of_what_is_measured(
    tokens: int, recompute: str, dtype: str
) -> None:
    """The tolerance is the promise."""
    check_against_a_step(
        f"train.micro_batch_tokens={tokens}",
        f"train.checkpoint_activations={recompute}",
        f"train.dtype={dtype}",
    )


@needs_kernels
@pytest.mark.slow
@pytest.mark.parametrize("block_size", [16, 64])
def test_so_is_that_of_rows_that_choose_blocks(block_size: int) -> None:
    check_against_a_step(
        "train.dtype=float32", f"model.moba.block_size={block_size}", "model.moba.top_k=3"
    )


def check_against_a_step(*changes: str) -> None:
    config = load(PretrainConfig, NANO, changes)
    measured = measure_memory(config)
    planned = plan_memory(config, measured.process, PLENTY)
    assert planned.total == pytest.approx(measured.peak, rel=0.1)


def pretrain(root: Path, *changes: str, address_space: int | None = None):
    def limit() -> None:
        if address_space is not None:
            resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))

    command = [sys.executable, "-m", "selenite", "pretrain", str(TINY)]
    return subprocess.run(
        [*command, *overrides(root, root / "run", "train.sample_every=0", *changes)],
        capture_output=True,
        text=True,
        preexec_fn=limit,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
    )


@pytest.mark.slow
def test_running_out_of_memory_names_the_dial_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    write_text(tmp_path / "text")
    assert pretrain(tmp_path, "train.steps=5").returncode == 0
    big = ("train.steps=6", "train.batch_tokens=524288", "train.micro_batch_tokens=524288")
    # Addresses, not memory: mapped libraries take most of them before the step begins.
    ran = pretrain(tmp_path, *big, address_space=3 * 2**30)
    assert ran.returncode == OutOfMemoryError.exit_code, ran.stderr
    assert "train.micro_batch_tokens=262144" in ran.stderr
    assert "activations" in ran.stderr or "Too little is left for the plan" in ran.stderr
    assert "Traceback" not in ran.stderr
    store = CheckpointStore(tmp_path / "run" / "checkpoints", keep_last=3)
    (newest, *_) = store.paths()
    assert newest == store.path_of(5)
    store.verify(newest)
