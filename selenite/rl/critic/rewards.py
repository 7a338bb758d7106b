"""Rewards that a critic gave, over a whole iteration: the pull of length, and what to watch.

Where a judged environment has scores of its own, which nobody learns from, they are told beside the
rewards (``hidden.NAME``): if rewards rise and they do not, the critic is being pleased.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from selenite.rl.critic.ranking import length_bias
from selenite.rl.rollout import Rollout, Status


def without_length(
    groups: Sequence[Sequence[Rollout]], removes: bool
) -> tuple[Sequence[Sequence[Rollout]], dict[str, float]]:
    """The groups, in which judged attempts earn nothing for their length, and the bias found.

    ``removes``: takes it from the rewards, where it is significant.
    """
    places = [
        (g, [i for i, one in enumerate(group) if _is_ranked(one)]) for g, group in enumerate(groups)
    ]
    places = [(g, own) for g, own in places if len(own) > 1]
    if not places:
        return groups, {}
    rates = [np.array([groups[g][i].reward for i in own]) for g, own in places]
    lengths = [np.array([groups[g][i].num_sampled for i in own]) for g, own in places]
    bias, corrected = length_bias(rates, lengths)
    found = [list(group) for group in groups]
    if removes:
        for (g, own), rates_G in zip(places, corrected, strict=True):
            for i, rate in zip(own, rates_G, strict=True):
                found[g][i] = dataclasses.replace(found[g][i], reward=float(rate))
    return found, {"length_slope": bias.slope}


def judged_metrics(rollouts: Sequence[Rollout]) -> dict[str, float]:
    """How far the critic is to be believed, and the hidden scores."""
    heard = [rollout.judgement for rollout in rollouts if rollout.judgement is not None]
    found = dict[str, float]()
    if comparisons := sum(one.comparisons for one in heard):
        found["critic_consistent"] = sum(one.consistent for one in heard) / comparisons
    known = [one for one in heard if one.correct is not None]
    if known:
        right = sum(one.correct or 0 for one in known)
        found["critic_accuracy"] = right / sum(one.comparisons for one in known)
    ranked = [rollout for rollout in rollouts if _is_ranked(rollout)]
    for name in dict.fromkeys(rollout.environment for rollout in ranked):
        values = [r.score.value for r in ranked if r.environment == name and r.score is not None]
        found[f"hidden.{name}"] = float(np.mean(values))
    return found


def _is_ranked(rollout: Rollout) -> bool:
    judgement = rollout.judgement
    return rollout.status is Status.DONE and judgement is not None and judgement.correct is None
