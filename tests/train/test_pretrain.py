"""``selenite pretrain`` from a config to a model directory, and the configs that it refuses."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_run import TINY, overrides, tiny_config, write_text
from typer.testing import CliRunner

from selenite.cli.main import app
from selenite.clock import SystemClock
from selenite.config import load
from selenite.errors import CheckpointError, ConfigError, OutOfMemoryError, StorageError
from selenite.model.hf_adapter import load_pretrained
from selenite.optim.schedule import K2_SCHEDULE
from selenite.runtime import is_out_of_memory
from selenite.train.lock import exclusive
from selenite.train.pretrain import PretrainConfig, pretrain
from selenite.train.run import finished_summary, summary_lines
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
    faster = tiny_config(root, tmp_path, "train.steps=1", "train.prompts=[]", "optim.lr=0.5")
    with pytest.raises(
        ConfigError, match=r"other settings .*optim\.lr is 0\.01, 0\.5.*train\.out_dir"
    ):
        finished_summary(faster, faster.train)
    longer = tiny_config(root, tmp_path, "train.steps=2", "train.prompts=[]")
    assert finished_summary(longer, longer.train) is None
    outcome, summary = pretrain(longer, SystemClock(), PEAK)
    assert outcome.step == 2
    assert summary is not None
    assert summary == finished_summary(longer, longer.train)
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
        (["schedule.kind=cosine", "schedule.warmup_steps=20"], r"leaves nothing of the 20 steps"),
        (["schedule.warmup_steps=15"], r"warmup_steps=15 .*decay.* begins at step 13"),
        (["schedule=k2"], r"warmup_steps=500 "),
        (["schedule.kind=moonlight"], r"20 steps.*moonlight.*at least 1141"),
        (["model.preset=mega"], r"'mega' is unknown; there are: nano"),
        (["train.stepps=3"], r"stepps.*steps"),
    ],
)
def test_contradictions_are_named_with_a_remedy(settings: list[str], complaint: str) -> None:
    with pytest.raises(ConfigError, match=rf"(?s){complaint}"):
        load(PretrainConfig, TINY, settings)


def test_a_prompt_without_room_is_refused_before_the_first_step(root: Path, tmp_path: Path) -> None:
    config = tiny_config(root, tmp_path / "run", "train.sample_tokens=255")
    with pytest.raises(ConfigError, match=r"'def ' has .*sample_tokens=255.*max_positions=256"):
        pretrain(config, SystemClock(), PEAK)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_schedule_is_a_preset_name_or_a_preset_with_changes() -> None:
    assert load(PretrainConfig, TINY, ["train.steps=1000", "schedule=k2"]).schedule == K2_SCHEDULE
    changed = load(PretrainConfig, TINY, ["schedule.preset=k2", "schedule.warmup_steps=3"])
    assert changed.schedule == K2_SCHEDULE.model_copy(update={"warmup_steps": 3})
    with pytest.raises(ConfigError, match=r"schedule.*'k3' is unknown; there are: k2, moonlight"):
        load(PretrainConfig, TINY, ["schedule=k3"])


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
    longer = tiny_config(own, tmp_path / "run", "train.prompts=[]", "train.steps=2")
    outcome, _ = pretrain(longer, SystemClock(), PEAK)
    assert outcome.step == 2
    assert json.loads((tmp_path / "run" / "corpora.json").read_text())["paths"] == corpora


@pytest.fixture(scope="module")
def one_step(root: Path) -> Path:
    out_dir = root / "one_step"
    pretrain(tiny_config(root, out_dir, "train.steps=1", "train.prompts=[]"), SystemClock(), PEAK)
    return out_dir


@pytest.fixture
def finished(one_step: Path, tmp_path: Path) -> Path:
    """The directory of a run of one step, to be changed."""
    return shutil.copytree(one_step, tmp_path / "finished")


def _files(out_dir: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out_dir.iterdir() if path.is_file()}


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("train.seed=1", r"train\.seed is 0, 1"),
        ("data.split.file_fraction=0.5", r"corpora is "),
        ("model.ffn_hidden_size=32", r"ffn_hidden_size is 64, 32"),
    ],
)
def test_a_refused_resume_changes_no_file(
    root: Path, finished: Path, setting: str, complaint: str
) -> None:
    before = _files(finished)
    with pytest.raises(CheckpointError, match=complaint):
        pretrain(tiny_config(root, finished, "train.steps=2", setting), SystemClock(), PEAK)
    assert _files(finished) == before


def test_a_directory_in_use_is_refused_before_any_file_changes(root: Path, finished: Path) -> None:
    before = _files(finished)
    longer = tiny_config(root, finished, "train.steps=2", "optim.lr=0.5")
    with exclusive(finished), pytest.raises(StorageError, match="another process"):
        pretrain(longer, SystemClock(), PEAK)
    assert _files(finished) == before


def test_changed_settings_take_effect_and_are_said_key_by_key(
    root: Path, finished: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = ("train.steps=2", "train.prompts=['a', 'b']", "optim.lr=0.5")
    with caplog.at_level("INFO", logger="selenite"):
        _, summary = pretrain(tiny_config(root, finished, *settings), SystemClock(), PEAK)
    assert "(then, now): optim.lr is 0.01, 0.5" in caplog.text
    assert load(PretrainConfig, finished / "config.toml").optim.lr == 0.5
    # lr of the last of 2 steps: 0.5 times the end of wsd's cosine, never 0.01 times it
    assert read_metrics(finished)[-1]["lr"] > 0.01
    assert summary is not None
    assert [s.prompt for s in summary.samples] == ["a", "b"]


def test_command_goes_on_from_a_path_and_refuses_fewer_steps(
    root: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selenite.train.pretrain.measure_peak", lambda *_: PEAK)  # ten seconds
    checkpoint = finished / "checkpoints" / "step_00000001"
    elsewhere = overrides(
        root, tmp_path / "b", "train.steps=2", f"train.resume={checkpoint}", "train.prompts=[]"
    )
    done = CliRunner().invoke(app, ["pretrain", str(TINY), *elsewhere])
    assert done.exit_code == 0, done.output
    assert "held-out bits per byte: not recorded before" in done.output
    fewer = overrides(root, tmp_path / "b", "train.steps=1", "train.prompts=[]")
    done = CliRunner().invoke(app, ["pretrain", str(TINY), *fewer])
    assert isinstance(done.exception, ConfigError)
    assert "has 2 steps done, more than the 1 asked for" in str(done.exception)
    assert json.loads((tmp_path / "b" / "summary.json").read_text())["steps"] == 2
    assert load(PretrainConfig, tmp_path / "b" / "config.toml").train.steps == 2


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("summary.json", lambda config: finished_summary(config, config.train)),
        ("corpora.json", lambda config: pretrain(config, SystemClock(), PEAK)),
    ],
)
@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_damaged_records_are_named(
    root: Path, finished: Path, name: str, read: Callable[[PretrainConfig], object], content: str
) -> None:
    (finished / name).write_text(content)
    config = tiny_config(root, finished, "train.steps=1")
    with pytest.raises(StorageError, match=rf"{name}: not the .*delete it"):
        read(config)


_EXPORT_TO_A_FULL_DISK = """
import resource, sys
from pathlib import Path
from tiny_run import tiny_config, tiny_task
from selenite.errors import StorageError
from selenite.train.run import export_model

out_dir = Path(sys.argv[2])
task = tiny_task(tiny_config(Path(sys.argv[1]), out_dir))
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    export_model(task, out_dir)
except StorageError as error:
    print(error)
assert not any(out_dir.iterdir()), list(out_dir.iterdir())
"""


def test_export_to_a_full_disk_is_a_storage_error(root: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", _EXPORT_TO_A_FULL_DISK, str(root), str(tmp_path)]
    path = {"PYTHONPATH": f"{Path(__file__).parent}:{ROOT}"}
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **path})
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"{tmp_path}: the model cannot be written" in done.stdout
