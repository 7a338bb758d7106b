"""A pre-training run on fixed text that is small enough for tests: the real parts throughout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from selenite.config import load
from selenite.data.corpus import TokenCorpus
from selenite.data.prepare import DataConfig, prepare
from selenite.train.pretrain import PretrainConfig, build_task
from selenite.train.pretrain_task import PretrainTask

TINY = Path(__file__).resolve().parents[2] / "configs" / "tiny.toml"
_WORDS = ("def", "return", "self", "value", "for", "in", "range", "print", "x", "y", "+", "(", ")")


def write_text(folder: Path) -> Path:
    """The same few files at every call, on every machine and Python."""
    generator = np.random.Generator(np.random.Philox(key=0))
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(24):
        words = generator.choice(_WORDS, size=400)
        lines = [" ".join(words[i : i + 8]) for i in range(0, 400, 8)]
        (folder / f"{number:02d}.py").write_text(f"# file {number}\n" + "\n".join(lines) + "\n")
    return folder


def overrides(root: Path, out_dir: Path, *more: str) -> list[str]:
    """Settings that put a tiny run on the text of ``write_text`` and into ``out_dir``."""
    return [
        f"data.sources=[{{kind='folder', path='{root / 'text'}'}}]",
        "data.tokenizer.vocab_size=320",
        f"train.data_cache={root / 'corpora'}",
        f"train.out_dir={out_dir}",
        "train.tensorboard=false",
        *more,
    ]


def tiny_config(root: Path, out_dir: Path, *more: str) -> PretrainConfig:
    return load(PretrainConfig, TINY, overrides(root, out_dir, *more))


def tiny_task(config: PretrainConfig) -> PretrainTask:
    return build_task(config, [tiny_corpus(config)], "cpu", torch.float32)


def tiny_corpus(config: PretrainConfig) -> TokenCorpus:
    assert isinstance(config.data, DataConfig)
    return prepare(config.data, config.train.data_cache)
