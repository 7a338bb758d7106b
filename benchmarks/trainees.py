"""Who takes part in ``train_speed``: a training step of ours, or of transformers', ready to time.

All start from the same weights and read the same tokens: documents of ``seq_len`` tokens, so that
none is padded. Each lives in a process of its own: oneDNN keeps 1,024 compiled products at most,
and transformers' experts need hundreds of new ones at every step, which would push out ours.
"""

from __future__ import annotations

import multiprocessing
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import torch
from torch.nn.utils import clip_grad_norm_

from selenite.clock import SystemClock
from selenite.data.packing import PackedStream
from selenite.model.hf_adapter import save_pretrained
from selenite.model.init import init_weights
from selenite.model.transformer import Transformer
from selenite.ops import allocator
from selenite.optim.schedule import Schedule
from selenite.runtime import apply_threads, torch_dtype
from selenite.train.pretrain_config import PretrainConfig
from selenite.train.random_task import random_shard, random_task
from selenite.train.step import train_step

DType = Literal["bfloat16", "float32"]
Optimizer = Literal["muonclip", "adamw"]

NUM_BATCHES = 4  # different ones; then they come again in another order


@dataclass(frozen=True)
class Work:
    """What every trainee does: the steps of ``config``, from the weights in a directory."""

    config: PretrainConfig  # one micro-batch a step
    weights: Path  # as transformers reads it

    @property
    def lengths(self) -> list[int]:
        """Of the documents: all alike."""
        train = self.config.train
        return [train.seq_len] * (NUM_BATCHES * train.batch_tokens // train.seq_len)


def prepare(config: PretrainConfig, directory: Path) -> Work:
    """The work of ``config``; its initial weights are written to ``directory``."""
    assert config.train.micro_batches == 1, config.train
    assert config.train.batch_tokens % config.train.seq_len == 0, config.train
    save_pretrained(init_weights(Transformer(config.model), config.train.seed), directory)
    return Work(config, directory)


@dataclass(frozen=True)
class Step:
    """What a step took, and what shows that it was the same work."""

    seconds: float
    loss: float
    grad_norm: float  # before clipping


class Trainee(Protocol):
    """A model with its optimizer, somewhere in its training."""

    def step(self) -> Step:
        """Trains on the next batch."""
        ...


@dataclass(frozen=True)
class Ours:
    """A setting of ours: the step that ``selenite pretrain`` takes, master weights in float32.

    With ``muonclip`` it holds all that a run's step does: QK-Clip with its statistic, router
    balancing, the check for values that are not finite. With ``adamw`` there is no QK-Clip.
    """

    dtype: DType  # of activations and products
    optimizer: Optimizer = "muonclip"

    def __str__(self) -> str:
        return f"ours, {self.optimizer}, {self.dtype}"

    def build(self, work: Work) -> Trainee:
        return _OurTrainee(self, work)


@dataclass(frozen=True)
class Theirs:
    """A setting of transformers, with fused AdamW."""

    precision: Literal["float32", "autocast", "bfloat16"]
    """``autocast``: float32 weights, products in bfloat16; ``bfloat16``: the weights, too."""
    attention: Literal["eager", "sdpa"]
    experts: Literal["eager", "grouped_mm"] | None = None  # None: a dense model

    @property
    def dtype(self) -> DType:
        """Of the products."""
        return "float32" if self.precision == "float32" else "bfloat16"

    def __str__(self) -> str:
        weights = {
            "float32": "float32",
            "autocast": "bfloat16 autocast",
            "bfloat16": "bfloat16 weights",
        }
        experts = f", {self.experts} experts" if self.experts else ""
        return f"transformers, {weights[self.precision]}, {self.attention} attention{experts}"

    def build(self, work: Work) -> Trainee:
        return _TheirTrainee(self, work)


Setting = Ours | Theirs


class _OurTrainee:
    def __init__(self, setting: Ours, work: Work) -> None:
        allocator.install()
        config = work.config
        if setting.optimizer == "adamw":
            changes = {"name": "adamw", "qk_clip_tau": None, "qk_clip_statistic": "bound"}
            config = config.model_copy(update={"optim": config.optim.model_copy(update=changes)})
        model = Transformer(config.model, torch_dtype(setting.dtype))
        self._task = random_task(config, init_weights(model, config.train.seed), work.lengths)
        self._done = 0

    def step(self) -> Step:
        clock = SystemClock()
        start = clock.now()
        metrics = train_step(self._task, self._done)
        seconds = clock.now() - start
        self._done += 1
        return Step(seconds, metrics["loss"], metrics["grad_norm"])


class _TheirTrainee:
    def __init__(self, setting: Theirs, work: Work) -> None:
        self._setting, self._train, optim = setting, work.config.train, work.config.optim
        self._stream = PackedStream(
            random_shard(work.config, work.lengths), self._train.seq_len, self._train.seed
        )
        self._model = _their_model(setting, work.weights)
        self._optimizer = torch.optim.AdamW(
            self._model.parameters(),
            lr=optim.lr,
            betas=optim.betas,
            eps=optim.eps,
            weight_decay=optim.weight_decay,
            fused=True,
        )
        schedule = Schedule(work.config.schedule, self._train.num_steps)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimizer, schedule.factor)
        self._grad_clip = optim.grad_clip or float("inf")
        self._done = 0

    def step(self) -> Step:
        clock = SystemClock()
        start = clock.now()
        size = self._train.batch_tokens
        tokens_T = torch.from_numpy(self._stream.read(self._done * size, size).tokens_T)
        tokens = tokens_T.view(-1, self._train.seq_len)
        with torch.autocast("cpu", torch.bfloat16, enabled=self._setting.precision == "autocast"):
            loss = self._model(input_ids=tokens, labels=tokens, use_cache=False).loss
        loss.backward()
        grad_norm = clip_grad_norm_(self._model.parameters(), self._grad_clip)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._schedule.step()
        self._done += 1
        metrics = float(loss.detach()), float(grad_norm)
        return Step(clock.now() - start, *metrics)


def _their_model(setting: Theirs, weights: Path) -> Any:
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    chosen = {"experts_implementation": setting.experts} if setting.experts else {}
    model = transformers.AutoModelForCausalLM.from_pretrained(
        weights,
        dtype=torch.bfloat16 if setting.precision == "bfloat16" else torch.float32,
        attn_implementation=setting.attention,
        **chosen,
    )
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()  # out of the mapped file, into aligned memory
    return model.train()


class Remote:
    """A trainee in a new process, on all cores that this one may use; a context manager."""

    def __init__(self, setting: Setting, work: Work) -> None:
        self._setting = setting
        context = multiprocessing.get_context("spawn")
        self._pipe, far_end = context.Pipe()
        self._process = context.Process(target=_serve, args=(far_end, setting, work), daemon=True)
        self._process.start()
        far_end.close()

    def step(self) -> Step:
        """Waits for the next step; raises ``RuntimeError`` if the process ended instead."""
        try:
            self._pipe.send(None)
            step: Step = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join()
            raise RuntimeError(
                f"{self._setting}: its process ended with exit code {self._process.exitcode} "
                "(what it wrote is above; -9: memory ran out)"
            ) from None
        return step

    def close(self) -> None:
        """Ends the process; may be called twice."""
        self._pipe.close()
        self._process.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _serve(pipe: Connection, setting: Setting, work: Work) -> None:
    """One step for each message, until the other end is closed."""
    apply_threads()
    trainee = setting.build(work)
    with suppress(EOFError):
        while True:
            pipe.recv()
            pipe.send(trainee.step())
