"""Runs whose rows choose blocks, and read everything from some step on: as the model's config says
it, in one run, from one run to the next, and in fine-tuning."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny_run import tiny_config, tiny_task, write_text

from selenite.clock import SystemClock
from selenite.config import validate
from selenite.errors import ConfigError
from selenite.model.hf_adapter import load_pretrained, read_config
from selenite.train.pretrain import pretrain
from selenite.train.sft import sft
from selenite.train.sft_config import SftConfig
from selenite.train.step import train_step

PEAK = 1e11  # FLOP/s, given so that no test measures it
MOBA = ("model.moba.block_size=8", "model.moba.top_k=2", "model.moba.full_layers=[-1]")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("switch")
    write_text(root / "text")
    return root


def test_the_switch_comes_with_its_share_of_the_steps(root: Path, tmp_path: Path) -> None:
    """Until then the run is that by blocks; after it the model is the one that reads everything."""
    full = tiny_task(tiny_config(root, tmp_path / "a", "train.steps=4"))
    blocks = tiny_task(tiny_config(root, tmp_path / "b", "train.steps=4", *MOBA))
    mixed = tiny_task(
        tiny_config(root, tmp_path / "c", "train.steps=4", "train.full_attention_from=0.5", *MOBA)
    )
    losses = [
        [train_step(task, step)["loss"] for step in range(4)] for task in (full, blocks, mixed)
    ]
    assert losses[0][0] != losses[1][0]
    assert losses[2][:2] == losses[1][:2]
    assert losses[2][2] != losses[1][2]
    assert mixed.model.config == full.model.config
    for task in (full, blocks, mixed):
        task.close()


def test_a_run_that_goes_on_after_the_switch_is_the_run(root: Path, tmp_path: Path) -> None:
    settings = ("train.steps=4", "train.full_attention_from=0.5", *MOBA)
    whole = tiny_task(tiny_config(root, tmp_path / "whole", *settings))
    again = tiny_task(tiny_config(root, tmp_path / "again", *settings))
    for step in range(3):
        train_step(whole, step)
    again.model.load_state_dict(whole.model.state_dict())
    optimizer = whole.phases[0].optimizer.state_dict()
    again.phases[0].optimizer.load_state_dict(optimizer)
    again.load_state_dict(whole.state_dict())
    assert again.model.config.moba is None
    assert train_step(again, 3)["loss"] == train_step(whole, 3)["loss"]
    whole.close()
    again.close()


def test_the_model_that_comes_out_says_what_its_rows_read(root: Path, tmp_path: Path) -> None:
    """Blocks, then everything from there on, then blocks again: one set of weights."""
    blocks = tmp_path / "blocks"
    pretrain(tiny_config(root, blocks, "train.steps=2", *MOBA), SystemClock(), PEAK)
    moba = read_config(blocks).moba
    assert moba is not None
    assert (moba.block_size, moba.top_k, moba.full_layers) == (8, 2, (-1,))
    full = tmp_path / "full"
    pretrain(
        tiny_config(root, full, "train.steps=2", f"train.init_from={blocks}"), SystemClock(), PEAK
    )
    assert read_config(full).moba is None
    hybrid = tmp_path / "hybrid"
    switched = ("train.steps=2", "train.full_attention_from=0.5", f"train.init_from={full}")
    pretrain(tiny_config(root, hybrid, *switched, *MOBA), SystemClock(), PEAK)
    assert read_config(hybrid).moba is None

    def taught(out_dir: Path, attention: object, **settings: object) -> None:
        rows = tmp_path / "rows.jsonl"
        answer = {"role": "assistant", "content": "y y y"}
        asked = [{"messages": [{"role": "user", "content": str(i)}, answer]} for i in range(16)]
        rows.write_text("".join(json.dumps(row) + "\n" for row in asked))
        train = {
            "init_from": str(blocks), "out_dir": str(out_dir), "steps": 1, "seq_len": 64,
            "batch_tokens": 64, "micro_batch_tokens": 64, "attention": attention,
            "tensorboard": False, "dtype": "float32", "data_cache": str(root / "corpora"),
            "template": "compact", **settings,
        }  # fmt: skip
        parts: list[dict[str, object]] = [
            {"kind": "chat", "name": "rows", "weight": 1.0, "paths": [str(rows)]}
        ]
        parts[0]["held_out"] = 0.3
        sft(validate(SftConfig, {"train": train, "parts": parts}, "a test"), SystemClock(), PEAK)

    taught(tmp_path / "own", "own")
    assert read_config(tmp_path / "own").moba == moba
    taught(tmp_path / "all", "full")
    assert read_config(tmp_path / "all").moba is None
    taught(tmp_path / "other", {"block_size": 16, "top_k": 1})
    other = read_config(tmp_path / "other").moba
    assert other is not None
    assert (other.block_size, other.top_k) == (16, 1)
    taught(tmp_path / "then", "own", steps=2, full_attention_from=0.5)
    assert read_config(tmp_path / "then").moba is None
    shapes = [load_pretrained(tmp_path / name).state_dict() for name in ("own", "all", "other")]
    assert shapes[0].keys() == shapes[1].keys() == shapes[2].keys()
    assert all(torch.isfinite(tensor).all() for state in shapes for tensor in state.values())


def test_a_switch_to_what_the_model_does_anyway_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"full_attention_from=0\.9.*give it model\.moba"):
        tiny_config(root, tmp_path / "x", "train.full_attention_from=0.9")
