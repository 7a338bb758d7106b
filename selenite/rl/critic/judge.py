"""Asks a critic about the attempts of a group, and makes rewards of what it says.

An attempt's reward is the share of its comparisons with others of its group that it wins, each in
both orders (Kimi K2, section 3.2.2, which does not say how ranks become rewards). Where the better
one is known, because code gave the rewards, the critic is asked too: how often it is right there is
how far it is to be believed elsewhere.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
from collections.abc import Sequence
from random import Random

from selenite.agent.judges.comparison import transcript
from selenite.agent.models.failure import ModelError
from selenite.agent.randomness import stream
from selenite.chat.openai_form import wire_message
from selenite.errors import UnavailableError
from selenite.rl.critic.critic import Critic
from selenite.rl.critic.ranking import Comparison, pairings, tie, win_rates
from selenite.rl.critic.rubrics import faults
from selenite.rl.gym.environment import Budget, Environment, Episode
from selenite.rl.rollout import Judgement, Rollout, Status

_ALIKE = 0.3  # logarithm of two lengths' ratio up to which length tells a critic nothing


class Judged:
    """An environment whose rewards a critic gives. Its own scores stay beside them, hidden from
    what is learnt: where the two part, the critic is being pleased, not served."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self.name = f"{environment.name}.judged"

    @property
    def budget(self) -> Budget:
        """See ``Environment``."""
        return self._environment.budget

    def begin(self, number: int) -> Episode:
        """See ``Environment``."""
        return self._environment.begin(number)


@dataclasses.dataclass(frozen=True)
class Told:
    """An attempt as a critic sees it: what every attempt was told, and what came then."""

    told: str
    attempt: str
    said: str  # by the model, to people


def told(rollout: Rollout) -> Told:
    """Conversations with a system message are split after it, others before the first turn of the
    model: what all attempts have in common is there once."""
    messages = rollout.messages
    if messages[0].role == "system":
        common = f"The assistant was told:\n{messages[0].content}"
        own = messages[1:]
    else:
        roles = [message.role for message in messages]
        first = roles.index("assistant") if "assistant" in roles else len(roles)
        common = transcript([wire_message(message) for message in messages[:first]])
        own = messages[first:]
    said = "\n".join(message.content for message in own if message.role == "assistant")
    return Told(common, transcript([wire_message(message) for message in own]), said)


def known_pairs(rollouts: Sequence[Rollout], most: int) -> list[tuple[Rollout, Rollout]]:
    """Pairs of a right attempt and a wrong one of about its length, by what code says; those that
    are nearest in length come first, each attempt once."""
    done = [rollout for rollout in rollouts if rollout.status is Status.DONE]
    right = [rollout for rollout in done if rollout.reward == 1]
    wrong = [rollout for rollout in done if rollout.reward == 0]
    distances = sorted(
        (abs(math.log(a.num_sampled / b.num_sampled)), i, j)
        for i, a in enumerate(right)
        for j, b in enumerate(wrong)
    )
    found = list[tuple[Rollout, Rollout]]()
    used_right, used_wrong = set[int](), set[int]()
    for distance, i, j in distances:
        if distance < _ALIKE and i not in used_right and j not in used_wrong and len(found) < most:
            found.append((right[i], wrong[j]))
            used_right.add(i)
            used_wrong.add(j)
    return found


class Judge:
    """Gives rewards by a critic."""

    def __init__(self, critic: Critic) -> None:
        self._critic = critic

    async def assess(
        self, rollouts: Sequence[Rollout], seed: int, is_judged: bool
    ) -> list[Rollout]:
        """The rollouts of a group with what the critic says of them: their rewards, if the
        environment is judged. A critic that fails is no fault of the model's: what it should have
        judged is dropped."""
        try:
            if is_judged:
                return await self._ranked(rollouts, stream(seed, "judge"))
            return await self._examined(rollouts)
        except (UnavailableError, ModelError) as error:
            if not is_judged:
                return list(rollouts)
            reason = f"not judged: {error}"
            return [
                dataclasses.replace(rollout, status=Status.ENVIRONMENT, reason=reason, reward=0.0)
                if rollout.status is Status.DONE
                else rollout
                for rollout in rollouts
            ]

    async def _ranked(self, rollouts: Sequence[Rollout], rng: Random) -> list[Rollout]:
        places = [i for i, one in enumerate(rollouts) if one.status is Status.DONE]
        seen = [told(rollouts[i]) for i in places]
        comparisons = await asyncio.gather(
            *(self._compared(seen, *pair) for pair in pairings(len(places), rng))
        )
        found = list(rollouts)
        rates_G = win_rates(len(places), comparisons)
        for own, place in enumerate(places):
            mine = [one for one in comparisons if own in (one.left, one.right)]
            judgement = Judgement(len(mine), sum(one.is_consistent for one in mine), None)
            found[place] = dataclasses.replace(
                rollouts[place], reward=float(rates_G[own]), judgement=judgement
            )
        return found

    async def _examined(self, rollouts: Sequence[Rollout]) -> list[Rollout]:
        """What the critic says where it is known who is better."""
        found = list(rollouts)
        for right, wrong in known_pairs(rollouts, 1):
            one = await self._asked([told(right), told(wrong)], 0, 1)
            is_right = one.is_consistent and one.left_first > 0.5
            judgement = Judgement(1, int(one.is_consistent), int(is_right))
            place = next(i for i, rollout in enumerate(rollouts) if rollout is right)
            found[place] = dataclasses.replace(right, judgement=judgement)
        return found

    async def _compared(self, seen: Sequence[Told], left: int, right: int) -> Comparison:
        """By what no reply may do first, then by the critic."""
        is_bad, is_other_bad = (bool(faults(seen[i].said)) for i in (left, right))
        if is_bad != is_other_bad:
            return Comparison(left, right, float(is_other_bad), float(is_other_bad))
        if is_bad or seen[left].attempt == seen[right].attempt:
            return tie(left, right)
        return await self._asked(seen, left, right)

    async def _asked(self, seen: Sequence[Told], left: int, right: int) -> Comparison:
        a, b = seen[left], seen[right]
        first, second = await asyncio.gather(
            self._critic.prefers(a.told, a.attempt, b.attempt),
            self._critic.prefers(a.told, b.attempt, a.attempt),
        )
        return Comparison(left, right, first, 1 - second)
