"""Writes tasks: a template in a world, a variation, the tools that the agent has.

Task ``number`` of a repository follows from its seed. Where a template finds nothing to do, the
next try has another world; a task whose proof fails is not handed out.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from selenite.agent.randomness import stream
from selenite.agent.tasks import variations
from selenite.agent.tasks.draft import Draft, Unfit
from selenite.agent.tasks.goal import Goal
from selenite.agent.tasks.plan import Words
from selenite.agent.tasks.prove import milestones, reached
from selenite.agent.tasks.task import Task, TaskClass
from selenite.agent.tasks.templates import questions, refusals, several, single
from selenite.agent.tasks.variations import Variation
from selenite.agent.world.domain import Domain
from selenite.agent.world.setting import Setting
from selenite.errors import ConfigError

Template = Callable[[Draft], None]
Vary = Callable[[Draft], Variation]

PLAIN: tuple[Template, ...] = (
    single.create,
    single.update,
    single.move,
    single.delete,
    single.item,
    questions.fact,
    questions.reckoned,
    questions.chosen,
    several.all_that_match,
    several.conditional,
    several.transfer,
    several.reassign,
    several.reconcile,
    several.make_and_move,
)


@dataclass(frozen=True)
class Recipe:
    """How tasks of a class are made, and their share."""

    share: float
    templates: tuple[Template, ...]
    vary: Vary | None = None
    then: tuple[Template, ...] = ()  # of what the user wants next


_AMENDED = (single.create, single.update)
_WRITING = (single.move, single.item, several.make_and_move)
RECIPES: Mapping[TaskClass, Recipe] = {
    TaskClass.CLEAN: Recipe(0.25, PLAIN),
    TaskClass.PARALLEL: Recipe(0.10, (several.fan_out, several.fan_out, several.all_that_match)),
    TaskClass.TRANSIENT: Recipe(0.06, PLAIN, variations.transient),
    TaskClass.OUTAGE: Recipe(0.02, (refusals.outage,)),
    TaskClass.REPAIR: Recipe(0.08, PLAIN, variations.blunder),
    TaskClass.CONFLICT: Recipe(0.04, (single.update, single.move), variations.conflict),
    TaskClass.MUST_ASK: Recipe(0.12, (single.create, single.update), variations.must_ask),
    TaskClass.NO_TOOL: Recipe(0.10, (refusals.no_tool, refusals.chat)),
    TaskClass.FORBIDDEN: Recipe(0.04, (refusals.forbidden,)),
    TaskClass.DENIED: Recipe(0.02, (refusals.denied,)),
    TaskClass.INJECTION: Recipe(
        0.03, (questions.fact, several.conditional, several.all_that_match), variations.injection
    ),
    TaskClass.PARTIAL: Recipe(0.04, (several.bulk,)),
    TaskClass.CHANGE_OF_MIND: Recipe(0.06, (*_AMENDED * 4, *_WRITING), then=PLAIN),
    TaskClass.LONG_OUTPUT: Recipe(0.04, (questions.paged,)),
}
"""By class. The shares are ours: K2 reports none."""

_TRIES = 60  # of classes; one that fits nowhere in a domain is drawn in vain
_TRIES_OF_CLASS = 12
_TOOLS = (5, 60)  # in the agent's context, at least and at most


def make_task(
    seed: int,
    number: int,
    domains: Sequence[int],
    tasks_per_domain: int = 20,
    extension: str = "",
    classes: Sequence[TaskClass] = tuple(RECIPES),
    states: int = 0,
    shares: Mapping[TaskClass, float] = MappingProxyType({}),
) -> Task:
    """Task ``number``, of one of ``classes``. ``domains`` are the numbers of the repository's
    domains, taken in turn; ``extension`` is that of their archetypes. ``states`` is how many sets
    of records a domain has, in one of which a task begins; 0: each task has its own. ``shares`` are
    those of classes whose share is another than usual.

    Some domains have no policy or no bulk tool: then the class of the task is another one. Raises
    ``ConfigError`` where none of the classes has a task in the domain.
    """
    domain = domains[number // tasks_per_domain % len(domains)]
    rng = stream(seed, "task", number)
    weights = [shares.get(cls, RECIPES[cls].share) for cls in classes]
    for _ in range(_TRIES):
        cls = rng.choices(classes, weights)[0]
        task = _try(number, Setting(seed, domain, 0, extension=extension), cls, rng, states)
        if task is not None:
            return task
    raise ConfigError(
        f"domain {domain} of seed {seed}: no task of {', '.join(classes)} in it; take other classes"
    )


def _try(
    number: int, place: Setting, cls: TaskClass, rng: random.Random, states: int
) -> Task | None:
    """A task of a class in some world of a place; several tries, so that the rarer classes keep
    their share."""
    recipe = RECIPES[cls]
    for _ in range(_TRIES_OF_CLASS):
        setting = replace(place, world=rng.randrange(states or 1 << 31))
        template = rng.choice(recipe.templates)
        try:
            return write_task(number, cls, template, setting, rng)
        except Unfit:
            continue
    return None


def write_task(
    number: int, cls: TaskClass, template: Template, setting: Setting, rng: random.Random
) -> Task:
    """A task of a class by a template in a world; ``Unfit`` where there is none."""
    recipe = RECIPES[cls]
    draft = Draft(setting.open(), rng)
    template(draft)
    if recipe.then:
        then = several.amend if template in _AMENDED else rng.choice(recipe.then)
        then(draft)
    varied = recipe.vary(draft) if recipe.vary else Variation()
    faults = replace(varied.faults, lasting=draft.lasting)
    setting = replace(setting, patches=varied.patches, faults=faults)
    task = Task(
        id=f"{setting.seed}-{number}",
        number=number,
        template=template.__name__,
        cls=cls,
        setting=setting,
        slots=dict(draft.slots),
        phases=tuple(draft.phases),
        goal=Goal(()),
        milestones=(),
        tools=_tools(draft, varied.needs, rng),
        withheld=varied.withheld,
        mistaken=varied.mistaken,
        blunder=varied.blunder,
        forbidden=() if draft.missing is None else (draft.missing.name,),
        confirms=rng.random() < 0.5,
    )
    free = _free(draft)
    return replace(task, goal=reached(task, free), milestones=milestones(task, free))


def _free(draft: Draft) -> Mapping[str, frozenset[str]]:
    """Fields of new records that are the agent's own words."""
    found: dict[str, frozenset[str]] = {}
    for step in draft.steps:
        tool = draft.domain.by_tool[step.tool]
        own = frozenset(
            tool.by_name[name].field
            for name, source in step.sources.items()
            if isinstance(source, Words)
        )
        found[tool.entity] = found.get(tool.entity, frozenset()) | own
    return found


def _tools(draft: Draft, more: Sequence[str], rng: random.Random) -> tuple[str, ...]:
    """What the steps need, and others that distract, in random order; never one that is missing."""
    domain: Domain = draft.domain
    needed = list(dict.fromkeys([*(step.tool for step in draft.steps), *more]))
    escalation = next(t.name for t in domain.tools if t.entity == "escalation")
    needed += [escalation] if escalation not in needed else []
    missing = draft.missing
    others = [
        tool.name
        for tool in domain.tools
        if tool.name not in needed
        and not (missing and tool.entity == missing.entity and tool.verb == missing.verb)
        and not (missing and tool.family == "update" and missing.family == "delete")
    ]
    count = min(len(others), max(0, rng.randint(*_TOOLS) - len(needed)))
    chosen = [*needed, *rng.sample(others, count)]
    rng.shuffle(chosen)
    return tuple(chosen)
