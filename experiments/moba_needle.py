"""What rows that choose blocks find in long contexts: needles in filler, asked for at the end.

    python -m experiments.moba_needle [SEED ...]

A needle is one token that stands for a key and a value; 16 of them lie at random places among 480
tokens of filler, and half are then asked for by their keys. A small model learns it with full
attention, with blocks (4 of 16 keys each: an eighth of the context at most), and with blocks after
as many lessons with full attention (``then``). How often is the value right, by the needle's depth,
and by how many blocks may be read when the model is used?
Rows: moba.needle.*. Figure: docs/figures/moba_needle.png.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.results import ROOT, Reference, record
from selenite import atomic, runtime
from selenite.config import validate
from selenite.model.config import MobaConfig, ModelConfig
from selenite.model.init import init_weights
from selenite.model.transformer import Transformer
from selenite.ops.attention_context import packed_context
from selenite.optim.build import OptimConfig, build_optimizer

OUT = Path("runs/moba-needle")
FIGURE = ROOT / "docs" / "figures" / "moba_needle.png"
SEEDS = (0, 1, 2)
KINDS = ("full", "moba", "then")  # how they were trained
KEYS, VALUES, FILLER = 32, 16, 32  # kinds of each; a needle is a pair of the first two
NEEDLES, ASKED = 16, 8
LENGTH, BATCH, STEPS = 512, 16, 300
HAY = LENGTH - 2 * ASKED
BLOCK, TOP_K = 16, 4
TESTED = (1, 2, 3, 4, 8, 16, 32)  # blocks read when it is used; 32 are all
DEPTHS = 8  # of the context, in equal parts
TRIES = 256  # at each depth
KEY, NOISE, VALUE = KEYS * VALUES, KEYS * VALUES + KEYS, KEYS * VALUES + KEYS + FILLER


def model_of(kind: str, seed: int) -> Transformer:
    values = {
        "attention": "gqa", "vocab_size": VALUE + VALUES, "hidden_size": 64, "num_layers": 2,
        "num_heads": 2, "num_kv_heads": 2, "ffn_hidden_size": 128, "max_positions": LENGTH,
        "rope_theta": 10_000.0,
        "moba": None if kind == "full" else {"block_size": BLOCK, "top_k": TOP_K},
    }  # fmt: skip
    return init_weights(Transformer(validate(ModelConfig, values, kind)), seed)


def lesson(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Tokens ``[BATCH, LENGTH]``, the last of which are keys and values by turns; and the places of
    the needles that were asked for, in their order."""

    def drawn(count: int, of: int) -> Tensor:
        return torch.rand(BATCH, of, generator=generator).argsort(1)[:, :count]

    tokens = torch.randint(FILLER, (BATCH, LENGTH), generator=generator) + NOISE
    places, keys, asked = drawn(NEEDLES, HAY), drawn(NEEDLES, KEYS), drawn(ASKED, NEEDLES)
    values = torch.randint(VALUES, (BATCH, NEEDLES), generator=generator)
    tokens.scatter_(1, places, keys * VALUES + values)
    tokens[:, HAY::2] = keys.gather(1, asked) + KEY
    tokens[:, HAY + 1 :: 2] = values.gather(1, asked) + VALUE
    return tokens, places.gather(1, asked)


def trained(kind: str, seed: int) -> Transformer:
    """The model after its lessons, kept under ``OUT``."""
    path = OUT / f"{kind}-{seed}.pt"
    model = model_of(kind, seed)
    if path.is_file():
        model.load_state_dict(torch.load(path))
        return model
    if kind == "then":
        model.load_state_dict(trained("full", seed).state_dict())
    generator = torch.Generator().manual_seed(seed + (100 if kind == "then" else 0))
    optimizer = build_optimizer(model, OptimConfig(lr=1e-2, qk_clip_tau=None))
    context = packed_context([LENGTH] * BATCH)
    for step in range(STEPS):
        tokens, _ = lesson(generator)
        hidden = model(tokens.flatten(), context.positions_T, context).hidden_TD
        rows = hidden.view(BATCH, LENGTH, -1)[:, HAY::2].flatten(0, 1)  # those of the keys
        loss = F.cross_entropy(model.logits(rows), tokens[:, HAY + 1 :: 2].flatten())
        factor = min(1.0, (step + 1) / 50, (STEPS - step) / (STEPS / 2))
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0 or step == STEPS - 1:
            print(f"{kind} seed {seed} step {step}: loss {float(loss.detach()):.3f}", flush=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), path)
    return model


@torch.no_grad()
def accuracy(model: Transformer, seed: int) -> list[float]:
    """Share of right values at each depth, first to last."""
    generator = torch.Generator().manual_seed(1000 + seed)
    context = packed_context([LENGTH] * BATCH)
    right, tried = torch.zeros(DEPTHS), torch.zeros(DEPTHS)
    while int(tried.min()) < TRIES:
        tokens, places = lesson(generator)
        hidden = model(tokens.flatten(), context.positions_T, context).hidden_TD
        said = model.logits(hidden.view(BATCH, LENGTH, -1)[:, HAY::2]).argmax(-1)
        depth = (places * DEPTHS // HAY).flatten()
        right += depth.bincount((said == tokens[:, HAY + 1 :: 2]).flatten().float(), DEPTHS)
        tried += depth.bincount(minlength=DEPTHS)
    return (right / tried).tolist()


def reading(model: Transformer, top_k: int | None) -> Transformer:
    """The same weights, reading so many blocks; None: everything."""
    moba = None if top_k is None else MobaConfig(block_size=BLOCK, top_k=top_k)
    other = Transformer(model.config.model_copy(update={"moba": moba}))
    other.load_state_dict(model.state_dict())
    return other


def measured(kind: str, seed: int) -> dict[str, list[float]]:
    """Accuracies by depth: by how many blocks are read, and with full attention."""
    path = OUT / f"{kind}-{seed}.json"
    if not path.is_file():
        model = trained(kind, seed)
        found = {str(k): accuracy(reading(model, k), seed) for k in TESTED}
        found["full"] = accuracy(reading(model, None), seed)
        atomic.write_text(path, json.dumps(found))
    return json.loads(path.read_text(encoding="utf-8"))


def over(kind: str, read: str) -> list[float]:
    """Accuracy of each seed, over all depths."""
    return [mean(measured(kind, seed)[read]) for seed in SEEDS]


def report() -> None:
    """The rows."""
    full = over("full", "full")
    for kind, read, name in (
        ("full", "full", "moba.needle.full"),
        ("moba", str(TOP_K), "moba.needle.blocks"),
        ("then", str(TOP_K), "moba.needle.blocks_after_full"),
        ("moba", "full", "moba.needle.blocks_read_whole"),
        ("full", str(TOP_K), "moba.needle.untrained"),
    ):
        values = over(kind, read)
        spread = max(0.05, 3 * stdev(values))
        by_read = ", ".join(f"{k}: {mean(over(kind, str(k))):.2f}" for k in TESTED)
        record(
            name,
            f"needles found in {LENGTH} tokens; trained with {kind}, reads {read} "
            f"{'attention' if read == 'full' else f'blocks of {BLOCK}'}",
            mean(values),
            "share",
            low=max(0.0, mean(values) - spread),
            high=min(1.0, mean(values) + spread),
            runs=len(SEEDS),
            target=None,
            reference=Reference(
                name="trained and read with full attention", value=mean(full), source="same run"
            ),
            command="python -m experiments.moba_needle",
            note=f"at least {TRIES} needles at each of {DEPTHS} depths; chance 0.06; seeds "
            f"{', '.join(f'{v:.3f}' for v in values)}; by blocks read {by_read}",
        )


def draw() -> None:
    """Accuracy by blocks read, and by depth."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for kind in KINDS:
        left.plot(TESTED, [mean(over(kind, str(k))) for k in TESTED], marker="o", label=kind)
        at = "full" if kind == "full" else str(TOP_K)
        depths = [measured(kind, seed)[at] for seed in SEEDS]
        right.plot(
            range(1, DEPTHS + 1), [mean(d) for d in zip(*depths, strict=True)], marker="o",
            label=f"{kind}, as trained",
        )  # fmt: skip
    left.set_xscale("log", base=2)
    left.set_xlabel(f"blocks of {BLOCK} keys that are read ({LENGTH // BLOCK} are all)")
    right.set_xlabel("depth of the needle, eighths of the context")
    for axes in (left, right):
        axes.set_ylim(-0.03, 1.03)
        axes.set_ylabel("needles found")
        axes.legend(frameon=False, title="trained with" if axes is left else None)
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, dpi=110, facecolor="white")


def main(seeds: Sequence[int]) -> None:
    runtime.apply_threads()
    for seed in seeds or SEEDS:
        for kind in KINDS:
            found = measured(kind, seed)
            told = "  ".join(f"{read}: {mean(values):.3f}" for read, values in found.items())
            print(f"{kind} seed {seed}, by blocks read: {told}", flush=True)
    if not seeds:
        report()
        draw()


if __name__ == "__main__":
    main([int(seed) for seed in sys.argv[1:]])
