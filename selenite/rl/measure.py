"""What a model earns in the held-out tasks of a run's environments, without learning from them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from selenite.chat.profile import detect_profile
from selenite.chat.tokenizer import Tokenizer
from selenite.clock import Clock
from selenite.model.hf_adapter import check_tokenizer, load_pretrained
from selenite.rl.actor import Actor
from selenite.rl.config import EvaluationConfig, RlConfig
from selenite.rl.critic.judge import Judged
from selenite.rl.gym.environment import HELD_OUT, Environment
from selenite.rl.producer import GroupSource, Producer
from selenite.rl.rollout import TAUGHT, Rollout
from selenite.rl.serving import serve
from selenite.rl.tasks import Assigned, TaskStream
from selenite.runtime import torch_dtype
from selenite.train.run import decide

_SEED = 1 << 32  # beyond every run's


@dataclass(frozen=True)
class Measured:
    """Attempts at an environment's held-out tasks."""

    environment: str
    rollouts: Sequence[Rollout]  # of those that came to an end, also over their budget
    failed: int  # that the environment or the engine ended

    @property
    def rewards(self) -> list[float]:
        """0 to 1; of an attempt that was cut 0."""
        return [one.score.value if one.score is not None else 0.0 for one in self.rollouts]


def open_environments(config: RlConfig) -> list[Environment]:
    """Those of a run, in its order; a critic's under a name of their own."""
    return [Judged(part.open()) if part.judged else part.open() for part in config.environments]


def held_out(source: GroupSource, environment: Environment, settings: EvaluationConfig) -> Measured:
    """The same tasks and seeds at each call."""
    tasks = [Assigned(environment, HELD_OUT + i) for i in range(settings.tasks)]
    groups = source.attempt(tasks, settings.attempts, _SEED, settings.temperature)
    rollouts = [one for group in groups for one in group if one.status in TAUGHT]
    return Measured(environment.name, rollouts, sum(map(len, groups)) - len(rollouts))


def measure(config: RlConfig, clock: Clock) -> list[Measured]:
    """What ``train.init_from`` earns, in each environment of ``config``. Where a critic judges in a
    run, it is the environment's own score that is told.

    Raises the errors of ``train.run.decide`` and of opening environments.
    """
    train = config.train
    decisions = decide(train)
    device, dtype = decisions["device"].value, torch_dtype(decisions["dtype"].value)
    tokenizer = Tokenizer.load(train.init_from)
    check_tokenizer(train.init_from, tokenizer)
    profile, _ = detect_profile(tokenizer)
    profile.check_vocabulary(tokenizer)
    model = load_pretrained(train.init_from, dtype).to(device)
    environments = open_environments(config)
    stream = TaskStream(environments, [part.weight for part in config.environments])
    with ExitStack() as stack:
        engines, _ = serve(model, device, dtype, config.rollouts, clock, stack)
        actor = Actor(engines, tokenizer, profile, config.rollouts.actor)
        producer = Producer(actor, stream, config.rollouts.size, train.seed)
        stack.callback(producer.close)
        return [held_out(producer, one, config.evaluation) for one in environments]
