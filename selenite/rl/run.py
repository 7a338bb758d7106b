"""Reinforcement learning from a config to a model directory: ``selenite rl``.

model ─► engine ─► environments ─► rollouts ─► task ─► loop ─► model directory, report, summary
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch

from selenite.chat.profile import ChatProfile, detect_profile
from selenite.chat.tokenizer import Tokenizer
from selenite.clock import Clock
from selenite.data.packing import MicroBatch
from selenite.errors import ConfigError, OutOfMemoryError
from selenite.model.hf_adapter import check_tokenizer, load_pretrained, read_config
from selenite.model.lora import add_lora
from selenite.rl.actor import Actor
from selenite.rl.config import RlConfig
from selenite.rl.critic.judge import Judge
from selenite.rl.critic.open import open_critic
from selenite.rl.gym.environment import close
from selenite.rl.journal import Replay
from selenite.rl.measure import open_environments
from selenite.rl.producer import GroupSource, Producer
from selenite.rl.serving import serve
from selenite.rl.task import RlTask
from selenite.rl.tasks import TaskStream
from selenite.rl.weights.bus import Bus, Unserved, WeightBus
from selenite.runtime import Decision, is_out_of_memory, measure_peak, seed_everything, torch_dtype
from selenite.train.curves import check_matplotlib
from selenite.train.initial_model import weight_hashes
from selenite.train.language_model_task import BatchSource
from selenite.train.lock import exclusive
from selenite.train.loop import Outcome, Status, run_held
from selenite.train.progress import make_display
from selenite.train.run import decide, finish, record_config
from selenite.train.run_config import check_adapters
from selenite.train.sft_config import SftConfig, SftTrainConfig
from selenite.train.sft_data import read_data
from selenite.train.summary import Summary

logger = logging.getLogger(__name__)

_PROBE = 64  # tokens that are scored after each hand-over, at most


def rl(
    config: RlConfig, clock: Clock, peak_flops: float | None = None
) -> tuple[Outcome, Summary | None]:
    """Runs or resumes the run of ``config``; when it is finished, exports, reports and sums up.

    The summary is none if a signal stopped the run. ``peak_flops`` as in ``pretrain``. Raises the
    errors of ``train.loop.run``, and ``DataError`` where nothing can be learnt of the tasks.
    """
    check_matplotlib()
    train = config.train
    decisions = decide(train)
    for name, decision in decisions.items():
        logger.info("%s: %s (%s)", name, decision.value, decision.reason)
    with exclusive(train.out_dir):
        try:
            return _rl(config, clock, peak_flops, decisions)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemoryError(
                f"the run does not fit into memory ({error}); lower train.micro_batch_tokens, now "
                f"{train.micro_batch_tokens} (the updates stay as large), or "
                f"rollouts.cache_tokens, now {config.rollouts.cache_tokens}; the same command "
                "goes on"
            ) from error


def _rl(
    config: RlConfig, clock: Clock, peak_flops: float | None, decisions: dict[str, Decision]
) -> tuple[Outcome, Summary | None]:
    """``rl`` in a directory that this process holds."""
    train = config.train
    device, dtype = decisions["device"].value, torch_dtype(decisions["dtype"].value)
    with ExitStack() as stack:
        task = open_task(config, device, dtype, clock, stack)
        if peak_flops is None and device == "cpu":
            with torch.random.fork_rng():  # the measurement draws numbers; the run must not notice
                peak_flops = measure_peak(dtype, clock)
        outcome = run_held(
            task,
            train.num_steps,
            train,
            clock,
            make_display(clock),
            peak_flops,
            on_accepted=lambda: record_config(config, train.out_dir),
        )
        if outcome.status is Status.STOPPED:
            return outcome, None
        adapted = train.init_from if config.lora else None
        return outcome, finish(
            task, config.optim, train.out_dir, outcome, peak_flops, decisions, adapted
        )


def open_task(
    config: RlConfig, device: str, dtype: torch.dtype, clock: Clock, stack: ExitStack
) -> RlTask:
    """The task at its first step, its engine running; ``stack`` ends all of it."""
    train, rollouts = config.train, config.rollouts
    if config.lora is not None:
        check_adapters(config.lora, read_config(train.init_from), config.optim)
    known = _read(config)
    seed_everything(train.seed)
    model = load_pretrained(train.init_from, dtype)
    if rollouts.routing == "replay" and model.config.moe is None:
        raise ConfigError('rollouts.routing = "replay": the model has no experts; leave it out')
    if config.lora is not None:
        model = add_lora(model, config.lora, train.seed)
    model = model.to(device)
    environments = open_environments(config)
    producer: GroupSource
    bus: Bus
    if rollouts.replay is None:
        engines, transport = serve(model, device, dtype, rollouts, clock, stack)
        judge = None
        if config.critic is not None:
            critic = open_critic(
                *(config.critic, engines, known.tokenizer, known.profile),
                *(train.init_from, dtype, clock, stack),
            )
            judge = Judge(critic)
        actor = Actor(
            *(engines, known.tokenizer, known.profile, rollouts.actor),
            wants_routing=rollouts.routing == "replay",
            judge=judge,
        )
        weights = [part.weight for part in config.environments]
        stream = TaskStream(environments, weights, rollouts.pool, train.seed)
        producer = Producer(
            actor, stream, rollouts.size, train.seed, rollouts.ahead, rollouts.most_stale
        )
        first = environments[0].begin(0)
        probe = first.opening[0].content
        close(first)
        ids = tuple(known.tokenizer.encode(probe)[:_PROBE])
        bus = WeightBus(engines, transport, dtype, ids, clock, rollouts.most_stale)
    else:
        producer, bus = Replay(rollouts.replay), Unserved()
    task = RlTask(
        model,
        config,
        known.tokenizer,
        known.profile,
        environments,
        producer,
        bus,
        known.ptx,
        known.held_out,
        {**weight_hashes(train.init_from), **known.identity},
        clock,
    )
    stack.callback(task.close)
    return task


@dataclass(frozen=True)
class _Known:
    """What a run reads: the tokenizer, and what must not be forgotten."""

    tokenizer: Tokenizer
    profile: ChatProfile
    ptx: BatchSource | None
    held_out: Mapping[str, Sequence[MicroBatch]]
    identity: Mapping[str, Any]


def _read(config: RlConfig) -> _Known:
    train = config.train
    if config.ptx:
        given = train.model_dump(mode="json", exclude_unset=True)
        parts = SftConfig(train=SftTrainConfig.model_validate(given), parts=config.ptx)
        data = read_data(parts, may_hold_out_nothing=True)
        return _Known(data.tokenizer, data.profile, data.loader, data.held_out, data.identity)
    tokenizer = Tokenizer.load(train.init_from)
    check_tokenizer(train.init_from, tokenizer)
    profile, why = detect_profile(tokenizer)
    logger.info("profile: %s (%s)", profile.name, why)
    profile.check_vocabulary(tokenizer)
    return _Known(tokenizer, profile, None, {}, {"tokenizer": tokenizer.fingerprint()})
