"""Updates of ``selenite rl run`` against those of TRL's ``GRPOTrainer``: the same model, prompts,
reward, group size, lengths, objective and optimizer, as many threads, each in its own process.

    make peers; python -m benchmarks.rl_vs_trl            # or: --model small, in some minutes

Both draw at temperature 1 until the model ends its reply or ``--tokens`` are written. The prompts
are our mathematics; the reward (``engines/vowels.py``) takes no time and never leaves a group
without an advantage, as a random or untaught model's mathematics would: a side that drops such
groups would do less work. Each setting of TRL takes two updates first; those behind are dropped,
the others and ours take turns. Row: rl.vs_trl.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.peers import is_built, python_of
from benchmarks.results import Reference, record
from benchmarks.serve_speed import ENGINES, Engine
from selenite.chat.conversation import Conversation
from selenite.chat.profile import detect_profile
from selenite.chat.tokenizer import Tokenizer
from selenite.model.config import preset
from selenite.model.hf_adapter import save_pretrained
from selenite.model.init import init_weights
from selenite.model.transformer import Transformer
from selenite.rl.gym.math_problems import math_questions
from selenite.runtime import apply_threads, choose_dtype
from tests.fixtures.server import TEXTS
from tests.fixtures.smollm2 import smollm2

DROP = 1.15
"""A setting of TRL that takes this many times as long as its fastest is dropped."""
NUM_PROMPTS = 256
VOCABULARY = 600  # of the small model
SIZE = 8  # rollouts of a group


@dataclass(frozen=True)
class Job:
    """What both do; an update has ``groups`` times ``size`` samples."""

    model: str  # a directory
    questions: str  # a file: texts without a template
    prompts: str  # a file: their texts with it, and their ids
    ends: list[int]  # tokens that end a reply
    groups: int
    tokens: int  # of a reply, at most
    threads: int
    dtype: str
    cache_tokens: int
    size: int = SIZE
    lr: float = 1e-6
    micro_batch_tokens: int = 4096


@dataclass(frozen=True)
class Setting:
    """One of TRL's."""

    dtype: str
    micro_batch: int  # samples of a backward pass
    attention: str = "sdpa"

    def __str__(self) -> str:
        return f"TRL, {self.dtype}, {self.micro_batch} samples a pass, {self.attention} attention"


@dataclass
class Rounds:
    """What was measured: an update of each side a round."""

    job: Job
    found: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def rate(self, name: str) -> list[float]:
        """Samples an hour, of each round."""
        samples = self.job.groups * self.job.size
        return [3600 * samples / update["seconds"] for update in self.found[name]]

    def mean(self, name: str, key: str) -> float:
        """Of a number of updates."""
        return statistics.mean(update[key] for update in self.found[name])


OURS = "ours"
TRIALS = 2
TOLD = ("seconds", "generating", "length", "cut")


def settings(job: Job) -> list[Setting]:
    """What is tried of TRL. Its continuous batching needs some eight times as long on a CPU
    (``paged|sdpa``), and no vLLM is beside it."""
    tried = [
        Setting("float32", SIZE),
        Setting("float32", SIZE, "eager"),
        Setting("float32", job.groups * job.size),
    ]
    if job.dtype == "bfloat16":  # the processor multiplies it natively
        tried.append(Setting("bfloat16", SIZE))
    return list(dict.fromkeys(tried))


def small_model(directory: Path) -> Path:
    """A random model that both read, whose replies end by chance after some hundred tokens."""
    folder = directory / "small"
    config = preset("dense30m", vocab_size=VOCABULARY, max_positions=2048)
    tokenizer = Tokenizer.train(TEXTS, VOCABULARY)
    save_pretrained(init_weights(Transformer(config), 0), folder)
    tokenizer.save(folder)
    return folder


def write_prompts(model: Path, directory: Path) -> tuple[Path, Path, list[int], int]:
    """The files and the ends of ``Job``, and the longest prompt's tokens."""
    tokenizer = Tokenizer.load(model)
    profile, _ = detect_profile(tokenizer)
    environment = math_questions(1, 0, 1)
    questions, prompts = [], []
    for number in range(NUM_PROMPTS):
        (message,) = environment.begin(number).opening
        conversation = Conversation.start(tokenizer, (), profile).extended([message])
        ids = list(conversation.prompt_ids())
        questions.append(message.content)
        prompts.append({"ids": ids, "text": tokenizer.decode(ids)})
    for name, content in (("questions", questions), ("prompts", prompts)):
        (directory / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    longest = max(len(prompt["ids"]) for prompt in prompts)
    ends = list(profile.stop_ids(tokenizer))
    return directory / "questions.json", directory / "prompts.json", ends, longest


def update(engine: Engine) -> dict[str, Any]:
    """The next one of a side."""
    return engine.ask({})


def start(job: Job, tried: Sequence[Setting], logs: Path, stack: ExitStack) -> dict[str, Engine]:
    """The sides that take turns, each after its first two updates: the first one warms up."""
    module = "benchmarks.engines.with_selenite_rl"
    ours = [sys.executable, "-m", module, json.dumps(asdict(job))]
    sides = {OURS: stack.enter_context(Engine(ours, logs / "ours"))}
    seconds: dict[str, float] = {}

    def warm(name: str) -> None:
        seconds[name] = min(update(sides[name])["seconds"] for _ in range(TRIALS))
        print(f"{seconds[name]:7.1f} s  {name}", flush=True)

    warm(OURS)
    for setting in tried:
        name = str(setting)
        asked = json.dumps(asdict(job) | asdict(setting))
        command = [str(python_of("trl")), str(ENGINES / "with_trl.py"), asked]
        sides[name] = stack.enter_context(Engine(command, logs / "trl"))
        warm(name)
        best = min(took for other, took in seconds.items() if other != OURS)
        for behind in [n for n in sides if n != OURS and seconds[n] > DROP * best]:
            sides.pop(behind).close()
    return sides


def compare(job: Job, tried: Sequence[Setting], rounds: int, logs: Path) -> Rounds:
    """All of the measuring."""
    with ExitStack() as stack:
        sides = start(job, tried, logs, stack)
        found = Rounds(job, {name: [] for name in sides})
        for number in range(rounds):
            for name in sides if number % 2 else reversed(list(sides)):
                found.found[name].append(update(sides[name]))
                told = {key: found.found[name][-1][key] for key in TOLD}
                print(f"round {number + 1} of {rounds}: {name}: {told}", flush=True)
    return found


def ratios(found: Rounds, peer: str) -> list[float]:
    """Ours over the peer's samples an hour, sorted."""
    pairs = zip(found.rate(OURS), found.rate(peer), strict=True)
    return sorted(ours / theirs for ours, theirs in pairs)


def show(found: Rounds) -> str:
    """Prints the table; the best of TRL."""
    rates = {name: statistics.median(found.rate(name)) for name in found.found}
    best = max((name for name in rates if name != OURS), key=lambda name: rates[name])
    table = Table("side", "samples/h", "range", "generating s", "rest s", "tokens a reply", "cut")
    for name, rate in sorted(rates.items(), key=lambda pair: -pair[1]):
        generating = found.mean(name, "generating")
        table.add_row(
            name,
            f"{rate:,.0f}",
            f"{min(found.rate(name)):,.0f}-{max(found.rate(name)):,.0f}",
            f"{generating:.1f}",
            f"{found.mean(name, 'seconds') - generating:.1f}",
            f"{found.mean(name, 'length'):.0f}",
            f"{found.mean(name, 'cut'):.2f}",
        )
    Console(width=130).print(table)
    ratio = ratios(found, best)
    spread = f"{ratio[0]:.2f}-{ratio[-1]:.2f}"
    print(f"ours over {best}: {statistics.median(ratio):.2f} ({spread})")
    print("ours:", {n: round(v, 2) for n, v in last(found.found[OURS]).items()})
    return best


def last(updates: Sequence[Mapping[str, Any]]) -> Mapping[str, float]:
    """What the newest update says of its time."""
    found: Mapping[str, float] = updates[-1]["other"]
    return found


def write_row(found: Rounds, best: str) -> None:
    """The row."""
    job, ratio = found.job, ratios(found, best)
    split = ", ".join(
        f"{name}: {found.mean(name, 'generating'):.1f} s generating and "
        f"{found.mean(name, 'seconds') - found.mean(name, 'generating'):.1f} s for the rest, "
        f"{found.mean(name, 'length'):.0f} tokens a reply"
        for name in (OURS, best)
    )
    record(
        "rl.vs_trl",
        "SmolLM2-135M-Instruct with GRPO: samples an hour of selenite rl over those of TRL's "
        "GRPOTrainer at its best setting",
        statistics.median(ratio),
        "ratio",
        low=ratio[0] * 0.9,
        high=ratio[-1] * 1.1,
        runs=len(ratio),
        target=">= 2",
        reference=Reference(
            name=f"samples/h of {best}",
            value=statistics.median(found.rate(best)),
            source="same run",
        ),
        command="python -m benchmarks.rl_vs_trl",
        note=f"{job.groups} groups of {job.size}, at most {job.tokens} tokens, {job.threads} "
        f"threads; {split}; degenerate of ours {found.mean(OURS, 'degenerate'):.2f}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=("smollm2", "small"), default="smollm2")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--groups", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--threads", type=int, help="default: as a run chooses; other: no row")
    arguments = parser.parse_args()
    if not is_built("trl"):
        sys.exit("error: make peers builds TRL's environment, which is not there")
    threads = arguments.threads or int(apply_threads().value)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = smollm2() if arguments.model == "smollm2" else small_model(folder)
        questions, prompts, ends, longest = write_prompts(model, folder)
        samples = arguments.groups * SIZE
        job = Job(
            str(model),
            str(questions),
            str(prompts),
            ends,
            arguments.groups,
            arguments.tokens,
            threads,
            "bfloat16" if choose_dtype().value == "bfloat16" else "float32",
            samples * (longest + arguments.tokens + 64),
        )
        found = compare(job, settings(job), arguments.rounds, folder)
    best = show(found)
    changed = (name for name in ("rounds", "groups", "tokens", "threads", "model"))
    if all(getattr(arguments, name) == parser.get_default(name) for name in changed):
        write_row(found, best)


if __name__ == "__main__":
    main()
