"""What rows that choose blocks find in long contexts: needles in filler, asked for at the end.

    python -m experiments.moba_needle [SEED ...]

A needle is one token that stands for a key and a value; 16 of them lie at random places among 480
tokens of filler, and are then asked for by their keys. A small model learns it with full attention;
with 64 of 512 tokens, in blocks of 8; with such blocks after as many lessons with full attention
(``then``); and with full attention after blocks, for a tenth as many lessons as in the paper's
hybrid (``hybrid``), or for as many (``back``). How often is the value right, by the needle's depth,
and by how much may be read, and in blocks of what size, when the model is used? The mean of a block
tells of one token in it the better, the smaller the block.
Rows: moba.needle.*. Figure: docs/figures/moba_needle.png.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.results import FIGURES, Reference, record
from selenite import atomic, runtime
from selenite.config import validate
from selenite.model.config import MobaConfig, ModelConfig
from selenite.model.init import init_weights
from selenite.model.transformer import Transformer
from selenite.ops.attention_context import packed_context
from selenite.optim.build import OptimConfig, build_optimizer

OUT = Path("runs/moba-needle")
FIGURE = FIGURES / "moba_needle.png"
SEEDS = (0, 1, 2)
READ = 64  # tokens, of which the row's own block is a part
KEYS, VALUES, FILLER = 16, 8, 16  # kinds of each; a needle is a pair of the first two
NEEDLES = 16
LENGTH, BATCH, STEPS = 512, 8, 600
HAY = LENGTH - 2 * NEEDLES


@dataclass(frozen=True)
class Kind:
    """How a model was trained."""

    block: int | None  # keys of a block; None: with full attention
    after: str | None = None  # the kind that it goes on from
    steps: int = STEPS


KINDS = {
    "full": Kind(None),
    "moba": Kind(8),
    "then": Kind(8, "full"),
    "hybrid": Kind(None, "moba", STEPS // 10),
    "back": Kind(None, "moba"),
}
BLOCKS = (8, 16)
TESTED = (32, 64, 128, 256)  # tokens read when it is used
DEPTHS = 8  # of the context, in equal parts
TRIES = 256  # at each depth
KEY, NOISE, VALUE = KEYS * VALUES, KEYS * VALUES + KEYS, KEYS * VALUES + KEYS + FILLER


def moba_of(block: int, read: int) -> MobaConfig:
    return MobaConfig(block_size=block, top_k=read // block)


def model_of(kind: str, seed: int) -> Transformer:
    block = KINDS[kind].block
    values = {
        "attention": "gqa", "vocab_size": VALUE + VALUES, "hidden_size": 128, "num_layers": 2,
        "num_heads": 2, "num_kv_heads": 2, "ffn_hidden_size": 256, "max_positions": LENGTH,
        "rope_theta": 10_000.0,
        "moba": None if block is None else moba_of(block, READ).model_dump(),
    }  # fmt: skip
    return init_weights(Transformer(validate(ModelConfig, values, kind)), seed)


def lesson(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Tokens ``[BATCH, LENGTH]``, the last of which are keys and values by turns; and the places of
    the needles that were asked for, in their order."""

    def drawn(count: int, of: int) -> Tensor:
        return torch.rand(BATCH, of, generator=generator).argsort(1)[:, :count]

    tokens = torch.randint(FILLER, (BATCH, LENGTH), generator=generator) + NOISE
    places, keys = drawn(NEEDLES, HAY), drawn(NEEDLES, KEYS)
    values = torch.randint(VALUES, (BATCH, NEEDLES), generator=generator)
    tokens.scatter_(1, places, keys * VALUES + values)
    tokens[:, HAY::2] = keys + KEY
    tokens[:, HAY + 1 :: 2] = values + VALUE
    return tokens, places


def trained(kind: str, seed: int) -> Transformer:
    """The model after its lessons, kept under ``OUT``."""
    path, known = OUT / f"{kind}-{seed}.pt", KINDS[kind]
    model = model_of(kind, seed)
    if path.is_file():
        model.load_state_dict(torch.load(path))
        return model
    if known.after is not None:
        model.load_state_dict(trained(known.after, seed).state_dict())
    generator = torch.Generator().manual_seed(seed + (0 if known.after is None else 100))
    optimizer = build_optimizer(model, OptimConfig(lr=1e-2, qk_clip_tau=None))
    context = packed_context([LENGTH] * BATCH)
    for step in range(known.steps):
        tokens, _ = lesson(generator)
        hidden = model(tokens.flatten(), context.positions_T, context).hidden_TD
        rows = hidden.view(BATCH, LENGTH, -1)[:, HAY::2].flatten(0, 1)  # those of the keys
        loss = F.cross_entropy(model.logits(rows), tokens[:, HAY + 1 :: 2].flatten())
        factor = min(1.0, (step + 1) / 50, (known.steps - step) / (known.steps / 2))
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0 or step == known.steps - 1:
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


def reading(model: Transformer, moba: MobaConfig | None) -> Transformer:
    """The same weights, reading blocks; None: everything."""
    other = Transformer(model.config.model_copy(update={"moba": moba}))
    other.load_state_dict(model.state_dict())
    return other


def measured(kind: str, seed: int) -> dict[str, list[float]]:
    """Accuracies by depth: by what is read, and with full attention."""
    path = OUT / f"{kind}-{seed}.json"
    if not path.is_file():
        model = trained(kind, seed)
        found = {"full": accuracy(reading(model, None), seed)}
        own = KINDS[kind].block
        for block in BLOCKS if own is None else (own,):
            for read in TESTED:
                found[f"{read} by {block}"] = accuracy(reading(model, moba_of(block, read)), seed)
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
        ("hybrid", "full", "moba.needle.hybrid"),
        ("back", "full", "moba.needle.back"),
        ("full", f"{READ} by 16", "moba.needle.untrained16"),
        ("full", f"{READ} by 8", "moba.needle.untrained8"),
        ("moba", f"{READ} by 8", "moba.needle.blocks"),
        ("then", f"{READ} by 8", "moba.needle.then"),
    ):
        values = over(kind, read)
        spread = max(0.05, 3 * stdev(values))
        kinds = list(measured(kind, SEEDS[0]))
        by_read = ", ".join(f"{other}: {mean(over(kind, other)):.2f}" for other in kinds)
        tokens, _, block = read.partition(" by ")
        reads = f"reads {tokens} tokens in blocks of {block}" if block else "reads everything"
        record(
            name,
            f"needles found in {LENGTH} tokens; trained with {kind}, {reads}",
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
            note=f"at least {TRIES} needles at each of {DEPTHS} depths; chance 0.12; seeds "
            f"{', '.join(f'{v:.3f}' for v in values)}; tokens read by size of a block {by_read}",
        )


def draw() -> None:
    """Accuracy by what is read, and by depth."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for number, (kind, known) in enumerate(KINDS.items()):
        block = known.block
        for size in BLOCKS if kind == "full" else BLOCKS[:1]:
            left.plot(
                TESTED, [mean(over(kind, f"{read} by {size}")) for read in TESTED], marker="o",
                color=f"C{number}", linestyle="--" if size == 16 else "-",
                label=kind if size == BLOCKS[0] else f"{kind}, blocks of {size}",
            )  # fmt: skip
        at = "full" if block is None else f"{READ} by {block}"
        depths = [measured(kind, seed)[at] for seed in SEEDS]
        right.plot(
            range(1, DEPTHS + 1), [mean(d) for d in zip(*depths, strict=True)], marker="o",
            color=f"C{number}",
        )  # fmt: skip
    left.set_xscale("log", base=2)
    left.set_xticks(TESTED, list(map(str, TESTED)))
    left.set_xlabel(f"tokens that are read, of {LENGTH}")
    right.set_xlabel("depth of the needle, eighths of the context")
    for axes in (left, right):
        axes.set_ylim(-0.03, 1.03)
        axes.set_ylabel("needles found")
    left.set_title(f"by blocks of {BLOCKS[0]}")
    right.set_title("as trained")
    figure.legend(loc="outside right upper", frameon=False, title="trained with")
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
