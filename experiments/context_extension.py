"""Context extension as Kimi K2 does it (section 2.5 of the paper): held-out loss by position.

    selenite pretrain configs/nano.toml
    selenite pretrain configs/nano-anneal.toml
    selenite pretrain configs/nano-long.toml
    python -m experiments.context_extension

Each model reads the same held-out documents of at least ``LENGTH`` tokens, whole. Stage 3 is the
long model under YaRN, which is told that it was trained at a quarter of ``LENGTH``. The table and
docs/figures/context_extension.png have the loss of each range of positions.
Row: train.context_extension.gain, nats per token beyond the pre-training length.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.results import FIGURES, ROOT, record
from selenite import config as config_files
from selenite.data.corpus import TokenCorpus
from selenite.data.loader import evaluation_batches
from selenite.data.packing import MicroBatch
from selenite.data.prepare import prepare
from selenite.model.config import YarnConfig
from selenite.model.hf_adapter import load_pretrained
from selenite.model.transformer import Transformer
from selenite.ops.logprobs import token_logprobs
from selenite.runtime import apply_threads, choose_dtype, torch_dtype
from selenite.train.inputs import to_inputs
from selenite.train.pretrain import PretrainConfig
from selenite.types import IGNORED

TRAINED, LONG, LENGTH = 512, 2048, 8192  # pre-training, stage 2, stage 3
EDGES = (0, 256, 512, 1024, 2048, 4096, 8192)
DOCUMENTS = 12
FIGURE = FIGURES / "context_extension.png"


def extended(directory: Path, max_positions: int, yarn: YarnConfig | None) -> Transformer:
    """The model of a run with room for ``max_positions``, under YaRN or not."""
    trained = load_pretrained(directory)
    changes = {"max_positions": max_positions, "yarn": yarn}
    dtype = torch_dtype(choose_dtype().value)
    model = Transformer(trained.config.model_copy(update=changes), dtype)
    model.load_state_dict(trained.state_dict())
    return model


def long_documents(corpus: TokenCorpus) -> Iterator[MicroBatch]:
    """Held-out documents of at least ``LENGTH`` tokens, cut there; one a micro-batch."""
    shard, found = corpus.val, 0
    for batch in evaluation_batches(shard, shard.num_tokens, LENGTH):
        pieces = batch.document_T
        for piece in range(int(pieces.max()) + 1):
            rows = pieces == piece
            if rows.sum() < LENGTH or found == DOCUMENTS:
                continue
            found += 1
            yield MicroBatch(
                batch.tokens_T[rows], batch.targets_T[rows], batch.positions_T[rows],
                pieces[rows] * 0, 0,
            )  # fmt: skip


@torch.no_grad()
def loss_by_position(model: Transformer, batches: list[MicroBatch]) -> list[float]:
    """Mean nats per token in each range of ``EDGES``."""
    nats, counts = torch.zeros(len(EDGES) - 1), torch.zeros(len(EDGES) - 1)
    for batch in batches:
        inputs = to_inputs(batch, "cpu")
        positions_T: Tensor = inputs.context.positions_T
        hidden_TD = model(inputs.tokens_T, positions_T, inputs.context).hidden_TD
        loss_T = -token_logprobs(hidden_TD, model.head_weight, inputs.targets_T)
        known_T = inputs.targets_T != IGNORED
        for i, (low, high) in enumerate(pairwise(EDGES)):
            here_T = known_T & (positions_T >= low) & (positions_T < high)
            nats[i] += loss_T[here_T].sum()
            counts[i] += here_T.sum()
    return (nats / counts).tolist()


def draw(losses: Mapping[str, list[float]]) -> None:
    """A line a model over the middle of each range, on a logarithmic axis."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.0), layout="constrained")
    axes = figure.subplots()
    middles = [(low + high) / 2 for low, high in pairwise(EDGES)]
    for name, values in losses.items():
        axes.plot(middles, values, marker="o", markersize=4, label=name)
    for length, label in ((TRAINED, "pre-training"), (LONG, "long stage")):
        axes.axvline(length, color="#999999", linewidth=0.8, linestyle="--")
        axes.annotate(label, (length, axes.get_ylim()[1]), fontsize=8, color="#666666", va="top")
    axes.set_xscale("log", base=2)
    axes.set_xlabel("position in the document")
    axes.set_ylabel("held-out nats per token")
    axes.legend(frameon=False, fontsize=8)
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, dpi=110, facecolor="white")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the three runs are")
    arguments = parser.parse_args()
    apply_threads()
    config = config_files.load(PretrainConfig, ROOT / "configs" / "nano-long.toml")
    corpus = prepare(config.data, config.train.data_cache)  # type: ignore[arg-type]
    batches = list(long_documents(corpus))
    yarn = YarnConfig(factor=LENGTH / LONG, original_max_positions=LONG)
    runs = arguments.runs
    subjects = {
        "pre-trained": (runs / "nano", None),
        "1 annealed": (runs / "nano-anneal", None),
        "2 long": (runs / "nano-long", None),
        "3 long, YaRN": (runs / "nano-long", yarn),
    }
    losses = {
        name: loss_by_position(extended(directory, LENGTH, scaling), batches)
        for name, (directory, scaling) in subjects.items()
    }
    ranges = [f"{low}-{high - 1}" for low, high in pairwise(EDGES)]
    table = Table("positions", *losses)
    for row, name in enumerate(ranges):
        table.add_row(name, *(f"{values[row]:.3f}" for values in losses.values()))
    Console().print(table)
    print(f"{len(batches)} held-out documents of {LENGTH:,} tokens")
    # Beyond the pre-training length, within that of stage 2.
    places = [i for i, low in enumerate(EDGES[:-1]) if TRAINED <= low < LONG]

    def beyond(name: str) -> float:
        weights = [EDGES[i + 1] - EDGES[i] for i in places]
        total = sum(w * losses[name][i] for w, i in zip(weights, places, strict=True))
        return total / sum(weights)

    gain = beyond("pre-trained") - beyond("2 long")
    annealed = beyond("pre-trained") - beyond("1 annealed")
    record(
        "train.context_extension.gain",
        "nano after anneal and long stage: held-out nats per token lower at positions 512 to 2,047",
        gain,
        "nats",
        low=gain - 0.05,
        high=gain + 0.05,
        runs=1,
        target=">= 0",
        reference=None,
        command="python -m experiments.context_extension",
        note=f"of it by the anneal alone: {annealed:.3f}; {len(batches)} documents of {LENGTH:,} "
        "tokens; the margin is that of another seed's training, not measured",
    )
    draw(losses)  # last: a row is written on a clean tree


if __name__ == "__main__":
    main()
