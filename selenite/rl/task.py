"""Reinforcement learning as a task of the loop: act, score, learn, hand the weights over.

next_batch    groups of rollouts under the current weights ─► advantages ─► micro-batches
loss          the objective on what was sampled, and on what must not be forgotten (PTX)
after_update  QK-Clip, balancing; the next version of the weights ─► the engine
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from selenite.chat.tokenizer import Tokenizer
from selenite.clock import Clock
from selenite.data.packing import MicroBatch
from selenite.errors import DataError
from selenite.model.transformer import Transformer
from selenite.ops.logprobs import token_logprobs
from selenite.optim.schedule import Schedule
from selenite.rl import journal
from selenite.rl.batch import Group, RolloutBatch, Usage, counts, rollout_batches, teachable
from selenite.rl.config import RlConfig
from selenite.rl.gym.environment import HELD_OUT, Environment
from selenite.rl.objective import Scored
from selenite.rl.producer import GroupSource
from selenite.rl.rollout import TAUGHT, Rollout, Status
from selenite.rl.tasks import Assigned
from selenite.rl.weights import Bus
from selenite.runtime import is_batch_invariant
from selenite.train.evaluate import evaluate
from selenite.train.inputs import to_inputs
from selenite.train.language_model_task import BatchSource, LanguageModelTask
from selenite.train.task import Phase, Sample

_MOST_EMPTY = 16  # iterations in a row of which nothing can be learnt
_EVALUATION_SEED = 1 << 32  # beyond every run's


class RlTask(LanguageModelTask):
    """A model that acts and learns.

    Args:
        model: the trainer's.
        config: of the run.
        tokenizer: the model's.
        environments: in the order of ``config.environments``.
        producer: acts by the engine, or did.
        bus: hands weights to the engine, which serves those of ``model`` already.
        ptx: what must not be forgotten; None: nothing.
        held_out: held-out parts of that, by name.
        initial: hashes of the weights that the run begins with.
        clock: for the time that rollouts take.

    ``gaps`` are the differences of the trainer's and the engine's log-probabilities of what was
    sampled, without their sign, by micro-batch of an iteration's first update.
    """

    def __init__(
        self,
        model: Transformer,
        config: RlConfig,
        tokenizer: Tokenizer,
        environments: Sequence[Environment],
        producer: GroupSource,
        bus: Bus,
        ptx: BatchSource | None,
        held_out: Mapping[str, Sequence[MicroBatch]],
        initial: Mapping[str, Any],
        clock: Clock,
    ) -> None:
        schedule = Schedule(config.schedule, config.train.num_steps)
        super().__init__(
            model,
            ptx or _Nothing(),
            config.optim,
            schedule,
            config.train,
            config.lora,
            {"train.init_from": dict(initial), "environments": _identity(config)},
        )
        self._config, self._tokenizer = config, tokenizer
        self._environments, self._producer = environments, producer
        self._bus, self._ptx, self._held_out = bus, ptx, held_out
        self._clock = clock
        self._version = 0  # of the weights that serve
        self._step = 0  # updates so far
        self._groups = list[Group]()
        self._micro_batches = list[RolloutBatch]()
        self._old = dict[int, Tensor]()  # log-probabilities before the iteration's first update
        self._ptx_weight: float | None = None  # None: not measured yet
        self._metrics = dict[str, float]()
        self._seconds = dict[str, float]()  # that acting took, until a step has told them
        self._shown = list[Rollout]()

    @property
    def tokenizer(self) -> Tokenizer:
        return self._tokenizer

    @property
    def temperature(self) -> float:
        """Of what is sampled now: half a cosine from the first to the last (K2, section 3.3.3)."""
        rollouts = self._config.rollouts
        first, last = rollouts.temperature, rollouts.last_temperature
        if last is None:
            return first
        done = self._step / max(1, self._config.train.num_steps - 1)
        return last + (first - last) * (1 + math.cos(math.pi * min(1.0, done))) / 2

    def next_batch(self) -> list[Any]:
        # A run that was stopped in the middle of an iteration begins another one.
        if self._step % self._config.rollouts.updates == 0 or not self._groups:
            self._act()
        self._start_sums()
        self._counts = counts(self._groups)
        ptx = [next(iter(self._loader))] if self._ptx is not None else []
        self._batch = [*(batch.packed for batch in self._micro_batches), *ptx]
        batch = [*enumerate(self._micro_batches), *((None, one) for one in ptx)]
        if ptx and self._ptx_weight is None:
            self._ptx_weight = self._measured_weight(batch)
            self._old.clear()  # what was measured is no part of the step
            self._start_sums()
        return batch

    def loss(self, phase: Phase, micro_batch: Any, batch: Sequence[Any]) -> Tensor:
        place, data = micro_batch
        if place is None:
            ptx = [one for number, one in batch if number is None]
            weight = 1.0 if self._ptx_weight is None else self._ptx_weight
            loss = super().loss(phase, data, ptx)
            self._sums["ptx_loss"] += float(loss.detach())
            return weight * loss
        scored = self._scored(place, data)
        loss, metrics = self._config.objective.loss(scored, self._counts)
        for name, value in metrics.items():
            self._sums[name] += float(value)
        return loss

    def after_update(self, phase: Phase, step: int) -> Mapping[str, float]:
        metrics = {
            **super().after_update(phase, step),
            **self._metrics,
            **self._seconds,
            **self._sums,
        }
        self._seconds = {}  # the iteration's other updates took none of them
        self._step += 1
        if self._step % self._config.rollouts.updates == 0:
            handed = self._bus.publish(self.model, self._version + 1)
            self._version = handed.version
            metrics |= {
                "sync_seconds": handed.seconds,
                "sync_gap": handed.max_gap,
            }
        return metrics

    def evaluate(self) -> Mapping[str, float]:
        found = dict[str, float]()
        settings = self._config.evaluation
        for environment in self._environments:
            tasks = [Assigned(environment, HELD_OUT + i) for i in range(settings.tasks)]
            groups = self._producer.attempt(
                tasks, settings.attempts, _EVALUATION_SEED, settings.temperature
            )
            taught = [r for group in groups for r in group if r.status in TAUGHT]
            rewards = [r.score.value if r.score is not None else 0.0 for r in taught]
            if rewards:
                found[f"val_reward.{environment.name}"] = float(np.mean(rewards))
            found[f"val_failed.{environment.name}"] = float(sum(map(len, groups)) - len(taught))
        for name, batches in self._held_out.items():
            found[f"val_loss.{name}"] = evaluate(self.model, batches).loss
        return found

    def samples(self) -> Sequence[Sample]:
        return [
            Sample(rollout.messages[0].content, rollout.messages[-1].content)
            for rollout in self._shown
            if rollout.messages
        ]

    def state_dict(self) -> dict[str, Any]:
        return {
            **(super().state_dict() if self._ptx is not None else {}),
            "step": self._step,
            "version": self._version,
            "tasks": self._producer.state_dict(),
            "ptx_weight": self._ptx_weight,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if self._ptx is not None:
            super().load_state_dict(state)
        self._step, self._ptx_weight = state["step"], state["ptx_weight"]
        self._producer.load_state_dict(state["tasks"])
        if self._step:
            is_within = self._step % self._config.rollouts.updates > 0  # weights nobody has served
            self._version = self._bus.publish(self.model, state["version"] + is_within).version

    def close(self) -> None:
        """Ends rollouts, and the worker that reads what must not be forgotten."""
        self._producer.close()
        super().close()

    def _start_sums(self) -> None:
        super()._start_sums()
        self._sums = defaultdict[str, float](float)
        self.gaps = list[Tensor]()

    def _act(self) -> None:
        """The rollouts of an iteration."""
        rollouts = self._config.rollouts
        start = self._clock.now()
        usages = list[Usage]()
        for _ in range(_MOST_EMPTY):
            temperature = self.temperature
            found = self._producer.take(rollouts.groups, self._version, temperature)
            self._groups, usage = teachable(found, self._config.objective)
            usages.append(usage)
            if self._groups:
                break
        else:
            raise DataError(
                f"of {_MOST_EMPTY} iterations nothing can be learnt: all attempts at a task earn "
                "the same; choose easier or harder tasks, or raise rollouts.size"
            )
        if self._config.rollouts.replay is None:
            journal.write(self._train.out_dir, self._step, found)
        self._micro_batches = rollout_batches(
            self._groups,
            self._train.micro_batch_tokens,
            shares=not is_batch_invariant(),
            replays=rollouts.routing == "replay",
        )
        self._old.clear()
        flat = [rollout for group in found for rollout in group]
        self._shown = flat[:2]
        self._metrics = {
            "temperature": temperature,
            **_usage_metrics(usages),
            **_rollout_metrics(flat, self._version),
        }
        self._seconds = {"rollout_seconds": self._clock.now() - start, **_seconds(flat)}

    def _scored(self, place: int, data: RolloutBatch) -> Scored:
        inputs = to_inputs(data.packed, self._device, self._stats)
        replay_LTK = None if data.expert_ids_LTK is None else self._there(data.expert_ids_LTK)
        output = self.model(
            inputs.tokens_T,
            inputs.context.positions_T,
            inputs.context,
            replay_LTK,
            checkpoint=self._train.checkpoint_activations,
        )
        self._record_statistics([output])
        rows = torch.from_numpy(np.flatnonzero(data.rollout_T >= 0)).to(self._device)
        rollout_T = self._there(data.rollout_T)[rows]
        is_plain = (data.temperature_R == 1).all()
        logprobs_T = token_logprobs(
            output.hidden_TD[rows],
            self.model.head_weight,
            inputs.targets_T[rows],
            None if is_plain else self._there(data.temperature_R).float()[rollout_T],
        )
        engine_T = self._there(data.engine_logprobs_T)[rows]
        if place not in self._old:
            self._old[place] = logprobs_T.detach()
            self._compare(logprobs_T.detach(), engine_T, output.num_other_L)
        return Scored(
            logprobs_T,
            engine_T if self._config.rollouts.old == "engine" else self._old[place],
            engine_T,
            rollout_T,
            self._there(data.advantages_R).float(),
            self._there(data.weights_R).float(),
        )

    def _compare(self, trainer_T: Tensor, engine_T: Tensor, num_other_L: Tensor | None) -> None:
        """How far trainer and engine are apart on what the engine sampled, and, where its routing
        is replayed, in how many choices of experts."""
        gap_T = (trainer_T - engine_T).abs()
        self.gaps.append(gap_T)
        self._sums["mismatch_mean"] += float(gap_T.sum()) / self._counts.num_tokens
        self._sums["mismatch_max"] = max(self._sums["mismatch_max"], float(gap_T.max()))
        if num_other_L is not None:
            num_routed = sum(batch.num_routed for batch in self._micro_batches)
            self._sums["routing_differs"] += float(num_other_L.sum()) / num_routed

    def _measured_weight(self, batch: Sequence[Any]) -> float:
        """What PTX is multiplied by, so that its gradient has its share of the rollouts'."""
        phase = self.phases[0]
        norms = []
        for is_ptx in (False, True):
            phase.optimizer.zero_grad(set_to_none=True)
            for micro_batch in batch:
                if (micro_batch[0] is None) == is_ptx:
                    self.loss(phase, micro_batch, batch).backward()
            grads = [p.grad for p in phase.parameters() if p.grad is not None]
            norms.append(float(get_total_norm(grads)))
        phase.optimizer.zero_grad(set_to_none=True)
        return self._config.ptx_share * norms[0] / norms[1]

    def _there(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self._device)


class _Nothing:
    """A source of no batches, for a run without PTX."""

    def __iter__(self) -> Iterator[MicroBatch]:
        return iter(())

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing is to be restored."""

    def close(self) -> None:
        """Nothing is to be ended."""


def _identity(config: RlConfig) -> dict[str, Any]:
    """What rollouts come from."""
    return {
        "environments": [part.model_dump(mode="json") for part in config.environments],
        "groups": config.rollouts.groups,
        "size": config.rollouts.size,
    }


def _usage_metrics(usages: Sequence[Usage]) -> dict[str, float]:
    started = sum(usage.num_started for usage in usages)
    return {
        "rollouts": float(started),
        "failed": sum(usage.num_failed for usage in usages) / started,
        "degenerate": sum(usage.num_degenerate for usage in usages) / started,
    }


def _rollout_metrics(rollouts: Sequence[Rollout], version: int) -> dict[str, float]:
    """Of an iteration's last rollouts; rewards, lengths and entropies by environment, too."""
    taught = [rollout for rollout in rollouts if rollout.status in TAUGHT]
    found = dict[str, float]()
    for name in dict.fromkeys(rollout.environment for rollout in taught):
        own = [rollout for rollout in taught if rollout.environment == name]
        found[f"reward.{name}"] = float(np.mean([rollout.reward for rollout in own]))
        found |= {f"{metric}.{name}": value for metric, value in _written(own).items()}
    stale = [version - rollout.oldest_version for rollout in taught if rollout.num_sampled]
    return {
        **found,
        **_written(taught),
        "truncated": float(np.mean([r.status is Status.TRUNCATED for r in taught])),
        "stale": float(max(stale, default=0)),
    }


def _written(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """How long and how sure what the model wrote is."""
    sampled = [rollout.engine_logprobs_T[rollout.is_sampled_T] for rollout in rollouts]
    logprobs = np.concatenate(sampled)
    found = {"length": len(logprobs) / len(sampled)}
    if len(logprobs):
        # An estimate without bias: minus the mean log-probability of what was drawn.
        found["entropy"] = -float(np.mean(logprobs))
    return found


def _seconds(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """What the attempts spent, each by itself: many run at once."""
    return {
        f"seconds.{kind}": sum(rollout.seconds.get(kind, 0.0) for rollout in rollouts)
        for kind in ("generating", "tools", "scoring")
    }
