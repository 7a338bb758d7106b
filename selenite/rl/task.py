"""Reinforcement learning as a task of the loop: act, score, learn, hand the weights over.

next_batch    groups of rollouts under the current weights ─► advantages ─► micro-batches
loss          the objective on what was sampled, and on what must not be forgotten (PTX)
after_update  QK-Clip, balancing; the next version of the weights ─► the engine
"""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from selenite.chat.profile import ChatProfile
from selenite.chat.tokenizer import Tokenizer
from selenite.clock import Clock
from selenite.data.packing import MicroBatch
from selenite.errors import DataError
from selenite.model.transformer import Transformer
from selenite.ops.logprobs import token_logprobs
from selenite.optim.schedule import Schedule
from selenite.rl import journal
from selenite.rl.batch import Group, RolloutBatch, Usage, counts, rollout_batches, teachable
from selenite.rl.budget import Budgets
from selenite.rl.config import RlConfig
from selenite.rl.critic.judge import Judged
from selenite.rl.critic.lessons import LessonBatch, lesson_batches, right_logprobs
from selenite.rl.critic.rewards import judged_metrics, without_length
from selenite.rl.gym.environment import Environment
from selenite.rl.measure import held_out
from selenite.rl.metrics import rollout_metrics, spent, usage_metrics
from selenite.rl.objective import Scored
from selenite.rl.producer import GroupSource
from selenite.rl.rollout import TAUGHT, Rollout
from selenite.rl.weights.bus import Bus
from selenite.runtime import is_batch_invariant
from selenite.train.evaluate import evaluate
from selenite.train.inputs import to_inputs
from selenite.train.language_model_task import BatchSource, LanguageModelTask
from selenite.train.task import Phase, Sample

logger = logging.getLogger(__name__)

_PTX, _CRITIC = "ptx", "critic"  # what is learnt beside rollouts
_MOST_EMPTY = 4  # times that an iteration begins anew because nothing can be learnt of it


class RlTask(LanguageModelTask):
    """A model that acts and learns.

    Args:
        model: the trainer's.
        config: of the run.
        tokenizer: the model's.
        profile: how the model talks.
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
        profile: ChatProfile,
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
        self._config, self._tokenizer, self._profile = config, tokenizer, profile
        self._environments, self._producer = environments, producer
        self._bus, self._ptx, self._held_out = bus, ptx, held_out
        self._clock = clock
        self._budgets = Budgets(config.rollouts.budget)
        self._version = 0  # handed over last; engines that could not take it are behind
        self._step = 0  # updates so far
        self._groups = list[Group]()
        self._micro_batches = list[RolloutBatch]()
        self._old = dict[int, Tensor]()  # log-probabilities before the iteration's first update
        self._weights = dict[str, float]()  # of what is learnt beside rollouts, once measured
        self._shares = {_PTX: config.ptx_share}
        if config.critic is not None:
            self._shares[_CRITIC] = config.critic.share
        self._lessons = list[LessonBatch]()
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
        extra: list[tuple[str, Any]] = [(_CRITIC, lesson) for lesson in self._lessons]
        if self._ptx is not None:
            extra.append((_PTX, next(iter(self._loader))))
        batch = [*enumerate(self._micro_batches), *extra]
        self._batch = [data if kind == _PTX else data.packed for kind, data in batch]
        for kind, share in self._shares.items():
            if kind not in self._weights and any(own == kind for own, _ in extra):
                self._weights[kind] = self._measured_weight(batch, kind, share)
                self._old.clear()  # what was measured is no part of the step
                self._start_sums()
        return batch

    def loss(self, phase: Phase, micro_batch: Any, batch: Sequence[Any]) -> Tensor:
        place, data = micro_batch
        if isinstance(place, str):
            same = [one for kind, one in batch if kind == place]
            loss = super().loss(phase, data, same) if place == _PTX else self._lesson(data, same)
            self._sums[f"{place}_loss"] += float(loss.detach())
            return self._weights.get(place, 1.0) * loss
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
            self._version += 1
            handed = self._bus.publish(self.model, self._version)
            metrics |= {
                "sync_seconds": handed.seconds,
                "sync_gap": handed.max_gap,
                "sync_failed": float(handed.failures),
            }
        return metrics

    def evaluate(self) -> Mapping[str, float]:
        found = dict[str, float]()
        settings = self._config.evaluation
        for environment in self._environments:
            measured = held_out(self._producer, environment, settings)
            if measured.rollouts:
                lengths = [rollout.num_sampled for rollout in measured.rollouts]
                found[f"val_reward.{environment.name}"] = float(np.mean(measured.rewards))
                found[f"val_length.{environment.name}"] = float(np.mean(lengths))
            found[f"val_failed.{environment.name}"] = float(measured.failed)
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
            "budgets": self._budgets.state_dict(),
            "weights": dict(self._weights),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if self._ptx is not None:
            super().load_state_dict(state)
        self._step, self._weights = state["step"], dict(state["weights"])
        self._producer.load_state_dict(state["tasks"])
        self._budgets.load_state_dict(state["budgets"])
        if self._step:
            is_within = self._step % self._config.rollouts.updates > 0  # weights nobody has served
            self._version = state["version"] + is_within
            self._bus.publish(self.model, self._version)

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
        for tried in range(1, _MOST_EMPTY + 1):
            temperature = self.temperature
            found = self._producer.take(
                rollouts.groups, self._version, temperature, self._budgets.limits
            )
            earned = self._budgets.rewards(found, self._step // rollouts.updates)
            earned, bias = without_length(earned, self._removes_length)
            is_last = tried == _MOST_EMPTY
            self._groups, usage = teachable(earned, self._config.objective, keep_equal=is_last)
            usages.append(usage)
            if self._groups:
                break
        else:
            reason = next(r.reason for group in found for r in group if r.status not in TAUGHT)
            raise DataError(
                f"in {_MOST_EMPTY} iterations no attempt came to an end (the last one: {reason}); "
                "mend the environment"
            )
        if usage.num_taught == 0:
            logger.warning(
                "step %d: all attempts at each of %d tasks earn the same (%.2f in the mean), so "
                "that nothing pulls; choose harder or easier tasks, or raise rollouts.size",
                self._step + 1,
                len(usages) * rollouts.groups,
                np.mean([r.reward for group in self._groups for r in group.rollouts]),
            )
        self._budgets.learn(found)  # of what the journal has: a replay knows the same
        if self._config.rollouts.replay is None:
            journal.write(self._train.out_dir, self._step, found)
        self._micro_batches = rollout_batches(
            self._groups,
            self._train.micro_batch_tokens,
            shares=not is_batch_invariant(),
            replays=rollouts.routing == "replay",
        )
        self._lessons = self._made_lessons(found)
        self._old.clear()
        flat = [rollout for group in found for rollout in group]
        self._shown = flat[:2]
        self._metrics = {
            "temperature": temperature,
            **usage_metrics(usages),
            **rollout_metrics(flat, self._version),
            **judged_metrics(flat),
            **bias,
            **{f"limit.{name}": float(most) for name, most in self._budgets.limits.items()},
        }
        self._seconds = {"rollout_seconds": self._clock.now() - start, **spent(flat)}

    @property
    def _removes_length(self) -> bool:
        return self._config.critic is not None and self._config.critic.removes_length

    def _made_lessons(self, groups: Sequence[Sequence[Rollout]]) -> list[LessonBatch]:
        """What the critic learns of an iteration's attempts."""
        critic = self._config.critic
        if critic is None or not critic.learns:
            return []
        judged = {one.name for one in self._environments if isinstance(one, Judged)}
        known = [group for group in groups if group[0].environment not in judged]
        return lesson_batches(
            known,
            self._tokenizer,
            self._profile,
            critic.sentences,
            self._train.micro_batch_tokens,
        )

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

    def _lesson(self, data: LessonBatch, batch: Sequence[LessonBatch]) -> Tensor:
        """Cross-entropy of the right letter against the other one, the mean over all lessons."""
        inputs = to_inputs(data.packed, self._device, self._stats)
        output = self.model(
            inputs.tokens_T,
            inputs.context.positions_T,
            inputs.context,
            checkpoint=self._train.checkpoint_activations,
        )
        self._record_statistics([output])
        logprobs_N = right_logprobs(output.hidden_TD, self.model.head_weight, data)
        total = sum(len(one.rows_N) for one in batch)
        self._sums["critic_sure"] += float(logprobs_N.detach().exp().sum()) / total
        return -logprobs_N.sum() / total

    def _measured_weight(self, batch: Sequence[Any], kind: str, share: float) -> float:
        """What the micro-batches of a kind are multiplied by, so that their gradient has its share
        of the rollouts'."""
        phase = self.phases[0]
        norms = []
        for is_kind in (False, True):
            phase.optimizer.zero_grad(set_to_none=True)
            for micro_batch in batch:
                if micro_batch[0] == kind if is_kind else isinstance(micro_batch[0], int):
                    self.loss(phase, micro_batch, batch).backward()
            grads = [p.grad for p in phase.parameters() if p.grad is not None]
            norms.append(float(get_total_norm(grads)))
        phase.optimizer.zero_grad(set_to_none=True)
        return share * norms[0] / norms[1]

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
