"""Domains and worlds: reproducible, executable, and never changed by what is refused."""

from __future__ import annotations

import json
import math
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import jsonschema
import pytest

from selenite.agent.ontology.archetypes import categories
from selenite.agent.ontology.entity import STATUS
from selenite.agent.ontology.evolve import make_domain
from selenite.agent.randomness import stream
from selenite.agent.tools.tool import Effect, signature
from selenite.agent.values.dates import Day, Moment
from selenite.agent.world.domain import Domain
from selenite.agent.world.faults import Change, Fault, FaultPlan
from selenite.agent.world.records import Records
from selenite.agent.world.reply import Code
from selenite.agent.world.sample import draw_arguments, sample_world
from selenite.agent.world.world import World

NUMBERS = range(60)  # two domains of each category


@pytest.fixture(scope="module")
def domains() -> list[Domain]:
    return [make_domain(3, number) for number in NUMBERS]


def described(number: int) -> str:
    """A domain and one of its worlds as text."""
    domain = make_domain(3, number)
    world = sample_world(domain, 5)
    tools = [tool.record() for tool in domain.tools]
    policies = [policy.sentence() for policy in domain.policies]
    return json.dumps([domain.steps, tools, policies, world.records.tables(), str(world.today)])


def test_there_are_thirty_categories_of_at_least_six_archetypes() -> None:
    assert len(categories()) >= 30
    assert all(6 <= len(category.archetypes) <= 12 for category in categories())


def test_a_domain_is_the_same_in_whatever_order_and_process() -> None:
    expected = [described(number) for number in range(12)]
    assert len(set(expected)) == 12
    assert [described(number) for number in reversed(range(12))] == expected[::-1]
    with ProcessPoolExecutor(2) as pool:
        assert list(pool.map(described, range(12))) == expected


def test_names_and_schemas_are_in_order(domains: list[Domain]) -> None:
    for domain in domains[::4]:
        assert len(domain.by_tool) == len(domain.tools)
        for tool in domain.tools:
            jsonschema.Draft202012Validator.check_schema(tool.parameters)
            jsonschema.Draft202012Validator.check_schema(tool.returns)
            assert tool.description
            assert len(tool.by_name) == len(tool.params)


def test_policies_speak_of_what_there_is(domains: list[Domain]) -> None:
    guarded = 0
    for domain in domains:
        for policy in domain.policies:
            assert policy.field in domain.by_entity[policy.entity].by_name
            guarded += sum(
                tool.entity == policy.entity and tool.verb in policy.verbs for tool in domain.tools
            )
    assert guarded > len(domains) / 2


def test_every_tool_runs_and_returns_what_it_says(domains: list[Domain]) -> None:
    succeeded, called = Counter[str](), Counter[str]()
    for domain in domains[:16]:
        validators = {t.name: jsonschema.Draft202012Validator(t.returns) for t in domain.tools}
        for seed in range(6):
            rng = stream(seed, "arguments", domain.id)
            for tool in domain.tools:
                world = sample_world(domain, seed)
                reply = world.call(tool.name, draw_arguments(world, tool, rng))
                called[tool.family] += 1
                if reply.is_ok:
                    succeeded[tool.family] += 1
                    validators[tool.name].validate(reply.content)
    assert len(called) == 16  # all families
    for family, count in called.items():
        assert succeeded[family] > 0.2 * count, (family, succeeded[family], count)


def test_what_is_refused_or_only_reads_changes_nothing(domains: list[Domain]) -> None:
    codes = Counter[Code | None]()
    for domain in domains[:30]:
        world, rng = sample_world(domain, 1), stream(1, "calls", domain.id)
        for _ in range(150):
            tool = rng.choice(domain.tools)
            reply = world.call(tool.name, draw_arguments(world, tool, rng))
            event = world.events[-1]
            codes[reply.code] += 1
            if not reply.is_ok or tool.effect in (Effect.READ, Effect.COMPUTE):
                assert event.before == event.after, tool.name
        # The running hash is that of the state itself.
        assert Records(world.records.tables()).digest() == world.records.digest()
    assert {None, Code.NOT_FOUND, Code.FAILED_PRECONDITION, Code.INVALID_ARGUMENT} <= codes.keys()


def test_calls_replay_bit_for_bit(domains: list[Domain]) -> None:
    for domain in domains[:20]:
        world, rng = sample_world(domain, 2), stream(2, "calls", domain.id)
        for _ in range(60):
            tool = rng.choice(domain.tools)
            world.call(tool.name, draw_arguments(world, tool, rng))
        again = sample_world(domain, 2)
        for event in world.events:
            again.call(event.tool, event.arguments)
        assert again.events == world.events


def test_lives_are_kept_to(domains: list[Domain]) -> None:
    """By a walk of our own: a status only ever changes along a move."""
    changes = 0
    for domain in domains[:30]:
        world, rng = sample_world(domain, 3), stream(3, "calls", domain.id)
        for _ in range(150):
            old = {(entity, id): r.get(STATUS) for entity, id, r in world.records}
            tool = rng.choice(domain.tools)
            world.call(tool.name, draw_arguments(world, tool, rng))
            for entity, id, record in world.records:
                before, after = old.get((entity, id)), record.get(STATUS)
                if before is None or before == after:
                    continue
                moves = domain.by_entity[entity].moves
                assert any(before in m.sources and after == m.target for m in moves)
                changes += 1
    assert changes > 50


def test_no_policy_is_broken_by_what_succeeds(domains: list[Domain]) -> None:
    """What the policies say of the record as it was, asked again."""
    guarded = 0
    for domain in domains:
        world, rng = sample_world(domain, 6), stream(6, "calls", domain.id)
        tools = [
            tool
            for tool in domain.tools
            if tool.family in ("move", "update", "delete")
            and domain.policies_of(tool.entity, tool.verb)
        ]
        for _ in range(60 if tools else 0):
            tool = rng.choice(tools)
            given = draw_arguments(world, tool, rng)
            before = world.records.copy()
            reply = world.call(tool.name, given)
            record = before.find(tool.entity, given[tool.param_of("id").name])
            rules = domain.policies_of(tool.entity, tool.verb)
            allowed = record is not None and all(
                rule.allows(record, before.of(tool.entity).values(), world.today) for rule in rules
            )
            assert allowed or not reply.is_ok
            guarded += record is not None and not allowed
    assert guarded > 50


def test_every_code_is_reachable(domains: list[Domain]) -> None:
    found = set[Code | None]()
    for domain in domains:
        world, rng = sample_world(domain, 7), stream(7, "calls", domain.id)
        for _ in range(50):
            tool = rng.choice(domain.tools)
            found.add(world.call(tool.name, draw_arguments(world, tool, rng)).code)
    world = sample_world(domains[0], 0)
    name, entity = domains[0].tools[0].name, domains[0].entities[0].name
    id, record = next(iter(world.records.of(entity).items()))
    field = next(iter(record))
    meanwhile = Change(entity, id, field, record[field])
    planned = [Fault(Code.UNAVAILABLE), Fault(Code.RATE_LIMITED, retry_after=3)]
    planned += [Fault(Code.DEADLINE_EXCEEDED), Fault(Code.CONFLICT, meanwhile=meanwhile)]
    plan = FaultPlan({(name, i): fault for i, fault in enumerate(planned)})
    rng, faulty = stream(0, "codes"), world.fork(plan)
    for _ in planned:
        found.add(faulty.call(name, draw_arguments(world, domains[0].tools[0], rng)).code)
    arguments = draw_arguments(world, domains[0].tools[0], rng)
    found.add(
        world.fork(FaultPlan(lasting={name: Code.PERMISSION_DENIED})).call(name, arguments).code
    )
    found.add(world.call("no_such_tool", {}).code)
    assert found == {None, *Code}


def test_somebody_else_changes_a_record_at_a_conflict(domains: list[Domain]) -> None:
    world = sample_world(domains[0], 0)
    tool = next(t for t in domains[0].tools if t.family == "get")
    id, record = next(iter(world.records.of(tool.entity).items()))
    field = next(f for f in domains[0].by_entity[tool.entity].fields if f.name in record)
    value = field.kind.draw(stream(1, "other"), world.today)
    change = Change(tool.entity, id, field.name, value)
    faulty = world.fork(FaultPlan({(tool.name, 0): Fault(Code.CONFLICT, meanwhile=change)}))
    given = {tool.param_of("id").name: id}
    assert faulty.call(tool.name, given).code is Code.CONFLICT
    assert faulty.call(tool.name, given).content[field.name] == value
    assert faulty.events[0].before == world.records.digest()


def test_references_lead_somewhere_for_ever(domains: list[Domain]) -> None:
    for domain in domains[:30]:
        world, rng = sample_world(domain, 4), stream(4, "calls", domain.id)
        for _ in range(150):
            tool = rng.choice(domain.tools)
            world.call(tool.name, draw_arguments(world, tool, rng))
        for entity, _, record in world.records:
            for field, kind in domain.by_entity[entity].references:
                if field.name in record:
                    assert world.records.find(kind.entity, record[field.name]) is not None


def test_the_hash_knows_no_order() -> None:
    one = {"a": {"A-1": {"x": [1, 2], "y": {"p": 1, "q": [3, 4]}}, "A-2": {"x": [5]}}}
    two = {"a": {"A-2": {"x": [5]}, "A-1": {"y": {"q": [4, 3], "p": 1}, "x": [2, 1]}}}
    other = {"a": {"A-1": {"x": [1, 1], "y": {"p": 1, "q": [3, 4]}}, "A-2": {"x": [5]}}}
    assert Records(one).digest() == Records(two).digest()
    assert Records(one).digest() != Records(other).digest()
    swapped = {"a": {"A-2": one["a"]["A-1"], "A-1": one["a"]["A-2"]}}
    assert Records(one).digest() != Records(swapped).digest()


def test_a_fork_goes_its_own_way(domains: list[Domain]) -> None:
    world = sample_world(domains[0], 1)
    fork = world.fork()
    before = world.records.digest()
    create = next(tool for tool in fork.domain.tools if tool.family == "create")
    rng = stream(0, "fork")
    while not fork.call(create.name, draw_arguments(fork, create, rng)).is_ok:
        pass
    assert world.records.digest() == before != fork.records.digest()
    assert not world.events


def test_failures_come_when_they_are_planned(domains: list[Domain]) -> None:
    domain = next(d for d in domains if any("idempotency_key" in t.by_name for t in d.tools))
    tool = next(t for t in domain.tools if "idempotency_key" in t.by_name)
    rng, plain = stream(0, "faults"), sample_world(domain, 0)
    given = draw_arguments(plain, tool, rng)
    while not plain.fork().call(tool.name, given).is_ok:
        given = draw_arguments(plain, tool, rng)
    given.pop("idempotency_key", None)
    late = Fault(Code.DEADLINE_EXCEEDED, after=True)
    plan = FaultPlan({(tool.name, 0): Fault(Code.UNAVAILABLE), (tool.name, 1): late})
    for key, made in (({}, 2), ({"idempotency_key": "ABC123"}, 1)):
        world = World(domain, plain.records.copy(), plain.today, plan)
        count = len(world.records.of(tool.entity))
        codes = [world.call(tool.name, {**given, **key}).code for _ in range(3)]
        assert codes == [Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, None]
        # A retry after the deadline makes a second record, unless it has a key.
        assert len(world.records.of(tool.entity)) == count + made


def test_wrong_calls_are_answered() -> None:
    world = sample_world(make_domain(3, 0), 0)
    tool = next(t for t in world.domain.tools if t.family == "get")
    id = tool.param_of("id").name
    assert world.call("no_such_tool", {}).code is Code.UNKNOWN_TOOL
    assert world.call(tool.name, {}).code is Code.INVALID_ARGUMENT
    assert world.call(tool.name, {id: 7}).code is Code.INVALID_ARGUMENT
    assert world.call(tool.name, {id: "x", "more": 1}).code is Code.INVALID_ARGUMENT
    missing = world.call(tool.name, {id: f"{world.domain.entities[0].prefix}-9999"})
    assert missing.code is Code.NOT_FOUND
    assert "9999" in missing.content["error"]["message"]


ODD: list[Any] = [
    *(0, -1, 3, 2.0, 1e15, 1e300, 2**53 + 1, 10**400, 5e-324, math.inf, -math.inf, math.nan),
    *(True, None, "", "x", "\0", "\ud800", [], {}, [1], [[1]], {"a": "\udfff"}, ["\ud800"]),
    *("20260105", "20260105T10:00", "2026-W02-1", "0001-01-01T00:00:00+14:00", "9999-12-31"),
]


def test_whatever_is_called_the_world_answers_and_keeps_what_json_can_hold() -> None:
    done = 0
    for number in range(40):
        world, rng = sample_world(make_domain(3, number), number), stream(5, "odd", number)
        for _ in range(120):
            tool = rng.choice(world.domain.tools)
            given = draw_arguments(world, tool, rng)
            for name in given:
                if rng.random() < 0.25:
                    given[name] = rng.choice(ODD)
            before = world.records.digest()
            reply = world.call(tool.name, given)
            assert reply.is_ok or world.records.digest() == before
            json.dumps(reply.content, allow_nan=False, ensure_ascii=False).encode()
            done += reply.is_ok
        json.dumps(world.records.tables(), allow_nan=False, ensure_ascii=False).encode()
    assert done > 1000


def test_the_same_arguments_in_another_form_come_to_the_same() -> None:
    forms = {int: float, float: lambda n: int(n) if n == int(n) else n}
    changed = 0
    for number in range(30):
        plain = sample_world(make_domain(3, number), number)
        rng = stream(6, "forms", number)
        for _ in range(40):
            tool = rng.choice(plain.domain.tools)
            given = draw_arguments(plain, tool, rng)
            other = {name: forms.get(type(v), lambda v: v)(v) for name, v in given.items()}
            for param in tool.params:
                if isinstance(param.kind, (Day, Moment)) and param.name in other:
                    other[param.name] = other[param.name].replace("-", "").replace(":", "")
            one, two = plain.fork(), plain.fork()
            assert one.call(tool.name, given) == two.call(tool.name, other)
            assert one.records.digest() == two.records.digest()
            changed += json.dumps(given) != json.dumps(other)
    assert changed > 150


def test_a_tool_that_fails_for_good_does(domains: list[Domain]) -> None:
    world, rng = sample_world(domains[0], 0), stream(0, "lasting")
    tool = domains[0].tools[0]
    faulty = world.fork(FaultPlan(lasting={tool.name: Code.UNAVAILABLE}))
    for _ in range(9):
        assert faulty.call(tool.name, draw_arguments(world, tool, rng)).code is Code.UNAVAILABLE
    assert faulty.records.digest() == world.records.digest()


def test_a_signature_knows_no_names() -> None:
    record = next(t for t in make_domain(3, 0).tools if t.family == "create").record()
    text = json.dumps(record["parameters"]["properties"])
    renamed = {f"x{i}": s for i, s in enumerate(json.loads(text).values())}
    other = {**record, "name": "other", "description": "Else.", "domain": "elsewhere"}
    other["parameters"] = {**record["parameters"], "properties": renamed}
    assert signature(other) == signature(record)
    less = {**record, "parameters": {**record["parameters"], "required": []}}
    assert signature(less) != signature(record)


def test_thousands_of_signatures() -> None:
    """A tenth of the repository that ``selenite synth`` makes."""
    tools = [tool for number in range(100) for tool in make_domain(1, number).tools]
    assert len(tools) >= 2_000
    assert len({signature(tool.record()) for tool in tools}) >= 800
