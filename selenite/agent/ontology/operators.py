"""Operators of evolution: each makes a domain a little different, and leaves it executable.

An operator changes a ``Draft`` in place and says what it did, or returns None where it does not
apply (a rule about dates needs a date).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from selenite.agent.ontology.archetypes import Category
from selenite.agent.ontology.entity import Entity, Field, Move
from selenite.agent.tools.naming import STYLES
from selenite.agent.values.compounds import Group, Several
from selenite.agent.values.dates import Day, Moment
from selenite.agent.values.numbers import Count, Measure, Money
from selenite.agent.values.texts import Choice, Flag, Reference, Text
from selenite.agent.world.policy import AtMost, DaysAhead, Is, OneOf, Policy, Quota


@dataclass
class Draft:
    """A domain while it evolves."""

    category: Category
    entities: list[Entity]
    style: str
    currency: str
    policies: list[Policy] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)

    def put(self, entity: Entity) -> None:
        """Replaces the entity of that name."""
        names = [old.name for old in self.entities]
        self.entities[names.index(entity.name)] = entity

    def next_policy(self) -> str:
        return f"P{len(self.policies) + 1}"


Operator = Callable[[Draft, random.Random], str | None]


def add_entity(draft: Draft, rng: random.Random) -> str | None:
    """Another archetype of the category, with those that it refers to."""
    present = {entity.name for entity in draft.entities}
    missing = [e for e in draft.category.archetypes if e.name not in present]
    if not missing or len(draft.entities) >= 5:
        return None
    chosen = rng.choice(missing)
    for entity in draft.category.with_references([chosen]):
        if entity.name not in present:
            draft.entities.append(entity)
    return f"add entity {chosen.name}"


def add_relation(draft: Draft, rng: random.Random) -> str | None:
    """A reference to an entity that comes before."""
    if len(draft.entities) < 2:
        return None
    place = rng.randrange(1, len(draft.entities))
    entity, other = draft.entities[place], draft.entities[rng.randrange(place)]
    if other.name in entity.by_name or any(k.entity == other.name for _, k in entity.references):
        return None
    kind = Reference(other.prefix, entity=other.name)
    draft.put(_with_field(entity, Field(other.name, kind, required=rng.random() < 0.5)))
    return f"relate {entity.name} to {other.name}"


_DETOURS = (
    ("on_hold", "hold", "resume"),
    ("under_review", "review", "clear"),
    ("paused", "pause", "continue"),
    ("escalated", "raise", "settle"),
)


def add_state(draft: Draft, rng: random.Random) -> str | None:
    """A state beside the first one, with a move there and one back."""
    entity = _any(draft, rng, lambda e: bool(e.states))
    if entity is None:
        return None
    state, there, back = rng.choice(_DETOURS)
    verbs = {move.verb for move in entity.moves}
    if state in entity.states or verbs & {there, back}:
        return None
    first = entity.states[0]
    moves = (*entity.moves, Move(there, (first,), state), Move(back, (state,), first))
    draft.put(replace(entity, states=(*entity.states, state), moves=moves))
    return f"add state {state} to {entity.name}"


def add_end(draft: Draft, rng: random.Random) -> str | None:
    """A last state that is reached from every other."""
    entity = _any(draft, rng, lambda e: bool(e.states) and "archived" not in e.states)
    if entity is None or any(move.verb == "archive" for move in entity.moves):
        return None
    move = Move("archive", entity.states, "archived")
    draft.put(replace(entity, states=(*entity.states, "archived"), moves=(*entity.moves, move)))
    return f"add an archive to {entity.name}"


_OPTIONAL = (
    Field("note", Text("note"), required=False),
    Field("contact", Text("email"), required=False),
    Field("phone", Text("phone"), required=False),
    Field("labels", Several(Text("tag")), required=False),
    Field("deadline", Day(1, 90), required=False),
    Field("follow_up", Moment(1, 30), required=False),
    Field("link", Text("url"), required=False),
    Field("weight", Measure(0.1, 40, unit="kg"), required=False),
    Field("copies", Count(1, 12), required=False),
    Field("deposit", Money(5, 200), required=False),
    Field("site", Text("place"), required=False),
    Field("language", Text("language"), required=False),
    Field("confidential", Flag(), required=False),
)


def add_optional_field(draft: Draft, rng: random.Random) -> str | None:
    """Something that may be given."""
    return _add(draft, rng, rng.choice(_OPTIONAL))


_CHOICES = {
    "priority": ("low", "normal", "high", "urgent"),
    "channel": ("web", "phone", "email", "desk"),
    "size": ("small", "medium", "large"),
    "risk": ("none", "low", "moderate", "high", "severe"),
    "season": ("spring", "summer", "autumn", "winter"),
    "visibility": ("private", "team", "public"),
    "source": ("partner", "direct", "referral", "campaign", "walk_in", "other"),
    "grade": ("a", "b", "c", "d"),
    "shift": ("early", "late", "night"),
    "mode": ("manual", "automatic"),
}


def add_choice(draft: Draft, rng: random.Random) -> str | None:
    """A field with options, some of those that there could be."""
    name = rng.choice(sorted(_CHOICES))
    options = _CHOICES[name]
    kept = options[: rng.randint(2, len(options))]
    return _add(draft, rng, Field(name, Choice(kept), required=rng.random() < 0.5))


def extend_choice(draft: Draft, rng: random.Random) -> str | None:
    """One more option."""
    found = [
        (entity, f)
        for entity in draft.entities
        for f in entity.fields
        if isinstance(f.kind, Choice)
    ]
    if not found:
        return None
    entity, old = rng.choice(found)
    assert isinstance(old.kind, Choice)
    option = rng.choice(("other", "custom", "unknown", "mixed", "legacy", "trial"))
    if option in old.kind.options:
        return None
    draft.put(_replaced(entity, replace(old, kind=Choice((*old.kind.options, option)))))
    return f"add option {option} to {entity.name}.{old.name}"


def nest_fields(draft: Draft, rng: random.Random) -> str | None:
    """Two fields become one object."""
    entity = _any(draft, rng, lambda e: len(_plain(e)) >= 3)
    if entity is None or "details" in entity.by_name:
        return None
    chosen = rng.sample(_plain(entity), rng.randint(2, 3))
    chosen.sort(key=entity.fields.index)
    group = Field("details", Group(tuple((f.name, f.kind) for f in chosen)))
    kept = tuple(f for f in entity.fields if f not in chosen)
    draft.put(replace(entity, fields=(*kept, group)))
    _drop_policies(draft, entity.name, {f.name for f in chosen})
    return f"nest {', '.join(f.name for f in chosen)} of {entity.name}"


def rename_style(draft: Draft, rng: random.Random) -> str | None:
    """Another style of names."""
    draft.style = rng.choice([name for name in STYLES if name != draft.style])
    return f"name tools {draft.style}"


def change_currency(draft: Draft, rng: random.Random) -> str | None:
    """Another currency."""
    draft.currency = rng.choice([c for c in ("USD", "EUR", "GBP", "CHF") if c != draft.currency])
    return f"count in {draft.currency}"


def add_amount_rule(draft: Draft, rng: random.Random) -> str | None:
    """Above a limit, something needs a human."""
    entity = _any(draft, rng, lambda e: bool(e.amounts) and bool(e.moves))
    if entity is None:
        return None
    amount = rng.choice(entity.amounts)
    assert isinstance(amount.kind, (Count, Measure, Money))
    low, high = amount.kind.least, amount.kind.most
    most = float(f"{low + (high - low) * rng.uniform(0.3, 0.8):.2g}")
    if isinstance(amount.kind, Count):
        most = max(amount.kind.least, int(most))
    unit = draft.currency if isinstance(amount.kind, Money) else amount.kind.unit
    verb = rng.choice(entity.moves).verb
    return _rule(draft, AtMost(draft.next_policy(), entity.name, (verb,), amount.name, most, unit))


def add_date_rule(draft: Draft, rng: random.Random) -> str | None:
    """Some days before, it is too late."""
    entity = _any(draft, rng, lambda e: bool(e.moves) and bool(_dated(e)))
    if entity is None:
        return None
    field, verb = rng.choice(_dated(entity)), rng.choice(entity.moves).verb
    name, verbs = field.name, (verb, "update") if rng.random() < 0.4 else (verb,)
    assert isinstance(field.kind, (Day, Moment))
    days = rng.choice((1, 2, 3, 5, 7, 14))
    if not field.kind.least < days <= field.kind.most // 2:
        return None  # it would hold always, or hardly ever
    return _rule(draft, DaysAhead(draft.next_policy(), entity.name, verbs, name, days))


def add_option_rule(draft: Draft, rng: random.Random) -> str | None:
    """Only some options allow it."""
    entity = _any(draft, rng, lambda e: bool(e.moves) and bool(_chosen(e)))
    if entity is None:
        return None
    chosen = rng.choice(_chosen(entity))
    assert isinstance(chosen.kind, Choice)
    options = chosen.kind.options
    kept = tuple(rng.sample(options, rng.randint(1, len(options) - 1)))
    verb = rng.choice([*(move.verb for move in entity.moves), "delete"])
    return _rule(draft, OneOf(draft.next_policy(), entity.name, (verb,), chosen.name, kept))


def add_flag_rule(draft: Draft, rng: random.Random) -> str | None:
    """A flag allows it."""
    entity = _any(draft, rng, lambda e: bool(e.moves) and any(_is_flag(f) for f in e.fields))
    if entity is None:
        return None
    name = rng.choice([f for f in entity.fields if _is_flag(f)]).name
    verb, value = rng.choice(entity.moves).verb, rng.random() < 0.5
    return _rule(draft, Is(draft.next_policy(), entity.name, (verb,), name, value))


def add_quota(draft: Draft, rng: random.Random) -> str | None:
    """Nobody may have too many at once."""
    entity = _any(draft, rng, lambda e: bool(e.states) and bool(_owners(e)))
    if entity is None:
        return None
    owner, most = rng.choice(_owners(entity)).name, rng.randint(1, 3)
    id, state = draft.next_policy(), entity.states[0]
    return _rule(draft, Quota(id, entity.name, ("create",), owner, most, state))


OPERATORS: tuple[Operator, ...] = (
    add_entity,
    add_relation,
    add_state,
    add_end,
    add_optional_field,
    add_choice,
    extend_choice,
    nest_fields,
    rename_style,
    change_currency,
    add_amount_rule,
    add_date_rule,
    add_option_rule,
    add_flag_rule,
    add_quota,
)


def _rule(draft: Draft, policy: Policy) -> str | None:
    same = (p.entity == policy.entity and set(p.verbs) & set(policy.verbs) for p in draft.policies)
    if any(same) or len(draft.policies) >= 6:
        return None
    draft.policies.append(policy)
    return f"rule {policy.sentence()}"


def _add(draft: Draft, rng: random.Random, field: Field) -> str | None:
    entity = _any(draft, rng, lambda e: field.name not in e.by_name and len(e.fields) < 12)
    if entity is None:
        return None
    draft.put(_with_field(entity, field))
    return f"add field {field.name} to {entity.name}"


def _any(draft: Draft, rng: random.Random, suits: Callable[[Entity], bool]) -> Entity | None:
    found = [entity for entity in draft.entities if suits(entity)]
    return rng.choice(found) if found else None


def _with_field(entity: Entity, field: Field) -> Entity:
    return replace(entity, fields=(*entity.fields, field))


def _replaced(entity: Entity, field: Field) -> Entity:
    fields = tuple(field if f.name == field.name else f for f in entity.fields)
    return replace(entity, fields=fields)


def _drop_policies(draft: Draft, entity: str, fields: set[str]) -> None:
    kept = [p for p in draft.policies if p.entity != entity or p.field not in fields]
    draft.policies = [replace(p, id=f"P{i + 1}") for i, p in enumerate(kept)]


def _plain(entity: Entity) -> Sequence[Field]:
    kinds = (Text, Choice, Flag, Count, Measure, Day)
    return [f for f in entity.fields if f.required and isinstance(f.kind, kinds)]


def _dated(entity: Entity) -> list[Field]:
    return [f for f in entity.fields if isinstance(f.kind, (Day, Moment))]


def _chosen(entity: Entity) -> list[Field]:
    return [f for f in entity.fields if isinstance(f.kind, Choice) and len(f.kind.options) > 1]


def _is_flag(field: Field) -> bool:
    return isinstance(field.kind, Flag)


def _owners(entity: Entity) -> list[Field]:
    return [
        f
        for f in entity.fields
        if isinstance(f.kind, Reference) or (isinstance(f.kind, Text) and f.kind.sort == "person")
    ]
