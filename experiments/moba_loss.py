"""What choosing blocks costs in loss: MoBA against full attention at equal tokens.

    python -m experiments.moba_loss [SIZE ...]

Three sizes of a Llama-style model learn Python code from nothing, in sequences of 1,024 tokens,
with full attention and with 3 blocks of 64 keys (a last row reads 19 percent of them, as in the
paper's runs at 8K), three seeds each on the same tokens in the same order. The middle size has two
runs more: blocks for nine tenths of the steps and full attention after that, and blocks in all
layers but the last. Held-out loss over all tokens, and by position in documents of full length.
All is kept under runs/moba, so that a second call goes on.
Rows: moba.loss_gap and moba.loss.*. Figure: docs/figures/moba_loss.png.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch

from benchmarks.results import FIGURES, Reference, record
from selenite import atomic, runtime
from selenite.clock import SystemClock
from selenite.config import validate
from selenite.data.loader import evaluation_batches
from selenite.data.packing import MicroBatch
from selenite.data.prepare import DataConfig, prepare
from selenite.model.hf_adapter import load_pretrained
from selenite.model.transformer import Transformer
from selenite.ops.logprobs import token_logprobs
from selenite.train.inputs import to_inputs
from selenite.train.pretrain import PretrainConfig, pretrain
from selenite.train.summary import read_metrics
from selenite.types import IGNORED

OUT = Path("runs/moba")
FIGURE = FIGURES / "moba_loss.png"
SEEDS = (0, 1, 2)
LENGTH = 1024
EDGES = (0, 64, 128, 256, 512, 768, 1024)
EVAL_TOKENS = 262_144
MOBA = {"block_size": 64, "top_k": 3}
BATCH = 4096

# hidden size, layers, heads, width of the feed-forward, tokens
SIZES = {
    "small": (64, 2, 2, 176, 800_000),
    "middle": (96, 3, 3, 256, 1_200_000),
    "large": (128, 4, 4, 352, 1_600_000),
}
KINDS: Mapping[str, tuple[str, ...]] = {
    "small": ("full", "moba"),
    "middle": ("full", "moba", "hybrid", "last-full"),
    "large": ("full", "moba"),
}


def config_of(size: str, kind: str, seed: int) -> PretrainConfig:
    """A run, up to what its rows read the same for all kinds."""
    hidden, layers, heads, ffn, tokens = SIZES[size]
    moba: dict[str, Any] | None = None if kind == "full" else dict(MOBA)
    if moba is not None and kind == "last-full":
        moba["full_layers"] = [-1]
    values = {
        "model": {
            "attention": "gqa", "vocab_size": 512, "hidden_size": hidden, "num_layers": layers,
            "num_heads": heads, "num_kv_heads": heads, "ffn_hidden_size": ffn,
            "max_positions": LENGTH, "moba": moba,
        },
        "data": {
            "max_bytes": 12_000_000,
            "split": {"holdout": ["asyncio", "rich"], "file_fraction": 0.02},
            "tokenizer": {"vocab_size": 512},
        },
        "train": {
            "out_dir": str(OUT / f"{size}-{kind}-{seed}"), "tokens": tokens, "seq_len": LENGTH,
            "batch_tokens": BATCH, "micro_batch_tokens": BATCH, "eval_tokens": EVAL_TOKENS,
            "eval_every": 1_000_000, "seed": seed, "dtype": "float32", "prompts": [],
            "full_attention_from": 0.9 if kind == "hybrid" else None,
        },
        "optim": {"lr": 1e-2, "qk_clip_tau": None},
        "schedule": {"kind": "wsd", "warmup_fraction": 0.05, "decay_start": 0.6},
    }  # fmt: skip
    return validate(PretrainConfig, values, f"{size} {kind}")


def trained(size: str, kind: str, seed: int) -> dict[str, Any]:
    """What a run, trained to its end, has lost: over all, by position, and while it trained."""
    config = config_of(size, kind, seed)
    out_dir = config.train.out_dir
    done = out_dir / "measured.json"
    if not done.is_file():
        pretrain(config, SystemClock())
        model = load_pretrained(out_dir)
        found = {
            "loss": mean_loss(model, batches(config)),
            "positions": loss_by_position(model, batches(config)),
            "training": [row["loss"] for row in read_metrics(out_dir) if "loss" in row],
        }
        atomic.write_text(done, json.dumps(found))
    return json.loads(done.read_text(encoding="utf-8"))


def batches(config: PretrainConfig) -> list[MicroBatch]:
    """The held-out tokens, the same for all runs."""
    assert isinstance(config.data, DataConfig)
    return _batches(config.data, config.train.data_cache)


@cache
def _batches(data: DataConfig, folder: Path) -> list[MicroBatch]:
    corpus = prepare(data, folder)
    return list(evaluation_batches(corpus.val, BATCH, LENGTH, EVAL_TOKENS))


@torch.no_grad()
def token_losses(model: Transformer, batch: MicroBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Nats and positions of the predicted tokens."""
    inputs = to_inputs(batch, "cpu")
    positions_T = inputs.context.positions_T
    hidden_TD = model(inputs.tokens_T, positions_T, inputs.context).hidden_TD
    loss_T = -token_logprobs(hidden_TD, model.head_weight, inputs.targets_T)
    known_T = inputs.targets_T != IGNORED
    return loss_T[known_T].double(), positions_T[known_T]


def mean_loss(model: Transformer, found: Sequence[MicroBatch]) -> float:
    """Nats a token."""
    return float(torch.cat([token_losses(model, batch)[0] for batch in found]).mean())


def loss_by_position(model: Transformer, found: Sequence[MicroBatch]) -> list[float]:
    """Mean nats a token in each range of ``EDGES``, of documents that are ``LENGTH`` long."""
    losses, places = [], []
    for batch in found:
        pieces = torch.from_numpy(batch.document_T).long()
        full_T = pieces.bincount()[pieces] == LENGTH
        known_T = torch.from_numpy(batch.targets_T) != IGNORED
        loss_T, position_T = token_losses(model, batch)
        losses.append(loss_T[full_T[known_T]])
        places.append(position_T[full_T[known_T]])
    loss_T, place_T = torch.cat(losses), torch.cat(places)
    return [
        float(loss_T[(place_T >= low) & (place_T < high)].mean()) for low, high in pairwise(EDGES)
    ]


def gap(size: str, kind: str, of: str = "loss") -> tuple[float, float, list[float]]:
    """Mean and deviation over seeds of what a kind loses beyond full attention, and each."""
    gaps = []
    for seed in SEEDS:
        ours, full = trained(size, kind, seed), trained(size, "full", seed)
        trailing = of == "trailing"
        value = ours["positions"][-1] - full["positions"][-1] if trailing else ours[of] - full[of]
        gaps.append(value)
    return mean(gaps), stdev(gaps), gaps


def report(size: str, kind: str) -> None:
    """The row of a size and kind."""
    value, deviation, gaps = gap(size, kind)
    trailing, trailing_deviation, _ = gap(size, kind, "trailing")
    full = mean(trained(size, "full", seed)["loss"] for seed in SEEDS)
    is_last = size == "large" and kind == "moba"
    steps = len(trained(size, kind, 0)["training"])
    record(
        "moba.loss_gap" if is_last else f"moba.loss.{size}.{kind.replace('-', '_')}",
        f"held-out loss of {kind} beyond full attention, {size} model",
        value,
        "nats",
        low=value - max(0.02, 3 * deviation),
        high=value + max(0.02, 3 * deviation),
        runs=len(SEEDS),
        target="<= 0.01" if is_last else None,
        reference=Reference(name="the paper's at 8K", value=0.001, source="section 3.1, figure 3"),
        command="python -m experiments.moba_loss",
        note=f"deviation {deviation:.4f}, seeds {', '.join(f'{g:+.4f}' for g in gaps)}; full "
        f"{full:.3f}; last quarter of positions {trailing:+.4f} (deviation "
        f"{trailing_deviation:.4f}); {SIZES[size][4]:,} tokens in {steps} steps",
    )


def draw() -> None:
    """Loss by position of the largest size, and the gaps of all."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    middles = [(low + high) / 2 for low, high in pairwise(EDGES)]
    for kind in KINDS["large"]:
        runs = [trained("large", kind, seed)["positions"] for seed in SEEDS]
        left.plot(middles, [mean(at) for at in zip(*runs, strict=True)], marker="o", label=kind)
    left.set_xlabel("position in the document")
    left.set_ylabel("held-out nats per token")
    left.legend(frameon=False)
    names = [(size, kind) for size, kinds in KINDS.items() for kind in kinds if kind != "full"]
    values = [gap(size, kind) for size, kind in names]
    right.errorbar(
        range(len(names)), [v for v, _, _ in values], [d for _, d, _ in values], fmt="o", capsize=4
    )
    right.axhline(0, color="#999999", linewidth=0.8)
    right.axhline(0.01, color="#ff7a59", linewidth=0.8, linestyle="--")
    right.set_xticks(range(len(names)), [f"{size}\n{kind}" for size, kind in names], fontsize=8)
    right.set_ylabel("nats beyond full attention")
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, dpi=110, facecolor="white")


def main(sizes: Sequence[str]) -> None:
    runtime.apply_threads()
    for size in sizes or SIZES:
        for seed in SEEDS:
            for kind in KINDS[size]:
                found = trained(size, kind, seed)
                told = " ".join(f"{value:.3f}" for value in found["positions"])
                print(f"{size:7} {kind:10} seed {seed}: {found['loss']:.4f}  by position {told}")
        for kind in KINDS[size]:
            if kind != "full":
                print(
                    "{:7} {:10} beyond full: {:+.4f} ± {:.4f}".format(size, kind, *gap(size, kind))
                )
    if not sizes:
        for size, kinds in KINDS.items():
            for kind in kinds[1:]:
                report(size, kind)
        draw()


if __name__ == "__main__":
    main(sys.argv[1:])
