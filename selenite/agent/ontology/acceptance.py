"""Which domains of a seed make the repository: those that work, and that add something.

    examine (any process, any order)             admit (in order of the numbers)
    every tool runs in 50 states      ───►       3 new signatures or a new dependency,
    signatures, dependencies, texts              and texts unlike those of any other domain

So the repository is the same for one worker and for many.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field

from selenite.agent.ontology.evolve import make_domain
from selenite.agent.randomness import stream
from selenite.agent.tools.tool import Tool, signature
from selenite.agent.values.kind import spoken
from selenite.agent.values.texts import Identifier, Reference
from selenite.agent.world.domain import Domain
from selenite.agent.world.reply import Code
from selenite.agent.world.sample import draw_arguments, sample_world
from selenite.errors import MissingExtraError

STATES = 50  # in which each tool is tried
_NEW_SIGNATURES = 3
_LIKENESS = 0.8  # Jaccard similarity of texts from which on two domains are too much alike
_WORDS = 5  # of a shingle


@dataclass(frozen=True)
class Examined:
    """What was found out about a domain."""

    number: int
    num_tools: int
    signatures: frozenset[str]
    dependencies: frozenset[tuple[str, str]]  # signatures of who makes an id, and who takes it
    shingles: frozenset[int]
    faults: tuple[str, ...]  # of tools that do not work


@dataclass
class Repository:
    """Domains that were admitted, and why others were not."""

    seed: int
    numbers: list[int] = field(default_factory=list)
    num_tools: int = 0
    signatures: set[str] = field(default_factory=set)
    rejected: Counter[str] = field(default_factory=Counter)  # by reason


def build(seed: int, count: int, workers: int = 1) -> Repository:
    """The repository of the first ``count`` domains of a seed."""
    with ProcessPoolExecutor(workers) if workers > 1 else nullcontext() as pool:
        numbers = range(count)
        jobs = [seed] * count
        if pool is None:
            return admit(seed, map(examine, jobs, numbers))
        return admit(seed, pool.map(examine, jobs, numbers, chunksize=8))


def examine(seed: int, number: int, extension: str = "") -> Examined:
    """Tries a domain's tools, each in fifty states, and describes it."""
    domain = make_domain(seed, number, extension)
    names = {tool.name: signature(tool.record()) for tool in domain.tools}
    return Examined(
        number,
        len(domain.tools),
        frozenset(names.values()),
        frozenset(_dependencies(domain, names)),
        frozenset(_shingles(domain)),
        tuple(_faults(seed, domain)),
    )


def admit(seed: int, examined: Iterable[Examined]) -> Repository:
    """Takes domains in order, each by what came before it."""
    found = Repository(seed)
    dependencies: set[tuple[str, str]] = set()
    sizes: dict[int, int] = {}
    holders: dict[int, list[int]] = {}  # domains by shingle
    for one in examined:
        shared = Counter(n for shingle in one.shingles for n in holders.get(shingle, ()))
        likeness = max(
            (c / (len(one.shingles) + sizes[n] - c) for n, c in shared.items()), default=0.0
        )
        news = len(one.signatures - found.signatures)
        if one.faults:
            found.rejected["a tool does not work"] += 1
        elif likeness >= _LIKENESS:
            found.rejected["too much like another"] += 1
        elif news < _NEW_SIGNATURES and one.dependencies <= dependencies:
            found.rejected["nothing new"] += 1
        else:
            found.numbers.append(one.number)
            found.num_tools += one.num_tools
            found.signatures |= one.signatures
            dependencies |= one.dependencies
            sizes[one.number] = len(one.shingles)
            for shingle in one.shingles:
                holders.setdefault(shingle, []).append(one.number)
    return found


def _faults(seed: int, domain: Domain) -> Iterator[str]:
    """Tools that never succeed, or return what they do not say."""
    missing: set[str] = {tool.name for tool in domain.tools}
    for state in range(STATES):
        base = sample_world(domain, state)
        rng = stream(seed, "smoke", domain.id, state)
        for tool in domain.tools:
            world = base.fork()
            reply = world.call(tool.name, draw_arguments(world, tool, rng))
            assert reply.code is not Code.UNKNOWN_TOOL, tool.name
            if reply.is_ok and tool.name in missing:
                missing.remove(tool.name)
                if not _fits(tool, reply.content):
                    yield f"{tool.name} returns what its schema does not allow"
    yield from (f"{name} never succeeds" for name in sorted(missing))


def _fits(tool: Tool, content: object) -> bool:
    try:
        from jsonschema import Draft202012Validator
    except ModuleNotFoundError as error:
        raise MissingExtraError("jsonschema", "agent", "trying tools") from error
    return bool(Draft202012Validator(tool.returns).is_valid(content))


def _dependencies(domain: Domain, signatures: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Pairs of a tool that makes a record and one that takes its id."""
    makers: dict[str, list[str]] = {}
    for tool in domain.tools:
        if tool.family in ("create", "duplicate"):
            makers.setdefault(tool.entity, []).append(signatures[tool.name])
    for tool in domain.tools:
        for param in tool.params:
            if isinstance(param.kind, Reference):
                entity = param.kind.entity
            elif isinstance(param.kind, Identifier):
                entity = tool.entity
            else:
                continue
            for maker in makers.get(entity, ()):
                yield maker, signatures[tool.name]


def _shingles(domain: Domain) -> Iterator[int]:
    """Hashes of all runs of five words in names and descriptions of the tools."""
    for tool in domain.tools:
        said = [f"{tool.name} {tool.description}", *tool.by_name]
        words = spoken(" ".join(said)).split()
        for i in range(max(1, len(words) - _WORDS + 1)):
            text = " ".join(words[i : i + _WORDS]).lower()
            yield int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
