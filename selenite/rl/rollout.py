"""The record of one attempt at a task: ids as they were sampled, and what came of them.

Letters: ``T`` tokens of the whole conversation, ``P`` the first of them that the engine computed
(all but the last one at least, where nothing failed), ``L`` layers with experts, ``K`` experts of a
token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from selenite.rl.gym.environment import Score
from selenite.types import Message


class Status(StrEnum):
    """How an attempt ended. Only the first two teach anything; the others are counted."""

    DONE = "done"
    TRUNCATED = "truncated"  # over its budget of tokens or turns, or the model's context
    ENVIRONMENT = "environment"  # the environment failed
    TIMEOUT = "timeout"  # the environment took longer than it may
    ENGINE = "engine"  # the engine failed


TAUGHT = frozenset({Status.DONE, Status.TRUNCATED})


@dataclass(frozen=True)
class Judgement:
    """How often a critic compared an attempt with another one, in both orders."""

    comparisons: int
    consistent: int  # in which the order made no difference
    correct: int | None
    """In which the better one, which is known, was found in both orders; none: it is not known, and
    the reward is what the critic says."""


@dataclass(frozen=True)
class Rollout:
    """One attempt. Written by the actor, read by the trainer and by people."""

    environment: str
    task: int  # number of the task
    number: int  # in its group
    token_ids_T: np.ndarray  # int64
    is_sampled_T: np.ndarray  # bool: the model drew it freely, so it is learnt
    engine_logprobs_T: np.ndarray
    """Float32, under the distribution that it was drawn from (after temperature); NaN unless
    sampled."""
    temperature: float  # that it was drawn at
    weight_version_T: np.ndarray  # int64: of the weights that drew it; -1 unless sampled
    status: Status
    reason: str  # of a status that is not DONE; for people
    score: Score | None  # None: it was not finished
    reward: float  # what is learnt from; the score's value, or less than 0 for TRUNCATED
    messages: tuple[Message, ...]
    seconds: Mapping[str, float]  # of the clock, in generating, tools and scoring
    expert_ids_PLK: np.ndarray | None = None
    """uint8 or uint16: the experts that computed a token, ascending, in the pass that gave the next
    one's log-probability. None: not recorded."""
    judgement: Judgement | None = None  # None: no critic looked at it

    @property
    def num_sampled(self) -> int:
        """Tokens that the model wrote."""
        return int(self.is_sampled_T.sum())

    @property
    def oldest_version(self) -> int:
        """Of the weights that drew its tokens; -1: there are none."""
        versions = self.weight_version_T[self.is_sampled_T]
        return int(versions.min()) if len(versions) else -1
