"""Training steps of ours against transformers' on the same model, weights and tokens.

    python -m benchmarks.train_speed            # or: nano, dense30m

Every setting of transformers takes a step or two first; those behind are dropped. The rest and ours
then take turns, and the matrix-product peak is measured between the rounds. The rows are about
AdamW on both sides; ours with MuonClip is measured in the same run and stands in the note.
Rows: train.nano.vs_transformers, train.nano.mfu and the same of dense30m.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.results import ROOT, Reference, record
from benchmarks.trainees import (
    DType,
    Optimizer,
    Ours,
    Remote,
    Setting,
    Step,
    Theirs,
    Trainee,
    Work,
    prepare,
)
from selenite.config import load
from selenite.model.accounting import training_flops_per_token
from selenite.runtime import apply_threads, choose_dtype, measure_peak, torch_dtype
from selenite.train.pretrain_config import PretrainConfig

DROP = 1.5
"""A setting that takes this many times as long as the fastest of its dtype is dropped."""
MOST = 3
"""Settings of transformers that take turns: each process keeps 2 to 3 GiB between its steps."""
TOLERANCE: dict[DType, tuple[float, float]] = {"float32": (1e-4, 1e-3), "bfloat16": (1e-2, 5e-2)}
"""Of the first loss, and relative of its gradient's norm, against ours in float32. In bfloat16 a
product keeps 8 bits, and some tokens take other experts."""


@dataclass(frozen=True)
class Subject:
    """A model to compare on, and what is hoped for."""

    overrides: tuple[str, ...]  # of configs/nano.toml
    optimizer: Optimizer  # of ours in the rows; the other one is measured in the same run
    peer: str  # transformers' class
    speed_target: str
    mfu_target: str


SUBJECTS = {
    "nano": Subject((), "adamw", "DeepseekV3ForCausalLM", ">= 2.5", ">= 0.12"),
    "dense30m": Subject(
        (
            "model.preset=dense30m",
            "train.seq_len=1024",
            "optim.qk_clip_tau=100.0",
            "optim.qk_clip_statistic=bound",
        ),
        "adamw",
        "LlamaForCausalLM",
        ">= 1.3",
        ">= 0.30",
    ),
}


@dataclass
class Rounds:
    """What was measured: in each round a step of every setting; before, between and after the
    rounds the peak of every dtype."""

    config: PretrainConfig
    seconds: dict[Setting, list[float]] = field(default_factory=dict)
    """The first of ours is the one that rows are about."""
    peaks: dict[DType, list[float]] = field(default_factory=dict)  # FLOP/s

    @property
    def ours(self) -> Ours:
        """The setting that rows are about."""
        return next(setting for setting in self.seconds if isinstance(setting, Ours))

    @property
    def tokens(self) -> int:
        """Of a step."""
        return self.config.train.batch_tokens

    @property
    def flops(self) -> float:
        """Of a step, for the model."""
        config = self.config
        return self.tokens * training_flops_per_token(config.model, config.train.seq_len)

    def median(self, setting: Setting) -> float:
        """Seconds of a step."""
        return statistics.median(self.seconds[setting])

    def fastest(self, dtype: DType | None = None) -> Theirs:
        """Of transformers' settings, or of those with ``dtype``."""
        theirs = [s for s in self.seconds if isinstance(s, Theirs) and dtype in (None, s.dtype)]
        return min(theirs, key=self.median)

    def ratios(self, ours: Setting, theirs: Setting) -> list[float]:
        """Speed of ``ours`` over that of ``theirs`` in each round."""
        pairs = zip(self.seconds[ours], self.seconds[theirs], strict=True)
        return [slow / fast for fast, slow in pairs]

    def mfu(self, setting: Setting) -> tuple[float, float, float]:
        """The lowest that single measurements give, that of the medians, the highest."""
        seconds, peaks = self.seconds[setting], self.peaks[setting.dtype]
        return (
            self.flops / max(seconds) / max(peaks),
            self.flops / statistics.median(seconds) / statistics.median(peaks),
            self.flops / min(seconds) / min(peaks),
        )


def our_settings(optimizer: Optimizer, dtypes: Sequence[DType]) -> list[Ours]:
    """``optimizer`` in every dtype, the first one first, and the other optimizer in that."""
    other: Optimizer = "adamw" if optimizer == "muonclip" else "muonclip"
    return [*(Ours(dtype, optimizer) for dtype in dtypes), Ours(dtypes[0], other)]


def their_settings(is_moe: bool, dtypes: Sequence[DType]) -> list[Theirs]:
    """Every combination that is to be had in ``dtypes``."""
    experts = ("grouped_mm", "eager") if is_moe else (None,)
    combined = product(("float32", "autocast", "bfloat16"), ("sdpa", "eager"), experts)
    theirs = [Theirs(*combination) for combination in combined]  # type: ignore[arg-type]
    return [setting for setting in theirs if setting.dtype in dtypes]


def near(seconds: Mapping[Theirs, float]) -> list[Theirs]:
    """The settings that are not far behind: the fastest of each dtype, then the others by time."""
    ranked = sorted(seconds, key=lambda setting: seconds[setting])
    best = {setting.dtype: setting for setting in reversed(ranked)}
    kept = [s for s in ranked if seconds[s] <= DROP * seconds[best[s.dtype]]]
    return sorted(kept, key=lambda setting: setting is not best[setting.dtype])


def check_same_work(setting: Setting, step: Step, reference: Step) -> None:
    """Raises ``RuntimeError`` if the first step of ``setting`` was not that of ``reference``."""
    absolute, relative = TOLERANCE[setting.dtype]
    if (
        abs(step.loss - reference.loss) > absolute
        or abs(step.grad_norm / reference.grad_norm - 1) > relative
    ):
        raise RuntimeError(
            f"{setting}: first loss {step.loss:.6f} and gradient norm {step.grad_norm:.6f}, but "
            f"ours in float32 has {reference.loss:.6f} and {reference.grad_norm:.6f}: not the "
            "same work, so that times cannot be compared"
        )


def start(
    ours: Sequence[Ours], theirs: Sequence[Theirs], work: Work, stack: ExitStack
) -> dict[Setting, Remote]:
    """Trainees in the order of ``ours`` and ``theirs``, after a first step, which is checked and
    warms them up; ``stack`` ends them.

    Of transformers' settings ``MOST`` are left. One that is far behind in its first step takes no
    second, and ends at once.
    """
    standard = next(setting for setting in ours if setting.dtype == "float32")
    trainees: dict[Setting, Remote] = {}
    first: dict[Setting, Step] = {}
    seconds: dict[Theirs, float] = {}
    order: list[Setting] = [standard, *theirs, *(s for s in ours if s != standard)]
    for setting in order:
        trainee = trainees[setting] = stack.enter_context(Remote(setting, work))
        first[setting] = trainee.step()
        check_same_work(setting, first[setting], first[standard])
        if isinstance(setting, Theirs):
            seconds[setting] = first[setting].seconds
            if setting in near(seconds):
                seconds[setting] = min(seconds[setting], trainee.step().seconds)
            print(f"{seconds[setting]:7.2f} s  {setting}", flush=True)
            for behind in set(trainees) & set(seconds) - set(near(seconds)[:MOST]):
                trainees.pop(behind).close()
    return {setting: trainees[setting] for setting in (*ours, *theirs) if setting in trainees}


def take_turns(
    config: PretrainConfig, trainees: Mapping[Setting, Trainee], dtypes: Sequence[DType], runs: int
) -> Rounds:
    """Rounds of one step each, in alternating order."""
    rounds = Rounds(config, {setting: [] for setting in trainees}, {dtype: [] for dtype in dtypes})

    def measure_peaks() -> None:
        for dtype, peaks in rounds.peaks.items():
            peaks.append(measure_peak(torch_dtype(dtype)))

    for run in range(runs):
        measure_peaks()
        for setting in trainees if run % 2 else reversed(list(trainees)):
            rounds.seconds[setting].append(trainees[setting].step().seconds)
        print(f"round {run + 1} of {runs}", flush=True)
    measure_peaks()
    return rounds


def compare(config: PretrainConfig, optimizer: Optimizer, runs: int) -> Rounds:
    """All of the measuring on one model."""
    native: DType = "bfloat16" if choose_dtype().value == "bfloat16" else "float32"
    dtypes: list[DType] = list(dict.fromkeys((native, "float32")))
    ours = our_settings(optimizer, dtypes)
    theirs = their_settings(config.model.moe is not None, dtypes)
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        work = prepare(config, Path(directory))
        return take_turns(config, start(ours, theirs, work, stack), dtypes, runs)


def show(rounds: Rounds) -> None:
    """The table: each setting's step, and how many times as fast the first of ours is."""
    table = Table("setting", "step s", "range", "tokens/s", "MFU", "ours over it")
    for setting in sorted(rounds.seconds, key=rounds.median):
        seconds, median = rounds.seconds[setting], rounds.median(setting)
        table.add_row(
            str(setting),
            f"{median:.3f}",
            f"{min(seconds):.3f}-{max(seconds):.3f}",
            f"{rounds.tokens / median:,.0f}",
            f"{rounds.mfu(setting)[1]:.3f}",
            f"{statistics.median(rounds.ratios(rounds.ours, setting)):.2f}",
        )
    Console(width=130).print(table)
    for dtype, peaks in rounds.peaks.items():
        low, median, high = (f(peaks) / 1e9 for f in (min, statistics.median, max))
        print(f"peak in {dtype}: {median:,.0f} GFLOP/s ({low:,.0f}-{high:,.0f})")
    print(other_ratios(rounds))


def other_ratios(rounds: Rounds) -> str:
    """Ours over transformers' fastest with either optimizer, and over its fastest of each dtype."""
    ours = [setting for setting in rounds.seconds if isinstance(setting, Ours)]
    pairs = [
        *((s.optimizer, s, rounds.fastest()) for s in ours if s.dtype == rounds.ours.dtype),
        *(
            (f"both in {s.dtype}", s, rounds.fastest(s.dtype))
            for s in ours
            if s.optimizer == rounds.ours.optimizer
        ),
    ]
    return ", ".join(
        f"{label} {statistics.median(rounds.ratios(setting, theirs)):.2f}"
        for label, setting, theirs in pairs
    )


def write_rows(name: str, rounds: Rounds) -> None:
    """The two rows of a subject."""
    subject, ours, best, train = SUBJECTS[name], rounds.ours, rounds.fastest(), rounds.config.train
    ratios = sorted(rounds.ratios(ours, best))
    command = f"python -m benchmarks.train_speed {name}"
    shape = (
        f"{train.batch_tokens // train.seq_len} x {train.seq_len} tokens a step in {ours.dtype}, "
        f"{torch.get_num_threads()} threads"
    )
    record(
        f"train.{name}.vs_transformers",
        f"Training {name}: tokens a second with {subject.optimizer} over those of the fastest "
        f"setting of transformers' {subject.peer} with fused AdamW",
        statistics.median(ratios),
        "ratio",
        low=ratios[0] * 0.9,
        high=ratios[-1] * 1.1,
        runs=len(ratios),
        target=subject.speed_target,
        reference=Reference(
            name=f"tokens/s of {best}", value=rounds.tokens / rounds.median(best), source="same run"
        ),
        command=command,
        note=f"{shape}, {rounds.tokens / rounds.median(ours):,.0f} tokens/s; "
        + other_ratios(rounds),
    )
    low, mfu, high = rounds.mfu(ours)
    record(
        f"train.{name}.mfu",
        f"Training {name} with {subject.optimizer}: model FLOPs a second over the matrix-product "
        "peak of the same dtype, measured between the steps",
        mfu,
        "fraction",
        low=low * 0.95,
        high=high * 1.05,
        runs=len(ratios),
        target=subject.mfu_target,
        reference=Reference(
            name="peak, GFLOP/s",
            value=statistics.median(rounds.peaks[ours.dtype]) / 1e9,
            source="same run",
        ),
        command=command,
        note=f"{shape}; attention over the keys that each token saw",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("subject", nargs="?", choices=SUBJECTS, help="default: each in turn")
    parser.add_argument("--rounds", type=int, default=5, help="other: no row")
    parser.add_argument("--tokens", type=int, help="of a step; given: no row")
    arguments = parser.parse_args()
    apply_threads()
    for name, subject in SUBJECTS.items():
        if arguments.subject not in (None, name):
            continue
        changes = list(subject.overrides)
        if arguments.tokens is not None:
            sizes = ("batch_tokens", "micro_batch_tokens")
            changes += [f"train.{size}={arguments.tokens}" for size in sizes]
        config = load(PretrainConfig, ROOT / "configs" / "nano.toml", changes)
        rounds = compare(config, subject.optimizer, arguments.rounds)
        show(rounds)
        if arguments.tokens is None and arguments.rounds == parser.get_default("rounds"):
            write_rows(name, rounds)


if __name__ == "__main__":
    main()
