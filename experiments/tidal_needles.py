"""What chosen tokens lose of needles at 8k, with a model that finds them.

    python -m experiments.tidal_needles

SmolLM2-135M-Instruct as published misses some needles with full attention. Here it first learns to
find them in Python code, with adapters of rank 16: 30 steps of two texts of 2,048 tokens with eight
needles each, then six texts of 8,000 tokens. In prose of 8,000 tokens full attention then finds
nearly all: how many do rows find that read 256 of them? Two layers that choose beside layer 2 are
looked for at that length, by other needles, one after another; then another one instead of layer 2.
Everything is kept under ``OUT``, so that an interrupted call goes on.
Rows: tidal.needle_dense, tidal.needle_loss. Figure: docs/figures/needles8k.png.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.results import FIGURES, Reference, record
from selenite import atomic, runtime
from selenite.chat.tokenizer import Tokenizer
from selenite.eval.longcontext.layers import save_layers, sweep
from selenite.eval.longcontext.text import Found, needles, prose_ids
from selenite.eval.longcontext.told import tell
from selenite.eval.statistics import bootstrap_difference, wilson
from selenite.model.hf_adapter import load_pretrained, read_config, save_pretrained
from selenite.model.lora import LoRAConfig, add_lora, merge_lora
from selenite.model.pack import pack_weights
from selenite.ops.attention_context import packed_context
from selenite.optim.build import OptimConfig, build_optimizer
from selenite.serve.attention_mode import AnyMode, FullAttention, TidalAttention, stored_layers
from selenite.serve.engine.engine import Engine, EngineConfig
from tests.fixtures.smollm2 import smollm2

COMMAND = "python -m experiments.tidal_needles"
OUT = Path("runs/tidal-needles")
MODEL = OUT / "model"
FIGURE = FIGURES / "needles8k.png"
SHOWN = 8  # needles of a lesson
LENGTH, DEPTHS, HAYSTACKS = 8000, 10, 20  # 200 needles


@dataclass(frozen=True)
class Course:
    """Lessons of one length."""

    length: int
    steps: int
    texts: int  # of a step
    lr: float
    seed: int


SHORT = Course(2048, 30, 2, 1e-3, 1000)
LONG = Course(LENGTH, 6, 1, 5e-4, 2000)
BUDGETS = 64, 128, 256  # tokens that are read
SWEPT = 20  # needles by which layers that choose are compared
FULL = "full attention"
MODES: dict[str, AnyMode] = {
    FULL: FullAttention(mode="full"),
    **{f"TidalDecode, {budget}": TidalAttention(mode="tidal", budget=budget) for budget in BUDGETS},
}
DEFAULT = f"TidalDecode, {BUDGETS[-1]}"


def code() -> str:
    """Python's own modules, one after another: no text that the needles are later hidden in."""
    folder = Path(json.__file__).parents[1]
    return "\n\n".join(
        path.read_text(encoding="utf-8", errors="replace") for path in sorted(folder.glob("*.py"))
    )


def lessons(tokenizer: Tokenizer, course: Course) -> Iterator[tuple[Tensor, Tensor]]:
    """Tokens of a text with needles and questions, and the places of the answers' tokens."""
    ids, number = tokenizer.encode(code()[:2_000_000]), 0
    while True:
        found = needles(tokenizer, ids, course.length, SHOWN, 1, seed=course.seed + number)
        random.Random(number).shuffle(found)
        tokens, places = list(found[0].passage.prompt), list[int]()
        for needle in found:
            tokens += needle.passage.told
            places += range(len(tokens) - needle.answer, len(tokens))
        yield torch.tensor(tokens), torch.tensor(places)
        number += 1


def teach(base: Path, directory: Path, course: Course) -> None:
    """Writes the model of ``base``, with full attention, after its lessons."""
    if directory.is_dir():
        return
    tokenizer = Tokenizer.load(base)
    model = add_lora(load_pretrained(base, torch.float32), LoRAConfig(rank=16), 0)
    optimizer = build_optimizer(model, OptimConfig(name="adamw", lr=course.lr, weight_decay=0.0))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    stream = lessons(tokenizer, course)
    for step in range(course.steps):
        losses, right = [], []
        for _ in range(course.texts):
            tokens_T, places_X = next(stream)
            context = packed_context([len(tokens_T)])
            out = model(tokens_T, context.positions_T, context, checkpoint=True)
            logit_XV, answer_X = model.logits(out.hidden_TD[places_X - 1]), tokens_T[places_X]
            loss = F.cross_entropy(logit_XV, answer_X)
            (loss / course.texts).backward()
            losses.append(float(loss.detach()))
            right.append(float((logit_XV.argmax(1) == answer_X).float().mean()))
        factor = min(1.0, 3 * (step + 1) / course.steps, 2 * (course.steps - step) / course.steps)
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        print(f"step {step}: loss {mean(losses):.3f}, tokens right {mean(right):.2f}", flush=True)
    save_pretrained(merge_lora(model), directory)
    tokenizer.save(directory)


def prepare() -> None:
    """The taught model in ``MODEL``, with the layers that choose."""
    dtype = runtime.torch_dtype(runtime.choose_dtype().value)
    teach(smollm2(), OUT / "short", SHORT)
    teach(OUT / "short", MODEL, LONG)
    layers: tuple[int, ...] = ()
    # One beside the usual first one, one more, another first one.
    for number, dropped in enumerate((0, 0, 1)):
        path = OUT / f"layers-{number}.json"
        if not path.is_file():
            kept = layers[dropped:]
            trials = sweep(MODEL, dtype, BUDGETS[-1], LENGTH, SWEPT, kept, print)
            best = min(trials[1:], key=lambda trial: trial.loss)
            atomic.write_text(path, json.dumps(best.layers))
        layers = tuple(json.loads(path.read_bytes()))
    save_layers(MODEL, layers)


def measured() -> dict[str, list[Found]]:
    """Of each mode all needles, in one order; haystacks that were asked before are read."""
    dtype = runtime.torch_dtype(runtime.choose_dtype().value)
    model = pack_weights(load_pretrained(MODEL, dtype).cast(dtype))
    layers = stored_layers(MODEL, model.config)
    assert layers is not None
    tokenizer = Tokenizer.load(MODEL)
    hidden = needles(tokenizer, prose_ids(tokenizer, LENGTH), LENGTH, DEPTHS, HAYSTACKS)
    pages = DEPTHS * 8 + LENGTH // 16 * 2  # prompts that all share, and replies
    engine = Engine(model, EngineConfig(pages, max_running=DEPTHS, tidal_layers=layers))
    engine.warm_up()
    found: dict[str, list[Found]] = {name: [] for name in MODES}
    for number in range(HAYSTACKS):
        some = hidden[number * DEPTHS :][:DEPTHS]
        path = OUT / f"haystack-{number}-{'-'.join(map(str, layers))}.json"
        if not path.is_file():
            passages = [needle.passage for needle in some]
            tell(engine, passages[:1], MODES[FULL])  # the others find its prompt
            heard = {name: tell(engine, passages, mode)[0] for name, mode in MODES.items()}
            answers = {
                name: [asdict(needle.found(own)) for needle, own in zip(some, each, strict=True)]
                for name, each in heard.items()
            }
            atomic.write_text(path, json.dumps(answers))
        for name, answers_ in json.loads(path.read_bytes()).items():
            found[name] += [Found(**answer) for answer in answers_]
        shares = {n: mean(f.is_found for f in own) for n, own in found.items()}
        print(f"{number + 1} haystacks: " + "; ".join(f"{n} {s:.2f}" for n, s in shares.items()))
    return found


def report(found: dict[str, list[Found]]) -> None:
    """The rows."""
    total = len(found[FULL])
    right = {name: [float(needle.is_found) for needle in own] for name, own in found.items()}
    layers = stored_layers(MODEL, read_config(MODEL))
    note = f"SmolLM2-135M taught needles, layers {layers} choose; " + "; ".join(
        f"{name} {mean(own):.3f} ({mean(needle.loss for needle in found[name]):.3f} nats a token)"
        for name, own in right.items()
    )
    low, high = wilson(int(sum(right[FULL])), total)
    record(
        "tidal.needle_dense",
        f"needles that full attention finds at {LENGTH:,} tokens after the model was taught to",
        mean(right[FULL]),
        "share",
        low=low,
        high=high,
        runs=total,
        target=">= 0.95",
        reference=None,
        command=COMMAND,
        note=note,
    )
    lost, low, high = bootstrap_difference(right[DEFAULT], right[FULL])
    record(
        "tidal.needle_loss",
        f"needles at {LENGTH:,} tokens that full attention finds and {DEFAULT} does not, net",
        lost,
        "share",
        low=low,
        high=high,
        runs=total,
        target="<= 0.01",
        reference=Reference(
            name="full attention's own", value=mean(right[FULL]), source="same run"
        ),
        command=COMMAND,
        note=note,
    )


def draw(found: dict[str, list[Found]]) -> None:
    """Needles found, by mode and depth."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 3.8), layout="constrained")
    axes = figure.subplots()
    depths = sorted({needle.depth for needle in found[FULL]})
    grid = [
        [mean(needle.is_found for needle in own if needle.depth == depth) for depth in depths]
        for own in found.values()
    ]
    image = axes.imshow(grid, vmin=0, vmax=1, cmap="viridis", aspect="auto")
    axes.set_yticks(range(len(found)), list(found))
    axes.set_xticks(range(len(depths)), [f"{depth:.0%}" for depth in depths])
    axes.set_xlabel(f"depth of the needle in {LENGTH:,} tokens")
    figure.colorbar(image, ax=axes, label="found")
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, dpi=110, facecolor="white")


def main() -> None:
    runtime.apply_threads()
    prepare()
    found = measured()
    report(found)
    draw(found)


if __name__ == "__main__":
    main()
