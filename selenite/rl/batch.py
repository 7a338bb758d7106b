"""From groups of rollouts to micro-batches: a group is one piece, whose prompt is computed once.

    prompt | one rollout | another | a third     each sees the prompt and itself

A group that is larger than a micro-batch becomes several pieces, each with the prompt. Letters:
``T`` rows of a micro-batch; a row predicts the token after its own. ``R`` its rollouts, ``L``
layers with experts, ``K`` experts of a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from selenite.data.packing import MicroBatch
from selenite.data.piece_loader import pack
from selenite.data.pieces import Piece, branched, branched_places, num_shared
from selenite.errors import DataError
from selenite.rl.advantage import advantages, is_degenerate, standardised
from selenite.rl.objective import Counts, Objective
from selenite.rl.rollout import TAUGHT, Rollout
from selenite.types import IGNORED

_MULTIPLE = 64  # of tokens in a micro-batch: kernels are made for each size


@dataclass(frozen=True)
class Group:
    """What is learnt of the rollouts of one task."""

    rollouts: tuple[Rollout, ...]
    advantages_R: np.ndarray  # float64

    @property
    def num_trained(self) -> int:
        """Tokens that are learnt."""
        return sum(rollout.num_sampled for rollout in self.rollouts)


@dataclass(frozen=True)
class RolloutBatch:
    """One micro-batch of rollouts."""

    packed: MicroBatch
    engine_logprobs_T: np.ndarray  # float32, of each row's target; NaN where there is none
    rollout_T: np.ndarray  # int64, of each row with a target; -1 elsewhere
    advantages_R: np.ndarray  # float64
    weights_R: np.ndarray  # float64: 1 / (groups of the batch x rollouts of the group)
    temperature_R: np.ndarray  # float64, that they were drawn at
    expert_ids_LTK: np.ndarray | None
    """int16: the experts that the engine used, for the trainer to use; -1 in rows that no engine
    computed, or None: the trainer chooses."""

    @property
    def num_routed(self) -> int:
        """Choices of the engine's: rows times layers."""
        return 0 if self.expert_ids_LTK is None else int((self.expert_ids_LTK[..., 0] >= 0).sum())


@dataclass(frozen=True)
class Usage:
    """What became of the rollouts of an iteration."""

    num_started: int
    num_failed: int  # of environment or engine: nothing is learnt
    num_degenerate: int  # in groups whose rewards are all the same, or that have one rollout left

    @property
    def num_taught(self) -> int:
        """Of which something is learnt."""
        return self.num_started - self.num_failed - self.num_degenerate


def teachable(
    groups: Sequence[Sequence[Rollout]], objective: Objective, keep_equal: bool = False
) -> tuple[list[Group], Usage]:
    """The groups that something can be learnt of. If there is none, ``keep_equal`` takes those
    whose rewards are all the same, which have no advantages, so that a step is made at all."""
    found, equal, failed, degenerate = list[Group](), list[Group](), 0, 0
    for rollouts in groups:
        kept = [r for r in rollouts if r.status in TAUGHT and r.num_sampled]
        failed += len(rollouts) - len(kept)
        rewards_G = np.array([rollout.reward for rollout in kept])
        if len(kept) < 2 or is_degenerate(rewards_G):
            degenerate += len(kept)
            if kept:
                equal.append(Group(tuple(kept), np.zeros(len(kept))))
            continue
        advantages_G = advantages(rewards_G, objective.baseline, objective.tau)
        if objective.standardise:
            advantages_G = standardised(advantages_G, rewards_G)
        found.append(Group(tuple(kept), advantages_G))
    usage = Usage(sum(map(len, groups)), failed, degenerate)
    return (equal if keep_equal and not found else found), usage


def counts(groups: Sequence[Group]) -> Counts:
    """What a batch's losses are divided by."""
    return Counts(
        sum(group.num_trained for group in groups), sum(len(group.rollouts) for group in groups)
    )


def rollout_batches(
    groups: Sequence[Group], num_tokens: int, *, shares: bool = True, replays: bool = False
) -> list[RolloutBatch]:
    """Micro-batches of at most ``num_tokens`` tokens, or of one rollout that is longer.

    Args:
        groups: what is learnt.
        num_tokens: of a micro-batch.
        shares: compute a group's prompt once, which rounds otherwise than each by itself.
        replays: have the trainer use the engine's experts. Raises ``DataError`` where they were not
            recorded.
    """
    parts = [part for group in groups for part in _split(group, num_tokens, shares, replays)]
    lengths = [part.num_tokens for part in parts]
    batches = list[list[_Part]]()
    rooms = list[int]()
    # The longest first, each into the first micro-batch that has room.
    for i in sorted(range(len(parts)), key=lambda i: -lengths[i]):
        place = next((b for b, room in enumerate(rooms) if room >= lengths[i]), len(batches))
        if place == len(batches):
            batches.append([])
            rooms.append(num_tokens)
        batches[place].append(parts[i])
        rooms[place] -= lengths[i]
    return [_batch(parts, len(groups), replays) for parts in batches]


@dataclass(frozen=True)
class _Part:
    """Some rollouts of a group, which lie in one micro-batch."""

    rollouts: Sequence[Rollout]
    advantages: Sequence[float]
    group_size: int
    shared: int  # ids that they begin with alike, and that are there once

    @property
    def num_tokens(self) -> int:
        return self.shared + sum(len(r.token_ids_T) - self.shared for r in self.rollouts)


def _split(group: Group, num_tokens: int, shares: bool, replays: bool) -> list[_Part]:
    """As few parts as have room, in order."""
    shared = _shared(group.rollouts, replays) if shares else 0
    parts, room = list[list[int]](), 0
    for i, rollout in enumerate(group.rollouts):
        own = len(rollout.token_ids_T) - shared
        if own > room:
            parts.append([])
            room = num_tokens - shared
        parts[-1].append(i)
        room -= own
    return [
        _Part(
            [group.rollouts[i] for i in numbers],
            [float(group.advantages_R[i]) for i in numbers],
            len(group.rollouts),
            shared if len(numbers) > 1 else 0,
        )
        for numbers in parts
    ]


def _shared(rollouts: Sequence[Rollout], replays: bool) -> int:
    """Ids that are there once; where experts are replayed, by the same ones in all rollouts."""
    firsts = [int(rollout.is_sampled_T.argmax()) for rollout in rollouts]
    shared = num_shared([rollout.token_ids_T.tolist() for rollout in rollouts], firsts)
    if not replays:
        return shared
    first, *others = (_expert_ids_TLK(rollout)[:shared] for rollout in rollouts)
    differs_T = np.zeros(shared, dtype=bool)
    for other in others:
        differs_T |= (other != first).any(axis=(1, 2))
    return int(differs_T.argmax()) if differs_T.any() else shared


def _expert_ids_TLK(rollout: Rollout) -> np.ndarray:
    """int16; -1 where no engine computed a token."""
    ids_PLK = rollout.expert_ids_PLK
    if ids_PLK is None:
        raise DataError(
            f"{rollout.environment} {rollout.task}: the rollout does not say which experts computed"
            ' it; set rollouts.routing = "own", or take rollouts of a run with "replay"'
        )
    missing = len(rollout.token_ids_T) - len(ids_PLK)
    return np.pad(ids_PLK.astype(np.int16), ((0, missing), (0, 0), (0, 0)), constant_values=-1)


def _piece(part: _Part) -> Piece:
    rollouts, shared = part.rollouts, part.shared
    positions_T, document_T = branched_places([len(r.token_ids_T) for r in rollouts], shared)
    targets = [
        _of_next(np.where(r.is_sampled_T, r.token_ids_T, IGNORED), IGNORED) for r in rollouts
    ]
    return Piece(
        branched([rollout.token_ids_T for rollout in rollouts], shared),
        branched(targets, shared),
        positions_T,
        document_T,
        num_bytes=0,
    )


def _batch(parts: Sequence[_Part], num_groups: int, replays: bool) -> RolloutBatch:
    packed = pack([_piece(part) for part in parts], _MULTIPLE)
    logprobs, numbers, first = list[np.ndarray](), list[np.ndarray](), 0
    for part in parts:
        shared = part.shared
        logprobs.append(
            branched([_of_next(r.engine_logprobs_T, np.nan) for r in part.rollouts], shared)
        )
        own = [
            _of_next(np.where(r.is_sampled_T, first + i, -1), -1)
            for i, r in enumerate(part.rollouts)
        ]
        numbers.append(branched(own, shared))
        first += len(part.rollouts)
    fill = len(packed.tokens_T) - sum(map(len, numbers))
    return RolloutBatch(
        packed,
        np.concatenate([*logprobs, np.full(fill, np.nan, dtype=np.float32)]),
        np.concatenate([*numbers, np.full(fill, -1)]),
        np.array([advantage for part in parts for advantage in part.advantages]),
        np.array([1 / (num_groups * part.group_size) for part in parts for _ in part.rollouts]),
        np.array([rollout.temperature for part in parts for rollout in part.rollouts]),
        _routing(parts, fill) if replays else None,
    )


def _routing(parts: Sequence[_Part], fill: int) -> np.ndarray:
    """int16 ``[L, T, K]`` of a micro-batch; its last ``fill`` rows are of no rollout."""
    own = [branched([_expert_ids_TLK(r) for r in part.rollouts], part.shared) for part in parts]
    ids_TLK = np.concatenate([*own, np.full((fill, *own[0].shape[1:]), -1, dtype=np.int16)])
    return np.ascontiguousarray(ids_TLK.transpose(1, 0, 2))


def _of_next(values_T: np.ndarray, fill: float) -> np.ndarray:
    """Of each row's following token."""
    return np.append(values_T[1:], np.array([fill], dtype=values_T.dtype))
