"""Objectives of policy optimisation, behind one signature.

    loss, metrics = objective.loss(scored, counts)

What is optimised is the policy that was sampled from: with a temperature, log-probabilities are
those of the tempered distribution on both sides. Tokens that the policy did not draw (prompts, what
tools and users said, tokens that a grammar forced) are not here: their probability does not depend
on the policy, and cancels.

Letters: ``T`` trained tokens of a micro-batch, flat; ``R`` its rollouts. A rollout lies in one
micro-batch whole. Losses and metrics of a batch are the sums over its micro-batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Discriminator, Field
from torch import Tensor

from selenite.config import Config
from selenite.rl.advantage import Baseline


@dataclass(frozen=True)
class Scored:
    """The trained tokens of a micro-batch. Written by the trainer after its forward pass."""

    logprobs_T: Tensor  # of the trainer's weights, with their graph
    old_logprobs_T: Tensor  # of the policy that the objective is about, before the update
    engine_logprobs_T: Tensor  # of whoever sampled, as it reported them
    rollout_T: Tensor  # int64: which of the rollouts a token is of
    advantages_R: Tensor
    weights_R: Tensor
    """A rollout's share: 1 / (prompts of the batch x rollouts of its group)."""

    @property
    def log_ratio_T(self) -> Tensor:
        """Of the new policy to the old one."""
        return self.logprobs_T - self.old_logprobs_T

    def sums(self, values_T: Tensor) -> Tensor:
        """Over each rollout's tokens, ``[R]``."""
        zeros_R = torch.zeros_like(self.advantages_R, dtype=values_T.dtype)
        return zeros_R.index_add(0, self.rollout_T, values_T)


@dataclass(frozen=True)
class Counts:
    """Of the whole batch, over all its micro-batches."""

    num_tokens: int  # that are trained
    num_rollouts: int


Loss = tuple[Tensor, Mapping[str, Tensor]]
"""The micro-batch's share of the loss, and shares of the batch's metrics."""


class K2Config(Config):
    """Kimi K2's (section 3.3.3; K1.5, section 2.3.2): a regression of the log-ratio of whole
    responses on their advantages.

    ``mean over prompts, rollouts of (A - tau rho)^2 / (2 tau)``, with ``rho`` the sum of a
    response's log-ratios. The division keeps the step's size apart from ``tau``: at ``rho = 0`` the
    gradient is REINFORCE's. The optimum has ``rho = A / tau`` and holds under any distribution that
    responses were drawn from, so nothing is clipped and no ratio weighs anything. All is divided by
    the batch's mean length, never by a response's own.
    """

    kind: Literal["k2"] = "k2"
    tau: float = Field(default=0.1, gt=0)  # in the unit of rewards
    baseline: Baseline = "mean"
    standardise: Literal[False] = False

    def loss(self, scored: Scored, counts: Counts) -> Loss:
        """See the module."""
        rho_R = scored.sums(scored.log_ratio_T)
        residual_R = scored.advantages_R - self.tau * rho_R
        share_R = scored.weights_R * residual_R.square() / (2 * self.tau)
        mean_length = counts.num_tokens / counts.num_rollouts
        metrics = {
            "rho": (scored.weights_R * rho_R.detach().abs()).sum(),
            "rho_wanted": (scored.weights_R * scored.advantages_R.abs()).sum() / self.tau,
        }
        return share_R.sum() / mean_length, metrics


class _Clipped(Config):
    """What ratios with a clipped surrogate have in common."""

    baseline: Baseline = "mean"
    tau: float = Field(default=0.1, gt=0)  # of the baseline ``exact`` alone
    engine_ratio: float | None = Field(default=2.0, gt=0)
    """The most that a token may weigh for the trainer finding it likelier than the engine did
    (truncated importance sampling); none: as if they agreed."""

    def _weights_T(self, scored: Scored) -> Tensor | float:
        if self.engine_ratio is None:
            return 1.0
        ratio_T = (scored.old_logprobs_T - scored.engine_logprobs_T).exp()
        return ratio_T.clamp(max=self.engine_ratio)


class GrpoConfig(_Clipped):
    """GRPO (arXiv 2402.03300, section 4.1.1) without its KL term: PPO's surrogate, the mean over
    each response's own tokens, then over responses."""

    kind: Literal["grpo"] = "grpo"
    standardise: bool = True
    low: float = Field(default=0.2, gt=0, lt=1)
    high: float = Field(default=0.2, gt=0)

    def loss(self, scored: Scored, counts: Counts) -> Loss:
        """See the module."""
        surrogate_T, metrics = _surrogate(scored, counts, self.low, self.high)
        surrogate_T = self._weights_T(scored) * surrogate_T
        length_R = scored.sums(torch.ones_like(scored.logprobs_T)).clamp(min=1)
        return -(scored.weights_R * scored.sums(surrogate_T) / length_R).sum(), metrics


class DapoConfig(_Clipped):
    """DAPO's (arXiv 2503.14476, sections 3.1 and 3.3): the mean over all tokens of the batch, and
    more room above than below."""

    kind: Literal["dapo"] = "dapo"
    standardise: bool = True
    low: float = Field(default=0.2, gt=0, lt=1)
    high: float = Field(default=0.28, gt=0)

    def loss(self, scored: Scored, counts: Counts) -> Loss:
        """See the module."""
        surrogate_T, metrics = _surrogate(scored, counts, self.low, self.high)
        return -(self._weights_T(scored) * surrogate_T).sum() / counts.num_tokens, metrics


class GspoConfig(_Clipped):
    """GSPO (arXiv 2507.18071, section 4.1): one ratio a response, the geometric mean of its
    tokens', clipped as a whole."""

    kind: Literal["gspo"] = "gspo"
    standardise: bool = True
    low: float = Field(default=3e-4, gt=0, lt=1)
    high: float = Field(default=4e-4, gt=0)

    def loss(self, scored: Scored, counts: Counts) -> Loss:
        """See the module."""
        length_R = scored.sums(torch.ones_like(scored.logprobs_T)).clamp(min=1)
        ratio_R = (scored.sums(scored.log_ratio_T) / length_R).exp()
        clipped_R = ratio_R.clamp(1 - self.low, 1 + self.high)
        advantages_R = scored.advantages_R
        free_R = ratio_R * advantages_R
        surrogate_R = torch.minimum(free_R, clipped_R * advantages_R)
        is_held_R = surrogate_R.detach() < free_R.detach()
        if self.engine_ratio is not None:  # of responses here, too
            agreement_R = scored.sums(scored.old_logprobs_T - scored.engine_logprobs_T) / length_R
            surrogate_R = surrogate_R * agreement_R.exp().clamp(max=self.engine_ratio)
        metrics = {"held": (scored.weights_R * is_held_R).sum()}
        return -(scored.weights_R * surrogate_R).sum(), metrics


class K25Config(Config):
    """Kimi K2.5's (arXiv 2602.02276): the mean over all tokens of ``-A l + tau l^2``, ``l`` a
    token's log-ratio. Outside ``low .. high`` the first term has no gradient, whatever the sign of
    the advantage: what trainer and engine disagree on is not learnt."""

    kind: Literal["k25"] = "k25"
    tau: float = Field(default=0.1, gt=0)
    baseline: Baseline = "mean"
    standardise: Literal[False] = False
    low: float = Field(default=-0.3, lt=0)
    high: float = Field(default=0.3, gt=0)

    def loss(self, scored: Scored, counts: Counts) -> Loss:
        """See the module."""
        log_ratio_T = scored.log_ratio_T
        is_within_T = (log_ratio_T >= self.low) & (log_ratio_T <= self.high)
        advantages_T = scored.advantages_R[scored.rollout_T]
        gain_T = is_within_T * advantages_T * log_ratio_T
        loss = (self.tau * log_ratio_T.square() - gain_T).sum() / counts.num_tokens
        return loss, {"held": (~is_within_T).sum() / counts.num_tokens}


Objective = Annotated[
    K2Config | GrpoConfig | DapoConfig | GspoConfig | K25Config, Discriminator("kind")
]


def _surrogate(
    scored: Scored, counts: Counts, low: float, high: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """PPO's, by token, to be made large; and the share of tokens that it holds."""
    ratio_T = scored.log_ratio_T.exp()
    advantages_T = scored.advantages_R[scored.rollout_T]
    free_T = ratio_T * advantages_T
    surrogate_T = torch.minimum(free_T, ratio_T.clamp(1 - low, 1 + high) * advantages_T)
    return surrogate_T, {"held": (surrogate_T.detach() < free_T.detach()).sum() / counts.num_tokens}
