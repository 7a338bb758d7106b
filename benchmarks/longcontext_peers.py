"""Chosen tokens and merged slots beside what others do, on the same model, texts and needles.

    make peers; python -m benchmarks.longcontext_peers [MODEL] [--lengths 1024 4096] [--each 4]

Peers: presses of NVIDIA's kvpress in transformers, and Quest (``engines/with_kvpress.py``). Each
method has the same share of the prompt: slots that it keeps, or tokens that it reads. H2O of ours
computes a prompt's attention again for each request and is left out above ``H2O_LENGTH`` tokens.
MODEL: SmolLM2-135M-Instruct if none is given; ``experiments/tidal_needles.py`` makes one that finds
more. All cells are kept in dev/results/longcontext/.
Rows: longcontext.*. Figure: docs/figures/longcontext.png.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from rich.console import Console

from benchmarks.peers import is_built, python_of
from benchmarks.results import FIGURES, ROWS, Reference, record
from benchmarks.serve_speed import ENGINES
from selenite.chat.tokenizer import Tokenizer
from selenite.eval.longcontext.methods import FULL, Cell, Sizes, measure_methods, passages_of
from selenite.eval.longcontext.report import tables, write
from selenite.eval.longcontext.text import Found, Needle, prose_ids
from selenite.eval.longcontext.told import Heard, Pace, Passage
from selenite.eval.statistics import bootstrap_difference
from selenite.runtime import apply_threads, choose_dtype, torch_dtype
from tests.fixtures.smollm2 import smollm2

COMMAND = "python -m benchmarks.longcontext_peers"
FIGURE = FIGURES / "longcontext.png"
OURS = ("TidalDecode", "KeepKV", "KeepKV, votes", "SnapKV", "StreamingLLM")
H2O_LENGTH = 1024
SHARES = (0.05, 0.1, 0.2, 0.5)
SPARSE = {"TidalDecode", "Quest"}  # these give nothing up


def sizes_of(length: int, each: int) -> Sizes:
    return Sizes((length,), SHARES, windows=6, told=64, depths=5, each=each, at_once=5)


def theirs(directory: Path, dtype: torch.dtype, sizes: Sizes, length: int) -> list[Cell]:
    """The peers' cells at a length; a process of their own is asked."""
    tokenizer = Tokenizer.load(directory)
    ids = prose_ids(tokenizer, max(sizes.lengths) + sizes.told)
    prompts: dict[tuple[int, ...], list[tuple[Passage, Needle | None]]] = {}
    for passage, needle in passages_of(tokenizer, ids, length, sizes):
        prompts.setdefault(passage.prompt, []).append((passage, needle))
    groups = list(prompts.values())
    with tempfile.TemporaryDirectory() as temporary:
        question, answers = Path(temporary) / "asked.json", Path(temporary) / "told.json"
        job = {
            "model": str(directory),
            "dtype": str(dtype).removeprefix("torch."),
            "threads": torch.get_num_threads(),
            "shares": sizes.shares,
            "passages": [
                {"prompt": group[0][0].prompt, "told": [passage.told for passage, _ in group]}
                for group in groups
            ],
        }
        question.write_text(json.dumps(job), encoding="utf-8")
        script = ENGINES / "with_kvpress.py"
        subprocess.run([python_of("kvpress"), script, question, answers], check=True)
        told: list[dict[str, Any]] = json.loads(answers.read_bytes())
    cells = []
    for name, share in dict.fromkeys((row["method"], row["share"]) for row in told):
        losses, slots = list[float](), list[int]()
        codes, jobs = list[Found](), list[Found]()
        for row in told:
            if (row["method"], row["share"]) != (name, share):
                continue
            _, needle = groups[row["passage"]][row["told"]]
            slots.append(row["slots"])
            if needle is None:
                losses.append(-mean(row["logprobs"]))
            else:
                # The first told token, which the prompt's own pass says, is a question's.
                heard = Heard((0.0, *row["logprobs"]), (True, *row["is_first"]))
                (codes if needle.kind == "code" else jobs).append(needle.found(heard))
        pace = Pace(len(slots), float("nan"), sum(slots))
        found = tuple(codes), tuple(jobs)
        cells.append(Cell(name, length, share, tuple(losses), *found, pace))
    return cells


def of(cells: Sequence[Cell], method: str, length: int, share: float) -> Cell:
    wanted = (method, length, share)
    (cell,) = (c for c in cells if (c.method, c.length, c.share) == wanted)
    return cell


def report(cells: Sequence[Cell], length: int, model: str, command: str) -> None:
    """Rows at a tenth of the longest prompts: ours, and the best of the peers."""
    share = 0.1
    full = of(cells, FULL, length, 1.0)
    peers = [c.method for c in cells if c.method.startswith("kvpress") and c.length == length]
    for ours, others, id in (
        ("TidalDecode", ["Quest"], "tidal10"),
        ("KeepKV", list(dict.fromkeys(peers)), "keepkv10"),
    ):
        own = of(cells, ours, length, share)
        beside = {name: of(cells, name, length, share) for name in others}
        lost = {name: mean(c.losses) - mean(full.losses) for name, c in beside.items()}
        best = min(lost, key=lost.__getitem__)
        value, low, high = bootstrap_difference(full.losses, own.losses)
        record(
            f"longcontext.{id}.loss",
            f"loss of prose after {length:,} tokens beyond full attention's, {ours} with a tenth",
            value,
            "nats",
            low=low,
            high=high,
            runs=len(own.losses),
            target=None,
            reference=Reference(name=best, value=lost[best], source="same run"),
            command=command,
            note=f"{model}; " + "; ".join(f"{n} {v:+.3f}" for n, v in sorted(lost.items())),
        )
        right = {name: mean(needle.is_found for needle in c.needles) for name, c in beside.items()}
        best = max(right, key=right.__getitem__)
        dense = [float(needle.is_found) for needle in full.needles]
        found = [float(needle.is_found) for needle in own.needles]
        _, low, high = bootstrap_difference(dense, found)
        record(
            f"longcontext.{id}.needles",
            f"needles found after {length:,} tokens, {ours} with a tenth",
            mean(found),
            "share",
            low=max(0.0, mean(dense) + low),
            high=min(1.0, mean(dense) + high),
            runs=len(found),
            target=None,
            reference=Reference(name=best, value=right[best], source="same run"),
            command=command,
            note=f"{model}; full attention {mean(dense):.2f}; "
            + "; ".join(f"{n} {v:.2f}" for n, v in sorted(right.items())),
        )


def draw(cells: Sequence[Cell], length: int) -> None:
    """Loss and needles by budget at a length: what gives nothing up, ours, the peers."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    full = of(cells, FULL, length, 1.0)
    dense = mean(needle.is_found for needle in full.needles)
    methods = dict.fromkeys(c.method for c in cells if c.length == length and c.share < 1)
    for number, method in enumerate(methods):
        own = [of(cells, method, length, share) for share in SHARES]
        is_peer = method.startswith("kvpress") or method == "Quest"
        style: dict[str, Any] = {
            "color": f"C{number % 10}",
            "linestyle": ":" if is_peer else "-",
            "marker": "s" if method in SPARSE else "o",
            "markersize": 4,
        }
        beyond = [mean(c.losses) - mean(full.losses) for c in own]
        left.plot(SHARES, beyond, label=method, **style)
        right.plot(SHARES, [mean(n.is_found for n in c.needles) for c in own], **style)
    left.axhline(0.0, color="black", linewidth=0.8)
    right.axhline(dense, color="black", linewidth=0.8)
    left.set_ylabel("loss beyond full attention's, nats a token")
    right.set_ylabel("needles found")
    left.set_yscale("symlog", linthresh=0.02)
    left.set_ylim(-0.005, 2.0)
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xticks(SHARES, [f"{share:.0%}" for share in SHARES])
        axes.set_xticks([], minor=True)
        axes.set_xlabel(f"of {length:,} tokens that are kept, or read")
    figure.legend(loc="outside right upper", frameon=False)
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, dpi=110, facecolor="white")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 4096])
    parser.add_argument("--each", type=int, default=4, help="needles at each of five depths")
    given = parser.parse_args()
    if not is_built("kvpress"):
        raise SystemExit("error: kvpress is not built: make peers")
    apply_threads()
    directory = given.model or smollm2()
    dtype = torch_dtype(choose_dtype().value)
    cells = list[Cell]()
    for length in given.lengths:
        sizes = sizes_of(length, given.each)
        methods = [*OURS, *(["H2O"] if length <= H2O_LENGTH else [])]
        cells += measure_methods(directory, dtype, sizes, methods)
        cells += theirs(directory, dtype, sizes, length)
    for table in tables(cells):
        Console().print(table)
    longest, name = max(given.lengths), directory.resolve().name
    write(ROWS / "longcontext" / f"{name}.json", cells, {"model": name, "dtype": str(dtype)})
    report(cells, longest, name, " ".join((COMMAND, *sys.argv[1:])))
    draw(cells, longest)


if __name__ == "__main__":
    main()
