"""``selenite pretrain`` from a config to a model directory, and the configs that it refuses."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_run import TINY, overrides, tiny_config, write_text

from selenite.clock import SystemClock
from selenite.config import load
from selenite.errors import CheckpointError, ConfigError, OutOfMemoryError
from selenite.model.hf_adapter import load_pretrained
from selenite.train.pretrain import (
    PretrainConfig,
    finished_summary,
    is_out_of_memory,
    pretrain,
    summary_lines,
)
from selenite.train.summary import read_metrics

PEAK = 1e11  # FLOP/s, given so that no test measures it
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("command")
    write_text(root / "text")
    return root


def _command(root: Path, out_dir: Path, *more: str) -> list[str]:
    settings = overrides(root, out_dir, "train.steps=8", *more)
    return [sys.executable, "-m", "selenite", "pretrain", str(TINY), *settings]


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "COLUMNS": "200"}
    )


def _losses(out_dir: Path) -> list[tuple[int, float | None]]:
    return [(row["step"], row.get("loss")) for row in read_metrics(out_dir)]


@pytest.mark.slow
def test_command_from_text_to_model_and_report(root: Path, tmp_path: Path) -> None:
    """Stopped by SIGTERM, called again, called once more: one run, as if never interrupted."""
    out_dir = tmp_path / "run"
    command = _command(root, out_dir)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:  # the loop says its first step and takes signals from then on
        if "step 0/8" in line:
            process.send_signal(signal.SIGTERM)
            break
    output, _ = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM, output
    assert not (out_dir / "summary.json").exists()

    done = _run(command)
    assert done.returncode == 0, done.stderr
    for text in ("held-out bits per byte:", "loss spikes: 0", "report.html", "sample: 'def '"):
        assert text in done.stdout
    assert "steps = 8" in done.stderr
    assert load(PretrainConfig, out_dir / "config.toml").train.steps == 8
    model = load_pretrained(out_dir)
    assert all(bool(p.isfinite().all()) for p in model.parameters())
    assert (out_dir / "tokenizer.json").exists()

    again = _run(command)
    assert again.returncode == 0
    assert "is finished: 8 steps are done" in again.stdout
    assert again.stdout.splitlines()[1:] == done.stdout.splitlines()

    whole = _run(_command(root, tmp_path / "whole"))
    assert whole.returncode == 0, whole.stderr
    assert _losses(out_dir) == _losses(tmp_path / "whole")
    for name, value in load_pretrained(tmp_path / "whole").state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


def test_another_model_in_the_same_directory_is_refused(root: Path, tmp_path: Path) -> None:
    pretrain(tiny_config(root, tmp_path, "train.steps=1", "train.prompts=[]"), SystemClock(), PEAK)
    other = tiny_config(root, tmp_path, "train.steps=2", "model.ffn_hidden_size=32")
    with pytest.raises(CheckpointError, match=r"model\.ffn_hidden_size is 64, 32"):
        pretrain(other, SystemClock(), PEAK)
    longer = tiny_config(root, tmp_path, "train.steps=2", "train.prompts=[]")
    assert finished_summary(longer) is None
    assert pretrain(longer, SystemClock(), PEAK).step == 2
    summary = finished_summary(longer)
    assert summary is not None
    assert summary.tokens == 2 * 512
    assert any("1,024 tokens" in line for line in summary_lines(summary, tmp_path))
    report = (tmp_path / "report.html").read_text()
    assert report.count("<svg") == 8
    assert not re.search(r"(src|href)\s*=\s*.http|url\(.?http|@import", report), "self-contained"


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (["train.tokens=1000"], r"tokens=1000, steps=20: give exactly one"),
        (["train.batch_tokens=500"], r"batch_tokens=500 must be a multiple.*256"),
        (["train.seq_len=512"], r"seq_len=512 exceeds micro_batch_tokens=256"),
        (["model.max_positions=32"], r"seq_len=64 exceeds model\.max_positions=32"),
        (["data.tokenizer.vocab_size=1000"], r"vocab_size=1000 exceeds model\.vocab_size=512"),
        (["schedule.warmup_steps=20"], r"warmup_steps=20 leaves nothing of the 20 steps"),
        (["model.preset=mega"], r"'mega' is unknown; there are: nano"),
        (["train.stepps=3"], r"stepps.*steps"),
    ],
)
def test_contradictions_are_named_with_a_remedy(settings: list[str], complaint: str) -> None:
    with pytest.raises(ConfigError, match=rf"(?s){complaint}"):
        load(PretrainConfig, TINY, settings)


def test_model_is_a_preset_name_or_a_preset_with_changes(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text(
        'model = "nano"\n[train]\nout_dir = "x"\ntokens = 70_000\n[data.tokenizer]\n'
        "vocab_size = 4096\n"
    )
    config = load(PretrainConfig, file)
    assert config.model.hidden_size == 256
    assert config.train.num_steps == 3, "70,000 tokens need three batches of 32,768"
    changed = load(PretrainConfig, TINY, ["model.moe.num_experts=8"])
    assert (changed.model.moe.num_experts, changed.model.moe.experts_per_token) == (8, 2)


def test_out_of_memory_names_the_dial(root: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shapes do not match"))
    config = tiny_config(root, tmp_path, "model.ffn_hidden_size=10_000_000_000_000")
    with pytest.raises(OutOfMemoryError, match=r"train\.micro_batch_tokens=256: halve it"):
        pretrain(config, SystemClock(), PEAK)


def test_run_keeps_its_text_when_the_source_changes(root: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    write_text(own / "text")
    settings = ("train.prompts=[]", "train.steps=1")
    pretrain(tiny_config(own, tmp_path / "run", *settings), SystemClock(), PEAK)
    corpora = json.loads((tmp_path / "run" / "corpora.json").read_text())["paths"]
    (own / "text" / "new.py").write_text("print('a new file')\n" * 50)
    outcome = pretrain(
        tiny_config(own, tmp_path / "run", "train.prompts=[]", "train.steps=2"), SystemClock()
    )
    assert outcome.step == 2
    assert json.loads((tmp_path / "run" / "corpora.json").read_text())["paths"] == corpora
