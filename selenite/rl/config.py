"""The config of reinforcement learning: what ``selenite rl`` reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from selenite.config import Config
from selenite.errors import ConfigError
from selenite.model.lora import LoRAConfig
from selenite.optim.build import OptimConfig
from selenite.optim.schedule import Schedule, ScheduleConfig
from selenite.optim.schedule import preset as schedule_preset
from selenite.rl.actor import ActorConfig
from selenite.rl.budget import BudgetConfig
from selenite.rl.critic.config import CriticConfig
from selenite.rl.gym.config import EnvironmentPart
from selenite.rl.objective import K2Config, Objective
from selenite.train.pretrain_config import expanding
from selenite.train.run_config import FromModelConfig
from selenite.train.sft_config import Part


class RlTrainConfig(FromModelConfig):
    """A run that goes on from a model. ``batch_tokens`` is not read: a step has ``groups`` groups,
    in micro-batches of at most ``micro_batch_tokens``."""

    @model_validator(mode="after")
    def _check_steps(self) -> Self:
        if self.steps is None:
            raise ValueError("train.steps: give the number of updates")
        if self.full_attention_from is not None:
            raise ValueError(
                f"train.full_attention_from={self.full_attention_from}: engines read as the model "
                "says all along; leave it out, or switch while fine-tuning"
            )
        return self


class RolloutConfig(Config):
    """What an iteration is made of."""

    groups: int = Field(default=8, ge=1)  # tasks of an iteration
    size: int = Field(default=8, ge=2)  # attempts at each
    updates: int = Field(default=1, ge=1)
    """Updates with the same rollouts. From the second on the policy has moved, and ``tau`` or the
    clipping counts."""
    old: Literal["trainer", "engine"] = "trainer"
    """Whose log-probabilities are the old policy's: the trainer's own before the first update, so
    that what engine and trainer disagree on is no part of the ratio; or the engine's."""
    routing: Literal["own", "replay"] = "own"
    """Whose experts the trainer uses: those that its own routers choose; or those that computed the
    token in the engine, weighed by the trainer's routers."""
    temperature: float = Field(default=1.0, gt=0)
    last_temperature: float | None = Field(default=None, gt=0)
    """Of the last iteration, to which the temperature falls by half a cosine; none: it stays."""
    ahead: int = Field(default=0, ge=0)
    """Groups begun beyond those of the iteration, which go on in the next."""
    most_stale: int = Field(default=1, ge=1)  # updates of the weights that a group may outlive
    pool: int = Field(default=0, ge=0)
    """Tasks of each environment, which come again by how hard they are; 0: each task comes once."""
    budget: BudgetConfig | None = None
    """What attempts may take beyond the environments' own budgets; none: those alone cut."""
    cache_tokens: int = Field(default=16_384, ge=64)  # of each engine
    at_once: int = Field(default=64, ge=1)  # sequences that an engine runs at once
    engines: int = Field(default=0, ge=0)
    """Engines in processes of their own; 0: one in the trainer's process."""
    ray: bool = False
    """Those engines are actors of Ray's, on any of its machines; else children of the trainer."""
    actor: ActorConfig = ActorConfig()
    replay: Path | None = None
    """The directory of a run whose rollouts are learnt from again, without an engine; none: the
    model acts."""

    @model_validator(mode="after")
    def _check_engines(self) -> Self:
        if self.ray and not self.engines:
            raise ValueError(
                "rollouts.ray: engines are actors of Ray's, but there is none outside of the "
                "trainer's process; set rollouts.engines"
            )
        return self


class EvaluationConfig(Config):
    """Held-out tasks, the same every time."""

    tasks: int = Field(default=32, ge=1)  # of each environment
    attempts: int = Field(default=1, ge=1)
    temperature: float = Field(default=0.0, ge=0)


class RlConfig(Config):
    """A run of reinforcement learning."""

    train: RlTrainConfig
    environments: tuple[EnvironmentPart, ...] = Field(min_length=1)
    objective: Objective = K2Config()
    rollouts: RolloutConfig = RolloutConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    optim: OptimConfig = OptimConfig()
    lora: LoRAConfig | None = None
    """Train adapters beside frozen weights; none: train all weights."""
    schedule: Annotated[ScheduleConfig, expanding(schedule_preset)] = ScheduleConfig()
    ptx: tuple[Part, ...] = ()
    """Conversations and text that the model must not forget, as in fine-tuning: one micro-batch a
    step."""
    ptx_share: float = Field(default=0.1, gt=0)
    """The norm of their gradient at the first step, relative to that of the rollouts."""

    critic: CriticConfig | None = None
    """Gives the rewards of environments that are ``judged``; none: there are none of those."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.critic is None and any(part.judged for part in self.environments):
            raise ValueError("environments.judged: nobody judges; give a [critic]")
        try:
            Schedule(self.schedule, self.train.num_steps)
        except ConfigError as error:
            raise ValueError(f"schedule: {error}") from error
        return self
