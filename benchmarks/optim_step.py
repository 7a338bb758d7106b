"""A whole training step with MuonClip against the same step with fused AdamW.

    python -m benchmarks.optim_step

Forward, backward, gradient clipping and update of ``dense30m`` on 32,768 tokens, in micro-batches;
MuonClip's side also computes QK-Clip's statistic and applies it. The two take turns.
Row: optim.muonclip_step_over_adamw.
"""

from __future__ import annotations

import argparse
import statistics

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.results import Reference, record
from selenite.clock import SystemClock
from selenite.model.config import preset
from selenite.model.init import init_weights
from selenite.model.transformer import Transformer
from selenite.ops.attention_context import StatsRequest, packed_context
from selenite.ops.logprobs import token_logprobs
from selenite.optim.build import OptimConfig, build_optimizer
from selenite.optim.qk_clip import MaxLogit, qk_clip
from selenite.runtime import choose_dtype, torch_dtype

LENGTH = 1024
MICRO_BATCH = 4 * LENGTH


class Trainee:
    """A model and its optimizer; ``step`` returns seconds of the whole step and of the update."""

    def __init__(self, config: OptimConfig) -> None:
        self.config = config
        dtype = torch_dtype(choose_dtype().value)
        self.model = init_weights(Transformer(preset("dense30m"), dtype), seed=0)
        if config.name == "muonclip":
            self.optimizer: torch.optim.Optimizer = build_optimizer(self.model, config)
        else:
            self.optimizer = torch.optim.AdamW(
                self.model.parameters(), lr=config.lr, betas=config.betas, fused=True
            )
        self.clips = config.name == "muonclip" and config.qk_clip_tau is not None
        self.max_logit = MaxLogit()

    def step(self, tokens: Tensor) -> tuple[float, float]:
        clock = SystemClock()
        start = clock.now()
        stats = StatsRequest(max_logit=self.config.qk_clip_statistic if self.clips else None)
        for chunk in tokens.split(MICRO_BATCH):
            context = packed_context([LENGTH] * (len(chunk) // LENGTH), stats)
            output = self.model(chunk, context.positions_T, context)
            logprobs = token_logprobs(output.hidden_TD, self.model.head_weight, chunk.roll(-1))
            (-logprobs.sum() / len(tokens)).backward()
            if output.max_logit_LN is not None:
                self.max_logit.update(output.max_logit_LN)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        before_update = clock.now()
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.clips:
            assert self.config.qk_clip_tau is not None
            qk_clip(self.model, self.max_logit.take(), self.config.qk_clip_tau)
        end = clock.now()
        return end - start, end - before_update


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="steps of each, after one to warm up")
    parser.add_argument("--tokens", type=int, default=32_768, help="of a step; other: no row")
    parser.add_argument("--statistic", choices=["exact", "bound"], help="other: no row")
    arguments = parser.parse_args()
    default = OptimConfig()
    statistic = arguments.statistic or default.qk_clip_statistic
    trainees = {
        "muonclip": Trainee(default.model_copy(update={"qk_clip_statistic": statistic})),
        "adamw": Trainee(OptimConfig(name="adamw")),
    }
    tokens = torch.randint(8192, (arguments.tokens,), generator=torch.Generator().manual_seed(0))
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in trainees}
    for run in range(arguments.runs + 1):
        for name in list(trainees) if run % 2 else list(trainees)[::-1]:
            times[name].append(trainees[name].step(tokens))
    table = Table("optimizer", "step s", "of it update s")
    for name, rounds in times.items():
        whole, update = (statistics.median(column) for column in zip(*rounds[1:], strict=True))
        table.add_row(name, f"{whole:.3f}", f"{update:.3f}")
    Console().print(table)
    ratios = sorted(
        ours / theirs
        for (ours, _), (theirs, _) in zip(times["muonclip"][1:], times["adamw"][1:], strict=True)
    )
    print(
        f"MuonClip over AdamW: {statistics.median(ratios):.3f} ({ratios[0]:.3f}-{ratios[-1]:.3f})"
    )
    if arguments.tokens != 32_768 or statistic != default.qk_clip_statistic:
        return
    adamw = statistics.median(whole for whole, _ in times["adamw"][1:])
    record(
        "optim.muonclip_step_over_adamw",
        "Training step of dense30m on 32,768 tokens: MuonClip's time over fused AdamW's",
        statistics.median(ratios),
        "ratio",
        low=ratios[0] * 0.95,
        high=ratios[-1] * 1.05,
        runs=arguments.runs,
        target="<= 1.15",
        reference=Reference(name="fused AdamW step, seconds", value=adamw, source="same run"),
        command="python -m benchmarks.optim_step",
        note=f"{trainees['adamw'].model.compute_dtype}, {torch.get_num_threads()} threads, "
        f"documents of {LENGTH}, QK-Clip statistic: {statistic}",
    )


if __name__ == "__main__":
    main()
