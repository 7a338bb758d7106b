"""Parity of engine and trainer by the command itself, each run in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from selenite.chat.tokenizer import Tokenizer
from selenite.eval.parity import Scored, difference
from selenite.model.hf_adapter import save_pretrained
from tests.fixtures.tiny import k2_config, tiny_model

needs_mkl = pytest.mark.skipif(
    not torch.backends.mkl.is_available(), reason="this torch has no MKL: the mode refuses"
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tokenizer = Tokenizer.train(["def f(x):\n    return x + 1\n"] * 20, 320)
    tokenizer.save(folder)
    save_pretrained(tiny_model(k2_config(vocab_size=tokenizer.vocab_size)), folder)
    return folder


def parity(directory: Path, *options: str) -> dict[str, dict[str, float]]:
    command = [sys.executable, "-m", "selenite", "eval", "parity", str(directory), "--json"]
    inherited = {name: value for name, value in os.environ.items() if name != "MKL_CBWR"}
    done = subprocess.run(
        [*command, "--prompts", "4", "--max-tokens", "6", *options],
        env=inherited | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["rounding"] is None) == ("float32" in options)
    return {each["name"]: each for each in found["differences"]}


@needs_mkl
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_batch_invariant_mode_has_no_difference(directory: Path, dtype: str):
    found = parity(directory, "--batch-invariant", "--dtype", dtype)
    assert len(found) == 8
    assert all(each["tokens"] >= 20 for each in found.values())
    assert {each["largest"] for each in found.values()} == {0.0}
    assert {each["other_tokens"] for each in found.values()} == {0}


def test_fast_mode_differs_by_rounding(directory: Path):
    """The control: without the mode the same comparisons find differences."""
    found = parity(directory, "--dtype", "float32")
    assert 0 < max(each["largest"] for each in found.values()) < 1e-4


def test_a_difference_counts_tokens_up_to_where_they_part():
    a = Scored([1, 2, 3, 4], [-1.0, -2.0, -3.0])
    b = Scored([1, 2, 9, 4], [-1.5, -9.0, -9.0])
    found = difference("x", [a], [b])
    assert (found.largest, found.mean, found.tokens, found.other_tokens) == (0.5, 0.5, 1, 1)
    completion_only = Scored([1, 2, 3, 4], [-2.25, -3.0])
    found = difference("x", [a], [completion_only])
    assert (found.largest, found.tokens, found.other_tokens) == (0.25, 2, 0)
