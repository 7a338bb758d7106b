"""The memory plan: what a pre-training config will hold, before anything is allocated.

The config's own step (model, loss, backward, optimizer) runs on tensors without storage, and the
largest number of live bytes is the plan (``live_bytes.py``). Added to it are the holes that our
allocator keeps between them (``ops/allocator.py``), the process itself and what oneDNN's kernels
take. The corpus is memory-mapped: the kernel drops its pages when memory is short, so it is not
counted.

    selenite doctor configs/nano.toml --measure
"""

from __future__ import annotations

import os
import traceback
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from selenite.errors import MissingExtraError, OutOfMemoryError
from selenite.model.config import preset
from selenite.model.init import init_weights
from selenite.model.lora import attach_adapters
from selenite.model.transformer import Transformer
from selenite.ops import allocator, native
from selenite.ops.causal_attention import order_by_length
from selenite.runtime import (
    Available,
    available_memory,
    choose_device,
    choose_dtype,
    is_out_of_memory,
    mebibytes,
    multiplies_bfloat16,
    torch_dtype,
)
from selenite.train.live_bytes import LiveBytes
from selenite.train.pretrain_config import PretrainConfig, TrainConfig
from selenite.train.pretrain_task import PretrainTask
from selenite.train.random_task import random_task
from selenite.train.step import train_step

# oneDNN keeps the code of this many products at most (ONEDNN_PRIMITIVE_CACHE_CAPACITY).
_ONEDNN_CAPACITY = 1024
# Plans, code and buffers of one product: 620 to 690 KiB, whatever its shape, where the processor
# has avx512_bf16 (torch 2.13). On AMX it is more; there it has not been measured by itself. A
# processor with neither runs oneDNN's reference, which is not compiled.
_ONEDNN_BYTES = 680 * 1024

_NOTES = {
    "process": "Python, torch and our modules",
    "weights": "float32 masters",
    "optimizer state": "Muon 4 bytes, AdamW 8 bytes a parameter",
    "gradients": "float32",
    "weight copies": "weights cast to the compute dtype, kept for the backward pass",
    "activations": "of one micro-batch, saved for its backward pass",
    "working memory": "gradients of activations, recomputed layers, Newton-Schulz buffers",
    "holes": "freed memory that the allocator keeps for the next tensors, at most",
    "kernels": "compiled products that oneDNN keeps",
}


@dataclass(frozen=True)
class Dial:
    """A setting that lowers the peak, and the plan's total with it."""

    setting: str
    total: int


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes at the fullest moment of a training step, by what holds them."""

    parts: dict[str, int]
    moment: str  # "forward and backward", or "optimizer step"
    available: Available
    dials: tuple[Dial, ...] = ()  # empty when the plan fits
    left_out: str = ""  # why holes are not counted, where they cannot be

    @property
    def total(self) -> int:
        """Largest resident size of the process; with ``left_out``, the least that it can be."""
        return sum(self.parts.values())

    @property
    def fits(self) -> bool:
        """Whether the total is within what is available."""
        return self.total <= self.available.num_bytes

    def rows(self) -> list[tuple[str, str, str]]:
        """Name, size and what it is: the parts, their total, and the limit."""
        rows = [(name, mebibytes(size), _NOTES[name]) for name, size in self.parts.items()]
        limit = self.available
        if self.left_out:
            rows.append(("holes", "unknown", self.left_out))
        return [
            *rows,
            ("total", mebibytes(self.total), f"at the fullest moment: {self.moment}"),
            ("available", mebibytes(limit.num_bytes), limit.limit),
        ]

    def lines(self) -> list[str]:
        """The rows and the dials as lines of text."""
        rows = [
            *self.rows(),
            *(("or", mebibytes(d.total), f"with {d.setting}") for d in self.dials),
        ]
        return [f"  {name:<16}{size:>14}  {note}" for name, size, note in rows]


def plan_memory(
    config: PretrainConfig, process: int | None = None, available: Available | None = None
) -> MemoryPlan:
    """The plan of ``config`` on this machine; its dials are tried when it does not fit.

    Args:
        config: the run.
        process: bytes of a process before it builds a model (``process_bytes``); None: this one's,
            after a toy step.
        available: the limit to compare with; None: asked of the machine.

    Raises ``MissingExtraError`` without psutil when either has to be found out.
    """
    if process is None:
        device = choose_device(config.train.device).value
        warm_up(torch_dtype(choose_dtype(config.train.dtype, device).value))
        process = process_bytes()
    available = available_memory() if available is None else available
    parts, moment = _parts(config, process)
    left_out = _why_unknown_holes(choose_device(config.train.device).value)
    plan = MemoryPlan(parts, moment, available, left_out=left_out)
    if plan.fits:
        return plan
    dials = tuple(Dial(setting, _total(changed, process)) for setting, changed in _turned(config))
    fixed = sum(parts.get(name, 0) for name in ("weights", "optimizer state", "gradients"))
    smaller = Dial("a model half as large (model.num_layers)", plan.total - fixed // 2)
    return replace(plan, dials=(*dials, smaller))


def out_of_memory(config: PretrainConfig, process: int, error: BaseException) -> OutOfMemoryError:
    """What training raises when memory ran out: the dials, and what the plan says of each."""
    # The frames in which it happened still hold the step's tensors.
    traceback.clear_frames(error.__traceback__)
    halved = next((setting for setting, _ in _turned(config) if "micro_batch" in setting), None)
    advice = f"halve it ({halved})" if halved else "it cannot be halved"
    cause = next(iter(str(error).splitlines()), type(error).__name__)
    return OutOfMemoryError(
        f"memory ran out with train.micro_batch_tokens={config.train.micro_batch_tokens}: "
        f"{advice}. Checkpoints are intact; run the same command again. ({cause})\n"
        + _plan_of_what_ran_out(config, process)
    )


def _plan_of_what_ran_out(config: PretrainConfig, process: int) -> str:
    try:
        plan = plan_memory(config, process, Available(0, "not enough, as it turned out"))
    except (MemoryError, RuntimeError) as error:  # a plan takes some, too
        if not is_out_of_memory(error):
            raise
        return "Too little is left for the plan of a step; selenite doctor CONFIG prints it."
    best = min(plan.dials, key=lambda dial: dial.total)
    lines = "\n".join(plan.lines())
    return f"The plan of a step, of which most is saved by {best.setting}:\n{lines}"


def process_bytes() -> int:
    """Resident bytes of this process now, with what torch.optim imports at its first optimizer,
    and without what our allocator holds for tensors."""
    import torch._dynamo  # noqa: F401

    counters = allocator.counters()
    held = 0 if counters is None else counters.held
    return int(_psutil().Process().memory_info().rss) - held


def warm_up(dtype: torch.dtype) -> None:
    """Trains a toy model for a step: torch's code is read in and its libraries set up.

    They take over 100 MB at their first use, which belong to the process and not to a model.
    """
    model = preset("nano", vocab_size=512, hidden_size=64, num_layers=2, ffn_hidden_size=64)
    train = TrainConfig(
        out_dir=Path(), steps=2, seq_len=64, batch_tokens=256, micro_batch_tokens=256
    )
    config = PretrainConfig.model_validate(
        {"model": model, "train": train, "data": {"tokenizer": {"vocab_size": 512}}}
    )
    with torch.random.fork_rng():
        task = random_task(config, init_weights(Transformer(model, dtype), seed=0))
    train_step(task, 0)
    task.close()


def _psutil():  # type: ignore[no-untyped-def]
    try:
        import psutil
    except ModuleNotFoundError as error:
        raise MissingExtraError("psutil", "train", "the memory plan") from error
    return psutil


def _turned(config: PretrainConfig) -> list[tuple[str, PretrainConfig]]:
    """The config with each dial turned once, and with both."""
    train = config.train
    turned: list[dict[str, int | bool]] = []
    half = train.micro_batch_tokens // 2
    halved = half >= train.seq_len and train.batch_tokens % half == 0
    if halved:
        turned.append({"micro_batch_tokens": half})
    if not train.checkpoint_activations:
        turned.append({"checkpoint_activations": True})
        if halved:
            turned.append({"micro_batch_tokens": half, "checkpoint_activations": True})
    return [
        (
            " ".join(f"train.{name}={str(value).lower()}" for name, value in changes.items()),
            config.model_copy(update={"train": train.model_copy(update=changes)}),
        )
        for changes in turned
    ]


def _total(config: PretrainConfig, process: int) -> int:
    return sum(_parts(config, process)[0].values())


def _parts(config: PretrainConfig, process: int) -> tuple[dict[str, int], str]:
    """What is held at the fullest moment of a step, and which moment that is."""
    device = choose_device(config.train.device).value
    dtype = choose_dtype(config.train.dtype, device).value
    trace = _trace(config, torch_dtype(dtype))
    moment, fullest = max(trace.moments.items(), key=lambda moment: moment[1].total())
    parts = {"process": process, **fullest}
    if device == "cpu":
        if multiplies_bfloat16(device).value == "bfloat16":
            capacity = int(os.environ.get("ONEDNN_PRIMITIVE_CACHE_CAPACITY", _ONEDNN_CAPACITY))
            parts["kernels"] = min(capacity, trace.num_products) * _ONEDNN_BYTES
        if not _why_unknown_holes(device):
            parts["holes"] = allocator.slack(fullest.total())
    return {name: parts[name] for name in _NOTES if parts.get(name)}, moment


def _why_unknown_holes(device: str) -> str:
    """Why nobody can tell how much freed memory stays with the process; empty where it is known."""
    built = native.availability()
    if device != "cpu" or built.value:
        return ""
    return f"torch's own allocator keeps up to a third more; ours is missing: {built.reason}"


@dataclass(frozen=True)
class _Trace:
    """What the steps without storage showed."""

    moments: dict[str, Counter[str]]  # bytes by what holds them, at the peak of each moment
    num_products: int  # different bfloat16 products


def _trace(config: PretrainConfig, dtype: torch.dtype) -> _Trace:
    """Two micro-batches where the config has as many: the second finds the first's gradients."""
    order_by_length.cache_clear()  # what an earlier plan left there would not be counted
    with LiveBytes() as live:
        with live.label("weights"), torch.device("meta"):
            model = Transformer(config.model, dtype)
            if config.lora is not None:
                attach_adapters(model, config.lora)
        with live.label("optimizer state"):
            task = random_task(config, model)
        moments = _trace_step(task, live)
        task.close()
    return _Trace(moments, len(live.products))


def _trace_step(task: PretrainTask, live: LiveBytes) -> dict[str, Counter[str]]:
    """``train_step`` without its numbers: bytes at the peak of the backward pass and the update."""
    phase = task.phases[0]
    phase.optimizer.zero_grad(set_to_none=True)
    live.restart_peak()
    batch = task.next_batch()[:2]
    for micro_batch in batch:
        with live.label("activations"):
            loss = task.loss(phase, micro_batch, batch)
        with live.label("working memory"):
            loss.backward()
        del loss
    gradients = [p.grad for p in phase.parameters() if p.grad is not None]
    backward = live.peak.by_label.copy()
    held = live.held_at_peak(gradients)
    live.restart_peak()
    with live.label("working memory"):
        phase.optimizer.step()
    optimizer = live.peak.by_label.copy()
    for counted, size in ((backward, held), (optimizer, live.held_at_peak(gradients))):
        counted["working memory"] += counted.pop("other", 0) - size
        counted["gradients"] = size
    return {"forward and backward": backward, "optimizer step": optimizer}
