"""Fine-tuning on conversations, from a config to a model directory: ``selenite sft``.

    rows, text -> pieces -> micro-batches -> task -> loop -> model directory, report, summary

The run's directory then holds what ``train/pretrain.py`` says. The template that was taught is in
the tokenizer's files, so that whatever serves the model writes prompts as it learnt them.
"""

from __future__ import annotations

import logging
from contextlib import closing

import torch

from selenite.clock import Clock
from selenite.config import validate
from selenite.errors import ConfigError, OutOfMemoryError
from selenite.model.config import ModelConfig
from selenite.model.hf_adapter import load_pretrained, read_config
from selenite.model.lora import add_lora
from selenite.optim.build import build_groups
from selenite.optim.groups import describe
from selenite.runtime import Decision, is_out_of_memory, measure_peak, seed_everything, torch_dtype
from selenite.train.curves import check_matplotlib
from selenite.train.initial_model import weight_hashes
from selenite.train.lock import exclusive
from selenite.train.loop import Outcome, Status, run_held
from selenite.train.progress import make_display
from selenite.train.run import decide, finish, record_config
from selenite.train.run_config import check_adapters, check_switch
from selenite.train.sft_config import ChatPart, SftConfig, SftTrainConfig
from selenite.train.sft_data import read_data, record_corpora
from selenite.train.sft_task import SftTask
from selenite.train.summary import Summary

logger = logging.getLogger(__name__)


def sft(
    config: SftConfig, clock: Clock, peak_flops: float | None = None
) -> tuple[Outcome, Summary | None]:
    """Runs or resumes the run of ``config``; when it is finished, exports, reports and sums up.

    The summary is none if a signal stopped the run. ``peak_flops`` as in ``pretrain``. Raises the
    errors of ``train.loop.run``, and ``DataError`` for conversations that cannot be read.
    """
    check_matplotlib()
    train = config.train
    decisions = decide(train)
    for name, decision in decisions.items():
        logger.info("%s: %s (%s)", name, decision.value, decision.reason)
    with exclusive(train.out_dir):
        try:
            return _sft(config, clock, peak_flops, decisions)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemoryError(
                f"the run does not fit into memory ({error}); lower train.micro_batch_tokens, now "
                f"{train.micro_batch_tokens} (the updates stay as large), or set "
                "train.checkpoint_activations=true; the same command goes on"
            ) from error


def _sft(
    config: SftConfig, clock: Clock, peak_flops: float | None, decisions: dict[str, Decision]
) -> tuple[Outcome, Summary | None]:
    """``sft`` in a directory that this process holds."""
    train = config.train
    device, dtype = decisions["device"].value, torch_dtype(decisions["dtype"].value)
    with closing(build_task(config, device, dtype)) as task:
        if peak_flops is None and device == "cpu":
            with torch.random.fork_rng():  # the measurement draws numbers; the run must not notice
                peak_flops = measure_peak(dtype, clock)
        logger.info("\n%s", describe(build_groups(task.model, config.optim)))
        outcome = run_held(
            task,
            train.num_steps,
            train,
            clock,
            make_display(clock),
            peak_flops,
            on_accepted=lambda: _record(config, task),
        )
        for line in task.usage():
            logger.info(line)
        if outcome.status is Status.STOPPED:
            return outcome, None
        adapted = train.init_from if config.lora else None
        return outcome, finish(
            task, config.optim, train.out_dir, outcome, peak_flops, decisions, adapted
        )


def _dimensions(train: SftTrainConfig) -> ModelConfig:
    """Of the model that is taught, with what its rows are to read."""
    config = read_config(train.init_from)
    if train.attention != "own":
        moba = None if train.attention == "full" else train.attention.model_dump()
        config = validate(ModelConfig, {**config.model_dump(), "moba": moba}, "train.attention")
    check_switch(train, config)
    return config


def build_task(config: SftConfig, device: str, dtype: torch.dtype) -> SftTask:
    """The task at its first step; every draw of the run follows from ``train.seed``."""
    train = config.train
    dimensions = _dimensions(train)
    if train.seq_len > dimensions.max_positions:
        raise ConfigError(
            f"train.seq_len={train.seq_len} exceeds the {dimensions.max_positions} positions of "
            f"{train.init_from}; lower it"
        )
    if config.lora is not None:
        check_adapters(config.lora, dimensions, config.optim)
    elif dimensions.num_nextn_predict_layers:
        _check_lone(config)
    data = read_data(config)
    seed_everything(train.seed)
    model = load_pretrained(train.init_from, dtype, dimensions)
    if config.lora is not None:
        model = add_lora(model, config.lora, train.seed)
    return SftTask(model.to(device), data, config, weight_hashes(train.init_from))


def _check_lone(config: SftConfig) -> None:
    """Extra prediction layers read on from each row to the next, which a shared beginning has
    several of."""
    for part in config.parts:
        if isinstance(part, ChatPart) and part.together > 1:
            raise ConfigError(
                f"part {part.name}: together={part.together} does not go with the extra prediction "
                f"layers of {config.train.init_from}, which are trained, too; set together=1"
            )


def _record(config: SftConfig, task: SftTask) -> None:
    record_config(config, config.train.out_dir)
    record_corpora(config.train.out_dir, task.data.corpora)
