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
    extension: str = ""  # of the archetypes (``ontology/archetypes.py``)

    @property
    def evolved(self) -> Domain:
        """The domain, as evolution made it."""
        return known_domain(self.seed, self.domain, self.extension)

    def open(self) -> World:
        """The world as it is when an episode begins."""
        base = _known_world(self.seed, self.domain, self.extension, self.world)
        world = base.fork(self.faults)
        for patch in self.patches:
            world.change(patch)
        return world


@lru_cache(maxsize=16)
def known_domain(seed: int, number: int, extension: str = "") -> Domain:
    """``make_domain``, remembered."""
    return make_domain(seed, number, extension)


@lru_cache(maxsize=64)
def _known_world(seed: int, number: int, extension: str, world: int) -> World:
    """As it was sampled, to be forked only."""
    return sample_world(known_domain(seed, number, extension), world)
