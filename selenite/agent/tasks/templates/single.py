"""One thing done to one record: made, changed, moved on, removed, its list longer or shorter."""

from __future__ import annotations

from selenite.agent.ontology.entity import STATUS
from selenite.agent.tasks.draft import Draft, Unfit
from selenite.agent.tasks.locating import by_id, locate
from selenite.agent.tasks.plan import Given, Source
from selenite.agent.tools.making import IDEMPOTENCY_KEY
from selenite.agent.tools.naming import doing
from selenite.agent.tools.tool import Param
from selenite.agent.values.compounds import COMPOUND
from selenite.agent.values.kind import Value, spoken
from selenite.agent.values.texts import Reference


def create(draft: Draft) -> None:
    """A record made; what it refers to is found first."""
    tools = [tool for tool in draft.tools("create") if tool.entity != "escalation"]
    if not tools:
        raise Unfit("nothing to create")
    tool = tools[0]
    words, sources, details, links = spoken(tool.entity), dict[str, Source](), [], list[str]()
    for param in tool.params:
        if param.field == IDEMPOTENCY_KEY or not (param.required or draft.rng.random() < 0.3):
            continue
        if isinstance(param.kind, Reference):
            id, _ = draft.any_record(param.kind.entity)
            target = locate(draft, param.kind.entity, id)
            sources[param.name] = target.id
            is_plain = param.field == param.kind.entity
            links.append(target.said if is_plain else f"{target.said} as the {spoken(param.field)}")
            continue
        value = param.kind.draw(draft.rng, draft.world.today)
        given = draft.give(param.field, spoken(param.field), param.kind, value)
        sources[param.name] = given
        details.append(given.slot)
    _, content = draft.call(tool, sources)
    for_whom = f" for {' and '.join(links)}" if links else ""
    draft.end_phase(
        (
            f"I need a new {words}{for_whom}.",
            f"Please create a {words}{for_whom}.",
            f"Can you add a {words}{for_whom}?",
            f"Set up a new {words}{for_whom}, please.",
        ),
        details,
        report=f"The new {words} is {content['id']}",
    )


def update(draft: Draft) -> None:
    """A field or two of a record changed."""
    for entity in draft.entities():
        for tool in draft.tools("update", entity.name):
            id, record = draft.any_record(entity.name)
            target = locate(draft, entity.name, id)
            others = [p for p in tool.params if p.field != "id"]
            required = [p for p in others if p.required]
            chosen = required or draft.rng.sample(others, min(len(others), draft.rng.randint(1, 2)))
            sources: dict[str, Source] = {tool.param_of("id").name: target.id}
            details = []
            for param in chosen:
                given = new_value(draft, param, record.get(param.field))
                sources[param.name] = given
                details.append(given.slot)
            draft.call(tool, sources)
            fields = " and ".join(spoken(p.field) for p in chosen)
            draft.end_phase(
                (
                    f"Please change the {fields} of {target.said}.",
                    f"I'd like to change the {fields} of {target.said}.",
                    f"Can you set the {fields} of {target.said} anew?",
                ),
                details,
                report=f"I changed the {fields} of {id}",
            )
            return
    raise Unfit("nothing to update")


def move(draft: Draft) -> None:
    """A record taken a step on in its life."""
    tools = draft.tools("move")
    for tool in tools:
        ids = [
            id
            for id, record in draft.world.records.of(tool.entity).items()
            if record.get(STATUS) in tool.options["sources"]
        ]
        if not ids:
            continue
        id = draft.rng.choice(ids)
        target = locate(draft, tool.entity, id)
        draft.call(tool, {tool.param_of("id").name: target.id})
        wish = doing(tool.verb, target.said)
        draft.end_phase(
            (
                f"Please {wish}.",
                f"I want to {wish}.",
                f"Can you {wish} for me?",
                f"Could you please {wish}?",
            ),
            report=f"{id} is now {spoken(tool.options['target'])}",
        )
        return
    raise Unfit("nothing to move")


def delete(draft: Draft) -> None:
    """A record removed."""
    for entity in draft.entities():
        for tool in draft.tools("delete", entity.name):
            id, _ = draft.any_record(entity.name)
            target = locate(draft, entity.name, id)
            draft.call(tool, {tool.param_of("id").name: target.id})
            draft.end_phase(
                (
                    f"Please delete {target.said}.",
                    f"I don't need {target.said} any more, remove it.",
                    f"Get rid of {target.said}, please.",
                ),
                report=f"{id} is deleted",
            )
            return
    raise Unfit("nothing to delete")


def item(draft: Draft) -> None:
    """One more, or one less, in a list of a record."""
    for tool in draft.tools("items"):
        name = tool.options["field"]
        id, record = draft.any_record(tool.entity)
        present = record.get(name, [])
        param = tool.param_of(tool.options["item"])
        if tool.options["adds"]:
            value = param.kind.draw(draft.rng, draft.world.today)
        elif len(present) > 1:
            value = draft.rng.choice(present)
        else:
            continue
        if isinstance(param.kind, COMPOUND):
            continue
        target = locate(draft, tool.entity, id)
        given = draft.give(param.field, spoken(param.field), param.kind, value)
        draft.call(tool, {tool.param_of("id").name: target.id, param.name: given})
        verb, link = ("add", "to") if tool.options["adds"] else ("remove", "from")
        words = spoken(name)
        draft.end_phase(
            (
                f"Please {verb} {{{given.slot}}} {link} the {words} of {target.said}.",
                f"Can you {verb} {{{given.slot}}} {link} the {words} of {target.said}?",
            ),
            report=f"I {'added it' if tool.options['adds'] else 'removed it'}: {words} of {id}",
        )
        return
    raise Unfit("no list to change")


def new_value(draft: Draft, param: Param, old: Value) -> Given:
    """A value for a field that it does not have yet."""
    kind = param.kind
    if isinstance(kind, Reference):
        id, _ = draft.any_record(kind.entity)
        if id == old:
            raise Unfit("nothing to change to")
        given = by_id(draft, kind.entity, id).id
        assert isinstance(given, Given)
        return given
    for _ in range(8):
        value = kind.draw(draft.rng, draft.world.today)
        if value != old:
            return draft.give(f"new_{param.field}", f"new {spoken(param.field)}", kind, value)
    raise Unfit(f"nothing to change {param.field} to")
