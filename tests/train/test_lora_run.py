"""A run that trains adapters beside another run's model, from config to model directory."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from tiny_run import TINY, tiny_config, tiny_corpus, write_text

from selenite.clock import ManualClock, SystemClock
from selenite.config import load
from selenite.errors import CheckpointError, ConfigError, TokenizerError
from selenite.model.hf_adapter import load_pretrained, save_pretrained
from selenite.model.lora import adapters, merge_lora, planned_adapters
from selenite.model.lora_files import CONFIG, WEIGHTS, load_lora
from selenite.runtime import Available
from selenite.train.loop import run
from selenite.train.memory import plan_memory
from selenite.train.pretrain import build_task, pretrain
from selenite.train.pretrain_config import PretrainConfig
from selenite.train.pretrain_task import PretrainTask
from selenite.train.progress import LogLines
from selenite.train.run import summary_lines
from selenite.train.step import train_step
from selenite.train.summary import read_metrics

PEAK = 1e11  # FLOP/s, given so that no test measures it
QUIET = ("train.prompts=[]", "train.eval_every=0")
FROZEN = ("optim.qk_clip_tau=none", "optim.router_bias_speed=0")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("lora")
    write_text(root / "text")
    return root


@pytest.fixture(scope="module")
def base(root: Path) -> Path:
    """A model directory, and the metrics of the run that it is from."""
    task = part_of(tiny_config(root, root / "base", "train.steps=3", *QUIET), 3)
    save_pretrained(task.model, root / "base")
    task.tokenizer.save(root / "base")
    return root / "base"


def lora_config(root: Path, base: Path, out_dir: Path, *more: str) -> PretrainConfig:
    settings = (f"train.init_from={base}", f"data.tokenizer.path={base}", "lora.rank=4")
    return tiny_config(root, out_dir, "train.steps=4", *settings, *FROZEN, *QUIET, *more)


def task_of(config: PretrainConfig) -> PretrainTask:
    return build_task(config, [tiny_corpus(config)], "cpu", torch.float32)


def part_of(config: PretrainConfig, steps: int) -> PretrainTask:
    """The run of ``config``, stopped after some steps with a checkpoint."""
    task = task_of(config)
    clock = ManualClock()
    run(task, steps, config.train, clock, LogLines(clock))
    task.close()
    return task


@pytest.fixture(scope="module")
def whole(root: Path, base: Path) -> Path:
    out_dir = root / "whole"
    _, summary = pretrain(lora_config(root, base, out_dir), SystemClock(), PEAK)
    assert summary is not None
    assert f"adapter: {out_dir / 'adapter'}" in summary_lines(summary, out_dir)
    return out_dir


def test_resumed_run_equals_uninterrupted_run_bit_for_bit(
    root: Path, base: Path, whole: Path, tmp_path: Path
) -> None:
    config = lora_config(root, base, tmp_path)
    part_of(config, 2)
    outcome, _ = pretrain(config, SystemClock(), PEAK)
    assert outcome.step == 4
    for file in ("model.safetensors", "config.json", f"adapter/{WEIGHTS}", f"adapter/{CONFIG}"):
        assert (tmp_path / file).read_bytes() == (whole / file).read_bytes(), file
    losses = [[row.get("loss") for row in read_metrics(folder)] for folder in (tmp_path, whole)]
    assert losses[0] == losses[1]


def test_the_model_left_is_the_base_and_the_adapter(base: Path, whole: Path) -> None:
    """Bit for bit: nothing else was trained, routers' biases included."""
    model = load_lora(load_pretrained(base), whole / "adapter")
    assert all(adapter.B.abs().max() > 0 for adapter in adapters(model).values())
    merged = merge_lora(model).state_dict()
    left = load_pretrained(whole).state_dict()
    assert merged.keys() == left.keys()
    for name, value in left.items():
        assert torch.equal(value, merged[name]), name
    before, after = (read_metrics(folder) for folder in (base, whole))
    assert before[-1]["val_loss"] == after[0]["val_loss"], "the run begins where the base ended"
    assert after[-1]["val_loss"] < after[0]["val_loss"]


def test_a_checkpoint_holds_what_is_trained(whole: Path) -> None:
    (newest, *_) = sorted((whole / "checkpoints").glob("step_*"), reverse=True)
    names = dcp.FileSystemReader(newest).read_metadata().state_dict_metadata
    modules = [name for name in names if name.startswith("modules.")]
    assert any(".lora." in name for name in modules)
    assert all(".lora." in name or "router.bias" in name for name in modules), modules


def test_recomputed_activations_change_nothing(root: Path, base: Path, tmp_path: Path) -> None:
    """The first layer's input needs no gradient, its adapters do."""
    left = []
    for recompute in ("false", "true"):
        setting = f"train.checkpoint_activations={recompute}"
        task = task_of(lora_config(root, base, tmp_path, setting))
        train_step(task, 0)
        task.close()
        left.append(dict(task.model.named_parameters()))
    for name, value in left[0].items():
        assert torch.equal(value, left[1][name]), name


def test_flops_and_memory_are_those_of_adapters(root: Path, base: Path, tmp_path: Path) -> None:
    config = lora_config(root, base, tmp_path)
    assert config.lora is not None
    count = planned_adapters(config.model, config.lora)
    task = task_of(config)
    found = train_step(task, 0)["flops"]
    task.close()
    task = task_of(config.model_copy(update={"lora": None}))
    matrices = sum(p.numel() for n, p in task.model.named_parameters() if p.dim() == 2)
    matrices -= task.model.embed.weight.numel()
    stacks = sum(p.numel() for p in task.model.parameters() if p.dim() == 3)
    moe = config.model.moe
    assert moe is not None
    matrices += stacks * moe.experts_per_token // moe.num_experts
    expected = train_step(task, 0)["flops"] + 512 * (6 * count.active - 2 * matrices)
    task.close()
    assert found == pytest.approx(expected, rel=1e-12)

    parts = plan_memory(config, process=0, available=Available(2**60, "no limit")).parts
    assert parts["gradients"] == 4 * count.total
    assert 8 * count.total <= parts["optimizer state"] < 9 * count.total


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (["train.init_from=none"], r"set train\.init_from to its directory, or leave lora out"),
        (["optim.qk_clip_tau=50"], r"qk_clip_tau=50\.0 would change.* set optim\.qk_clip_tau=none"),
        (["optim.router_bias_speed=1e-3"], r"set optim\.router_bias_speed=0"),
        (["lora.targets=['q_b']"], r"'q_b' is no weight.*did you mean attention\.q_b"),
        (["lora.targets=[]"], r"lora\.targets.*at least 1"),
        (["train.init_from=runs/x", "train.out_dir=runs/y/../x"], r"init_from=.* is out_dir"),
    ],
)
def test_contradictions_are_named_with_a_remedy(settings: list[str], complaint: str) -> None:
    valid = ["train.init_from=runs/base", "lora.rank=4", *FROZEN]
    load(PretrainConfig, TINY, valid)
    with pytest.raises(ConfigError, match=rf"(?s){complaint}"):
        load(PretrainConfig, TINY, [*valid, *settings])


def test_a_base_of_other_dimensions_is_refused_by_name(
    root: Path, base: Path, tmp_path: Path
) -> None:
    other = lora_config(root, base, tmp_path, "model.ffn_hidden_size=32", "model.num_heads=4")
    with pytest.raises(
        ConfigError, match=r"model\.ffn_hidden_size is 64, 32; model\.num_heads is 2, 4"
    ):
        pretrain(other, SystemClock(), PEAK)
    assert not (tmp_path / "config.toml").exists()


def test_a_base_is_continued_on_longer_text(root: Path, base: Path, tmp_path: Path) -> None:
    """All weights are trained, from the base's; its positions are stretched."""
    settings = ("model.max_positions=1024", "model.yarn={factor=4.0, original_max_positions=256}")
    config = tiny_config(
        root, tmp_path, f"train.init_from={base}", "train.steps=1", *QUIET, *settings
    )
    task = task_of(config)
    assert task.model.config == config.model
    assert task.model.layers[0].attention.config == config.model
    for name, value in load_pretrained(base).state_dict().items():
        assert torch.equal(task.model.state_dict()[name], value), name
    train_step(task, 0)
    task.close()


def test_another_tokenizer_than_the_base_s_is_refused(
    root: Path, base: Path, tmp_path: Path
) -> None:
    other = lora_config(
        root, base, tmp_path, "data.tokenizer.path=none", "data.tokenizer.vocab_size=300"
    )
    with pytest.raises(TokenizerError, match=r"with data\.tokenizer\.path set to this one"):
        pretrain(other, SystemClock(), PEAK)


def test_a_checkpoint_belongs_to_its_base_and_adapters(
    root: Path, base: Path, whole: Path, tmp_path: Path
) -> None:
    own = shutil.copytree(base, tmp_path / "base", ignore=shutil.ignore_patterns("checkpoints"))
    part_of(lora_config(root, own, tmp_path / "run"), 1)
    with pytest.raises(CheckpointError, match=r"lora\.rank is 4, 8"):
        pretrain(lora_config(root, own, tmp_path / "run", "lora.rank=8"), SystemClock(), PEAK)
    with pytest.raises(CheckpointError, match=r"lora is \{.*\}, None"):
        pretrain(lora_config(root, own, tmp_path / "run", "lora=none"), SystemClock(), PEAK)
    moved = own.rename(tmp_path / "moved")
    part_of(lora_config(root, moved, tmp_path / "run"), 2)  # the place is no part of the identity
    shutil.copy(whole / "model.safetensors", moved)
    with pytest.raises(CheckpointError, match=r"train\.init_from\.model\.safetensors is '"):
        pretrain(lora_config(root, moved, tmp_path / "run"), SystemClock(), PEAK)
