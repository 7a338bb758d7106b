"""Where an episode takes place: a world follows from a few numbers, and from what was made
different in it for a task."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from selenite.agent.ontology.evolve import make_domain
from selenite.agent.world.domain import Domain
from selenite.agent.world.faults import NO_FAULTS, Change, FaultPlan
from selenite.agent.world.sample import sample_world
from selenite.agent.world.world import World


@dataclass(frozen=True)
class Setting:
    """The place of a task."""

    seed: int  # of the repository of domains
    domain: int  # its number there
    world: int  # seed of the records and the day
    patches: tuple[Change, ...] = ()
    faults: FaultPlan = NO_FAULTS

    def open(self) -> World:
        """The world as it is when an episode begins."""
        world = _known_world(self.seed, self.domain, self.world).fork(self.faults)
        for patch in self.patches:
            world.change(patch)
        return world


@lru_cache(maxsize=16)
def known_domain(seed: int, number: int) -> Domain:
    """``make_domain``, remembered."""
    return make_domain(seed, number)


@lru_cache(maxsize=64)
def _known_world(seed: int, number: int, world: int) -> World:
    """As it was sampled, to be forked only."""
    return sample_world(known_domain(seed, number), world)
