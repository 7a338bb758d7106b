"""What a rollout was worth beyond its group: the baselines of group-relative methods.

A group is the rollouts of one prompt. Letters: ``G`` rollouts of a group.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

Baseline = Literal["mean", "loo", "exact"]
"""What is taken from a reward:

mean    the group's mean, its own reward included: Kimi K1.5's estimate of ``tau log Z``, which is
        exact as tau grows, and too low otherwise (it asks for more probability than there is, so
        that the optimum stays nearer to the old policy)
loo     the mean of the others: larger than ``mean``'s by G / (G - 1), else the same
exact   ``tau log mean exp(r / tau)``, what the derivation asks for
"""


def advantages(rewards_G: np.ndarray, baseline: Baseline, tau: float) -> np.ndarray:
    """Float64 ``[G]``. Rewards have one scale for all kinds of tasks; they are not divided by their
    deviation, which would weigh hopeless and nearly solved prompts up.

    Args:
        rewards_G: of the rollouts of one prompt; two at least for ``loo``.
        baseline: what is taken from them.
        tau: of the objective, in the unit of rewards; ``exact`` alone reads it.
    """
    rewards_G = rewards_G.astype(np.float64)
    if baseline == "loo":
        assert len(rewards_G) > 1, "leaving the only rollout of a group out leaves nothing"
        return (rewards_G - rewards_G.mean()) * (len(rewards_G) / (len(rewards_G) - 1))
    if baseline == "exact":
        highest = rewards_G.max()
        mean = np.exp((rewards_G - highest) / tau).mean()
        return rewards_G - (highest + tau * math.log(mean))
    return rewards_G - rewards_G.mean()


def standardised(advantages_G: np.ndarray, rewards_G: np.ndarray) -> np.ndarray:
    """Divided by the rewards' deviation, as GRPO has it (arXiv 2402.03300, section 4.1.2); zeros of
    a group without deviation stay zeros."""
    return advantages_G / (rewards_G.astype(np.float64).std() + 1e-6)


def is_degenerate(rewards_G: np.ndarray) -> bool:
    """Whether all rewards of a group are the same: nothing is to be learnt from it."""
    return bool(np.ptp(rewards_G) < 1e-9)
