"""Archetypes that a corpus has besides those written by hand: a model proposes them.

Of a category one is asked for after the other, so that each is unlike those before; categories are
worked on side by side. So what is proposed does not depend on the number of requests at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import field, replace
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter
from pydantic.dataclasses import dataclass

from selenite import atomic
from selenite.agent.ontology.archetypes import Addition, categories
from selenite.agent.roles.outcomes import Outcomes
from selenite.agent.roles.play import propose_archetype
from selenite.agent.roles.roles import Roles, open_roles
from selenite.agent.synthesis.config import SynthesisConfig
from selenite.agent.synthesis.shards import outage, read_json
from selenite.agent.workers import threads
from selenite.errors import DataError

ARCHETYPES = "archetypes.json"


@dataclass(config=ConfigDict(extra="forbid"))
class Proposed:
    """What came of asking for archetypes."""

    asked: int = 0
    cut_off: int = 0  # of these, for which an endpoint gave no reply
    additions: list[Addition] = field(default_factory=list)
    outcomes: Outcomes = field(default_factory=Outcomes)


def read_additions(out_dir: Path) -> list[Addition]:
    """The archetypes of a corpus; none where it has no file of them.

    Raises ``DataError`` for one that is broken.
    """
    path = out_dir / ARCHETYPES
    return read_json(path, Proposed).additions if path.exists() else []


def propose(config: SynthesisConfig, watch: Callable[[Proposed], None]) -> Proposed:
    """Asks for the archetypes of a corpus, unless they are there.

    Raises ``EndpointError``, and writes nothing, where endpoints fail for too many; ``DataError``
    where none of them can be used.
    """
    path = config.out_dir / ARCHETYPES
    if path.exists():
        return read_json(path, Proposed)
    found = Proposed()
    at_once = config.roles.at_once(processes=1)
    with open_roles(config.roles, config.seed) as roles, threads(at_once) as pool:
        count = len(categories())

        def of_category(place: int) -> Proposed:
            return _propose(config, roles, place, range(place, config.archetypes, count))

        for part in pool.map(of_category, range(min(count, config.archetypes))):
            found.asked += part.asked
            found.cut_off += part.cut_off
            if found.cut_off > config.most_failed * config.archetypes:
                last = roles.ledger.last_failure
                raise outage("archetypes", found.cut_off, config.archetypes, last)
            found.additions += part.additions
            found.outcomes.add(part.outcomes)
            watch(found)
    if not found.additions:
        raise DataError(
            f"archetypes: none of {found.asked} proposals can be used "
            f"({found.outcomes.record()['roles']}); ask a better model, or leave archetypes out"
        )
    atomic.write_bytes(path, TypeAdapter(Proposed).dump_json(found, indent=1))
    return found


def _propose(config: SynthesisConfig, roles: Roles, place: int, numbers: Sequence[int]) -> Proposed:
    category, part = categories()[place], Proposed()
    for number in numbers:
        proposal, outcomes = propose_archetype(category, roles, config.seed, number)
        part.asked += 1
        part.cut_off += outcomes.is_cut_off
        part.outcomes.add(outcomes)
        if proposal is not None:
            part.additions.append(proposal.lines)
            known = (*category.archetypes, proposal.entity)
            category = replace(category, archetypes=known)
    return part
