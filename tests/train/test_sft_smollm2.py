"""A real model that writes no call at all is taught to call functions that it has never seen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from selenite.agent.functions.sample import make_sample
from selenite.agent.functions.turn import Sort
from selenite.chat.profile import detect_profile
from selenite.chat.tokenizer import Tokenizer
from selenite.clock import SystemClock
from selenite.config import validate
from selenite.data.chat_rows import read_chat_rows
from selenite.data.chat_stream import ChatStream
from selenite.data.piece_loader import held_out_batches
from selenite.eval.functions import functions
from selenite.eval.measure import Target, measure
from selenite.eval.question import Suite
from selenite.eval.scoreboard import Result
from selenite.model.hf_adapter import load_pretrained
from selenite.train.evaluate import evaluate
from selenite.train.sft import sft
from selenite.train.sft_config import SftConfig
from tests.fixtures.smollm2 import smollm2

CALLS = (Sort.SINGLE, Sort.CHOICE)


def write(path: Path, rows: Sequence[Any]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def asked() -> Suite:
    """Requests of held-out functions for which one call is due."""
    suite = functions(150)
    kept = tuple(q for q in suite.questions if q.category in [sort.value for sort in CALLS])[:24]
    assert len(kept) == 24
    gold = {question.id: suite.gold[question.id] for question in kept}
    return Suite(suite.name, suite.version, kept, gold, suite.judge)


def valid(result: Result) -> float:
    """Share of valid calls, of those that were made and of those that were due, one a question."""
    scores = result.scores.values()
    return sum(score.valid for score in scores) / max(24, sum(score.calls for score in scores))


@pytest.mark.slow
def test_three_hundred_short_steps_teach_smollm2_to_call(tmp_path: Path) -> None:
    base = smollm2()
    samples = [make_sample(1, number) for number in range(4000)]
    write(tmp_path / "rows.jsonl", [s.row() for s in samples if s.sort in CALLS])
    table = {
        "train": {
            "init_from": base,
            "out_dir": tmp_path / "taught",
            "template": "compact",
            "steps": 300,
            "seq_len": 256,
            "batch_tokens": 256,
            "micro_batch_tokens": 256,
            "eval_every": 300,
            "eval_tokens": 2048,
            "sample_every": 300,
            "tensorboard": False,
        },
        "parts": [
            {"kind": "chat", "name": "calls", "weight": 1, "paths": [str(tmp_path / "rows.jsonl")],
             "unused_tools": 2}
        ],
        "optim": {"name": "adamw", "lr": 1.5e-3, "qk_clip_tau": None},
        "lora": {"rank": 16, "alpha": 16.0},
    }  # fmt: skip
    sft(validate(SftConfig, table, "test"), SystemClock(), 1e11)

    unseen = [make_sample(2, number, "concept") for number in range(200)]
    write(tmp_path / "unseen.jsonl", [s.row() for s in unseen if s.sort in CALLS])
    tokenizer = Tokenizer.load(tmp_path / "taught")
    rows = read_chat_rows([str(tmp_path / "unseen.jsonl")])
    stream = ChatStream(rows, tokenizer, detect_profile(tokenizer)[0], 1024, shuffle=False)
    batches = held_out_batches(stream, len(rows), 1024, 8192)
    loss_before, loss_after = (
        evaluate(load_pretrained(directory, torch.float32), batches).loss
        for directory in (base, tmp_path / "taught")
    )
    assert loss_after < 0.5 * loss_before

    (before,), (after,) = (
        measure(asked(), Target(directory, None), tmp_path / "eval", (False,), 8, 96)
        for directory in (base, tmp_path / "taught")
    )
    assert valid(before) == 0
    assert valid(after) > 0.6  # 0.79 after these 77,000 tokens
