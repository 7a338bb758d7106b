"""Several calls that hang together: fan-out, conditions, chains, transfers, reconciling."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from selenite.agent.ontology.entity import STATUS
from selenite.agent.tasks.draft import Draft, Unfit
from selenite.agent.tasks.locating import by_id, locate
from selenite.agent.tasks.plan import All, Given, Read, Source
from selenite.agent.tasks.templates import single
from selenite.agent.tools.naming import doing
from selenite.agent.tools.tool import Tool
from selenite.agent.values.compounds import COMPOUND
from selenite.agent.values.kind import joined, spoken
from selenite.agent.values.numbers import Count, Measure
from selenite.agent.values.texts import Flag, Reference
from selenite.agent.world.records import Record


def fan_out(draft: Draft) -> None:
    """The same step for two to four records that the user names."""
    for tool in draft.tools("move"):
        ids = _movable(draft, tool)
        if len(ids) < 2:
            continue
        chosen = draft.rng.sample(ids, min(len(ids), draft.rng.randint(2, 4)))
        targets = [by_id(draft, tool.entity, id) for id in chosen]
        if draft.domain.policies_of(tool.entity, tool.verb):
            for target in targets:
                draft.look(tool.entity, target.id)
        for target in targets:
            draft.call(tool, {tool.param_of("id").name: target.id})
        many = draft.many(tool)
        names = joined([f"{{{t.id.slot}}}" for t in targets if isinstance(t.id, Given)])
        draft.end_phase(
            (
                f"Please {doing(tool.verb, f'the {many} {names}')}.",
                f"I want to {doing(tool.verb, f'these {many}')}: {names}.",
                f"{names}: {doing(tool.verb, f'all of these {many}')}, please.",
            ),
            report=f"{joined(chosen)} are now {spoken(tool.options['target'])}",
        )
        return
    raise Unfit("no several records")


def all_that_match(draft: Draft) -> None:
    """A step for every record of a list that a filter gives."""
    for tool in draft.tools("move"):
        for listing in draft.tools("list", tool.entity):
            for param in listing.params:
                movable = _movable(draft, tool)
                if isinstance(param.kind, (Reference, *COMPOUND)):
                    continue
                records = draft.world.records.of(tool.entity)
                values = {r.get(param.field) for r in records.values()} - {None}
                for value in sorted(values, key=str):
                    ids = [i for i, r in records.items() if r.get(param.field) == value]
                    if not (2 <= len(ids) <= 4 and set(ids) <= set(movable)):
                        continue
                    words = spoken(param.field)
                    given = draft.give(f"their_{param.field}", words, param.kind, value)
                    step, _ = draft.call(listing, {param.name: given})
                    for i in range(len(ids)):
                        id = Read(step, ("items", i, "id"))
                        draft.call(tool, {tool.param_of("id").name: id})
                    wish = doing(tool.verb, f"all {draft.many(tool)}")
                    draft.end_phase(
                        (
                            f"Please {wish} whose {words} is {{{given.slot}}}.",
                            f"I want to {wish} with the {words} {{{given.slot}}}.",
                        ),
                        report=f"{joined(ids)} are now {spoken(tool.options['target'])}",
                    )
                    return
    raise Unfit("no list whose records all can be moved")


def bulk(draft: Draft) -> None:
    """A bulk call of which some parts fail: which ones must be said."""
    for tool in draft.tools("move_several"):
        movable = set(_movable(draft, tool))
        records = draft.world.records.of(tool.entity)
        stuck = [id for id in records if id not in movable]
        if not movable or not stuck:
            continue
        some = draft.rng.sample(sorted(movable), min(len(movable), draft.rng.randint(1, 3)))
        chosen = [*some, *draft.rng.sample(stuck, min(len(stuck), draft.rng.randint(1, 2)))]
        draft.rng.shuffle(chosen)
        targets = [by_id(draft, tool.entity, id) for id in chosen]
        ids = All(tuple(t.id for t in targets if isinstance(t.id, Given)))
        _, content = draft.call(tool, {tool.param_of(tool.options["ids"]).name: ids})
        many = draft.many(tool)
        names = joined([f"{{{part.slot}}}" for part in ids.of if isinstance(part, Given)])
        kind = draft.domain.by_entity[tool.entity].id_kind
        failed = content["failed"]
        if any(one["id"] not in one["message"] for one in failed):
            raise Unfit("a policy forbids some: those would have to be handed to a human")
        draft.end_phase(
            (
                f"Please {doing(tool.verb, f'the {many} {names}')} in one go.",
                f"I want to {doing(tool.verb, f'several {many}')}: {names}.",
            ),
            answers=[draft.answer("left as it was", kind, one["id"]) for one in failed],
            is_whole=False,
            report=f"{joined(content['done'])} "
            + ("are" if len(content["done"]) > 1 else "is")
            + f" now {spoken(tool.options['target'])}. "
            + " ".join(_why(draft, tool, one) for one in failed).rstrip("."),
        )
        return
    raise Unfit("no bulk call")


def _why(draft: Draft, tool: Tool, failed: Mapping[str, str]) -> str:
    """Why a part of a bulk call failed; nothing is wrong with what is so already."""
    state: str = draft.world.record(tool.entity, failed["id"])[STATUS]
    is_so = state == tool.options["target"]
    return f"{failed['id']} is {spoken(state)} already." if is_so else failed["message"]


def conditional(draft: Draft) -> None:
    """One thing or another, whichever a record's field decides."""
    for entity in draft.entities():
        gets = draft.tools("get", entity.name)
        moves = draft.tools("move", entity.name)
        fields = [
            f for f in entity.fields if f.required and not isinstance(f.kind, (Flag, *COMPOUND))
        ]
        if not gets or not moves or not fields:
            continue
        move = moves[0]
        id, record = draft.any_record(entity.name, partial(_can, move))
        target = locate(draft, entity.name, id)
        field = draft.rng.choice(fields)
        if field.name not in record or f"{entity.name}_{field.name}" in draft.slots:
            raise Unfit("the condition is about what names the record")
        holds = draft.rng.random() < 0.6
        value = record[field.name]
        if not holds:
            value = field.kind.draw(draft.rng, draft.world.today)
            if value == record[field.name] or isinstance(field.kind, Reference):
                raise Unfit("no other value")
        given = draft.give(
            f"if_{field.name}", f"{field.words} that it must have", field.kind, value
        )
        step, path = draft.look(entity.name, target.id)
        if holds:
            draft.call(move, {move.param_of("id").name: Read(step, (*path, "id"))})
        condition = f"the {field.words} of {target.said} is {{{given.slot}}}"
        answers = (
            [] if holds else [draft.answer(f"its {field.words}", field.kind, record[field.name])]
        )
        state = spoken(move.options["target"])
        draft.end_phase(
            (
                f"If {condition}, {doing(move.verb, 'it')}. If not, tell me what it is.",
                f"Check whether {condition}: then {doing(move.verb, 'it')}, and else tell me "
                "what it is instead.",
            ),
            answers=answers,
            report=f"{id} is now {state}" if holds else "I changed nothing",
        )
        return
    raise Unfit("nothing to decide")


def transfer(draft: Draft) -> None:
    """An amount moved between two records."""
    tool = draft.tool("transfer")
    source, _ = draft.any_record(tool.entity)
    target, _ = draft.any_record(tool.entity)
    if source == target:
        raise Unfit("one record only")
    old = draft.world.record(tool.entity, source)[tool.options["field"]]
    kind = tool.param_of("amount").kind
    places = kind.places if isinstance(kind, Measure) else 2
    amount = round(old * draft.rng.choice((0.1, 0.25, 0.5)), places)
    amount = int(amount) if isinstance(kind, Count) else amount
    if amount <= 0:
        raise Unfit("nothing to transfer")
    given = draft.give("amount", "amount", kind, amount)
    first = locate(draft, tool.entity, source)
    second = locate(draft, tool.entity, target)
    sources: dict[str, Source] = {
        tool.param_of(f"from_{tool.entity}").name: first.id,
        tool.param_of(f"to_{tool.entity}").name: second.id,
        tool.param_of("amount").name: given,
    }
    draft.call(tool, sources)
    words = spoken(tool.options["field"])
    draft.end_phase(
        (
            f"Move {{{given.slot}}} of {words} from {first.said} to {second.said}.",
            f"Please transfer {{{given.slot}}} ({words}) from {first.said} to {second.said}.",
        ),
        report=f"I moved it: {words} of {source} and {target} changed",
    )


def reassign(draft: Draft) -> None:
    """Everything of one record handed to another."""
    tool = draft.tool("reassign")
    old, _ = draft.any_record(tool.options["of"])
    new, _ = draft.any_record(tool.options["of"])
    users = [
        r
        for r in draft.world.records.of(tool.entity).values()
        if r.get(tool.options["field"]) == old
    ]
    if old == new or not users:
        raise Unfit("nothing to hand over")
    first, second = locate(draft, tool.options["of"], old), locate(draft, tool.options["of"], new)
    sources = {tool.param_of("old").name: first.id, tool.param_of("new").name: second.id}
    _, content = draft.call(tool, sources)
    many = draft.many(tool)
    draft.end_phase(
        (
            f"All {many} of {first.said} go to {second.said} from now on.",
            f"Hand all {many} of {first.said} over to {second.said}.",
        ),
        report=f"{joined(content['changed'])} now belong to {new}",
    )


def reconcile(draft: Draft) -> None:
    """A field of one record set to what another has."""
    for entity in draft.entities():
        gets = draft.tools("get", entity.name)
        for tool in draft.tools("update", entity.name):
            others = [p for p in tool.params if p.field != "id"]
            fields = [p for p in others if not isinstance(p.kind, Flag)]
            if not gets or not fields or any(p.required for p in others[1:]):
                continue
            param = draft.rng.choice(fields)
            id, record = draft.any_record(entity.name)
            model, other = draft.any_record(entity.name)
            if id == model or other.get(param.field) in (None, record.get(param.field)):
                continue
            first = locate(draft, entity.name, model)
            step, path = draft.look(entity.name, first.id)
            second = locate(draft, entity.name, id)
            if any(name.startswith(f"{entity.name}_{param.field}") for name in draft.slots):
                raise Unfit("what is copied is how a record is named")
            value = Read(step, (*path, param.field))
            draft.call(tool, {tool.param_of("id").name: second.id, param.name: value})
            words = spoken(param.field)
            draft.end_phase(
                (
                    f"Give {second.said} the same {words} as {first.said}.",
                    f"The {words} of {second.said} should be that of {first.said}.",
                ),
                report=f"I gave {id} the {words} of {model}",
            )
            return
    raise Unfit("nothing to reconcile")


def amend(draft: Draft) -> None:
    """What was made or changed just now is changed once more: the user had second thoughts."""
    last = draft.domain.by_tool[draft.steps[-1].tool]
    if last.family not in ("create", "update"):
        raise Unfit("nothing to think better of")
    for tool in draft.tools("update", last.entity):
        given = {
            last.by_name[name].field: source for name, source in draft.steps[-1].sources.items()
        }
        again = [p for p in tool.params if p.field in given and p.field != "id"]
        plain = [p for p in again if not isinstance(p.kind, (Reference, Flag, *COMPOUND))]
        if not plain:
            continue
        param, id = draft.rng.choice(plain), Read(len(draft.steps) - 1, ("id",))
        if any(p.required for p in tool.params if p.field not in ("id", param.field)):
            continue
        value = single.new_value(draft, param, draft.value(given[param.field]))
        draft.call(tool, {tool.param_of("id").name: id, param.name: value})
        words = spoken(param.field)
        draft.end_phase(
            (
                f"Oh, wait: make the {words} {{{value.slot}}} instead.",
                f"I changed my mind. The {words} should be {{{value.slot}}}.",
                f"Sorry, on second thought I want {{{value.slot}}} as the {words}.",
            ),
            report=f"I changed the {words}",
            is_amendment=True,
        )
        return
    raise Unfit("no tool to change it")


def make_and_move(draft: Draft) -> None:
    """A record made and taken a step on at once."""
    creates = [t for t in draft.tools("create") if t.entity != "escalation"]
    for tool in creates:
        entity = draft.domain.by_entity[tool.entity]
        moves = [
            m for m in draft.tools("move", tool.entity) if entity.states[0] in m.options["sources"]
        ]
        if not moves:
            continue
        single.create(draft)
        made = len(draft.steps) - 1
        if draft.steps[made].tool != tool.name:
            raise Unfit("another one was made")
        phase = draft.phases.pop()
        draft.reopen(phase)
        draft.call(moves[0], {moves[0].param_of("id").name: Read(made, ("id",))})
        state = spoken(moves[0].options["target"])
        draft.end_phase(
            (
                f"{phase.request} Then {doing(moves[0].verb, 'it')}.",
                f"{phase.request} And {doing(moves[0].verb, 'it')} right away.",
            ),
            phase.details,
            report=f"{phase.report} and {state}",
        )
        return
    raise Unfit("nothing to make and move")


def _movable(draft: Draft, tool: Tool) -> list[str]:
    """Records that a tool would move, policies included."""
    probe = draft.world.fork()
    moves = [m for m in draft.tools("move", tool.entity) if m.verb == tool.verb]
    return [
        id
        for id in draft.world.records.of(tool.entity)
        for move in moves
        if probe.fork().call(move.name, {move.param_of("id").name: id}).is_ok
    ]


def _can(move: Tool, record: Record) -> bool:
    return record.get(STATUS) in move.options["sources"]
