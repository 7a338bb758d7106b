"""What an iteration is told by: numbers of its rollouts, for curves and for people."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from selenite.rl.batch import Usage
from selenite.rl.rollout import TAUGHT, Rollout, Status


def usage_metrics(usages: Sequence[Usage]) -> dict[str, float]:
    """What became of the attempts, of all rounds that an iteration took."""
    started = sum(usage.num_started for usage in usages)
    return {
        "rollouts": float(started),
        "failed": sum(usage.num_failed for usage in usages) / started,
        "degenerate": sum(usage.num_degenerate for usage in usages) / started,
    }


def rollout_metrics(rollouts: Sequence[Rollout], version: int) -> dict[str, float]:
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


def spent(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """What the attempts spent, each by itself: many run at once."""
    return {
        f"seconds.{kind}": sum(rollout.seconds.get(kind, 0.0) for rollout in rollouts)
        for kind in ("generating", "tools", "scoring")
    }
