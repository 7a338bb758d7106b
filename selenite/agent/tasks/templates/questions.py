"""Questions: nothing changes, and the answer must be said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selenite.agent.ontology.entity import STATUS
from selenite.agent.tasks.draft import Draft, Unfit
from selenite.agent.tasks.locating import locate
from selenite.agent.tasks.plan import Answer, Read, Source
from selenite.agent.tools.naming import doing
from selenite.agent.tools.reading import GROUP, PAGE
from selenite.agent.tools.tool import Tool
from selenite.agent.values.compounds import COMPOUND
from selenite.agent.values.kind import spoken
from selenite.agent.values.numbers import Count, Measure
from selenite.agent.values.texts import Choice, Flag, Reference

Content = Mapping[str, Any]


def fact(draft: Draft) -> None:
    """A field of a record."""
    for entity in draft.entities():
        tools = draft.tools("get", entity.name)
        names = [f for f in entity.by_name.values() if not isinstance(f.kind, (Flag, *COMPOUND))]
        if not tools or not names:
            continue
        id, record = draft.any_record(entity.name)
        field = draft.rng.choice(names)
        if field.name not in record:
            continue
        target = locate(draft, entity.name, id)
        draft.look(entity.name, target.id)
        if any(slot.value == record[field.name] for slot in draft.slots.values()):
            raise Unfit("the question has its answer")
        words = field.words
        draft.end_phase(
            (
                f"What is the {words} of {target.said}?",
                f"Can you tell me the {words} of {target.said}?",
                f"I'd like to know the {words} of {target.said}.",
            ),
            answers=[draft.answer(f"{id}, {words}", field.kind, record[field.name])],
        )
        return
    raise Unfit("nothing to ask for")


def reckoned(draft: Draft) -> None:
    """A sum, a price, or how many there are."""
    tools = draft.tools("total") + draft.tools("quote") + draft.tools("count")
    if not tools:
        raise Unfit("nothing to reckon")
    tool = draft.rng.choice(tools)
    sources: dict[str, Source] = {}
    filters = []
    for param in tool.params:
        if not (param.required or draft.rng.random() < 0.5):
            continue
        if isinstance(param.kind, (Reference, *COMPOUND)):
            raise Unfit("a reference to find")
        value = param.kind.draw(draft.rng, draft.world.today)
        given = draft.give(param.field, spoken(param.field), param.kind, value)
        sources[param.name] = given
        if param.field != GROUP:
            filters.append(given.slot)
    _, content = draft.call(tool, sources)
    requests, answer = _RECKONED[tool.family](draft, tool, content)
    draft.end_phase(requests, filters, [answer])


def _quoted(draft: Draft, tool: Tool, content: Content) -> tuple[tuple[str, ...], Answer]:
    one = spoken(tool.entity)
    price = tool.param_of(tool.options["price"]).kind
    requests = (
        f"What would a {one} cost? Just a quote, please.",
        f"Give me a quote for a {one}.",
    )
    return requests, draft.answer("the total with the fee", price, content["total"])


def _totalled(draft: Draft, tool: Tool, content: Content) -> tuple[tuple[str, ...], Answer]:
    if content["records"] == 0:
        raise Unfit("nothing to add up")
    field = draft.domain.by_entity[tool.entity].by_name[tool.options["field"]]
    many = draft.many(tool)
    requests = (
        f"What is the total {field.words} of the {many}?",
        f"Add up the {field.words} of the {many}.",
    )
    return requests, draft.answer(f"total {field.words}", field.kind, content["total"])


def _counted(draft: Draft, tool: Tool, content: Content) -> tuple[tuple[str, ...], Answer]:
    many = draft.many(tool)
    if GROUP not in draft.slots:
        requests = (f"How many {many} are there?", f"Count the {many} for me, please.")
        return requests, Answer(f"number of {many}", (str(content["total"]),))
    field = draft.domain.by_entity[tool.entity].by_name[draft.slots[GROUP].value]
    known = [name for name in content["counts"] if name != "None"]
    if not isinstance(field.kind, Choice) or not known:
        raise Unfit("no group to count")
    group = draft.rng.choice(known)
    given = draft.give(f"{field.name}_counted", field.words, field.kind, group)
    requests = (
        f"How many of the {many} have {{{given.slot}}} as their {{{GROUP}}}?",
        f"I need the number of {many} by {{{GROUP}}}, the one for {{{given.slot}}}.",
    )
    return requests, Answer(f"number of {many}", (str(content["counts"][group]),))


_RECKONED = {"quote": _quoted, "total": _totalled, "count": _counted}


def chosen(draft: Draft) -> None:
    """The record with the most or least of something, which then is moved on, or only named."""
    tool = draft.tool("extreme")
    step, content = draft.call(tool, {})
    rest = [r for i, r in draft.world.records.of(tool.entity).items() if i != content["id"]]
    if any(r.get(tool.options["by"]) == content[tool.options["by"]] for r in rest) or not rest:
        raise Unfit("several have it")
    which = "highest" if tool.options["is_highest"] else "lowest"
    words = spoken(tool.options["by"])
    said = f"the {spoken(tool.entity)} with the {which} {words}"
    moves = [
        m for m in draft.tools("move", tool.entity) if content.get(STATUS) in m.options["sources"]
    ]
    if moves and draft.rng.random() < 0.6:
        draft.call(moves[0], {moves[0].param_of("id").name: Read(step, ("id",))})
        state = spoken(moves[0].options["target"])
        draft.end_phase(
            (
                f"Please {doing(moves[0].verb, said)}.",
                f"Find {said} and {doing(moves[0].verb, 'it')}.",
            ),
            report=f"{content['id']} is now {state}",
        )
        return
    kind = draft.domain.by_entity[tool.entity].id_kind
    draft.end_phase(
        (f"Which one is {said}? I need its id.", f"Tell me the id of {said}."),
        answers=[draft.answer(said, kind, content["id"])],
    )


def paged(draft: Draft) -> None:
    """How often something occurs in a list that comes in pages."""
    for tool in draft.tools("list"):
        records = draft.world.records.of(tool.entity)
        pages = [p for p in tool.params if p.field == PAGE]
        numbers = [
            f
            for f in draft.domain.by_entity[tool.entity].fields
            if f.required and isinstance(f.kind, (Count, Measure))
        ]
        if len(records) <= 5 or not pages or not numbers:
            continue
        field = draft.rng.choice(numbers)
        limit = draft.rng.choice([r[field.name] for r in records.values()])
        above = [id for id, r in records.items() if r[field.name] > limit]
        if not above:
            continue
        step, content = draft.call(tool, {})
        while "next_page" in content:
            step, content = draft.call(tool, {pages[0].name: Read(step, ("next_page",))})
        given = draft.give(f"{field.name}_limit", f"limit of {field.words}", field.kind, limit)
        many = draft.many(tool)
        draft.end_phase(
            (
                f"Which {many} have a {field.words} above {{{given.slot}}}? I need all their ids.",
                f"Give me the ids of all {many} with a {field.words} over {{{given.slot}}}.",
            ),
            answers=[Answer(f"{field.words} above the limit", (id,)) for id in above],
            is_exhaustive=True,
        )
        return
    raise Unfit("no long list")
