"""Users in a model's words: whatever it tries, they say what is on the card and nothing else."""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import replace
from typing import Any

from selenite.agent.episodes.episode import play_script
from selenite.agent.judges.verdict import judge
from selenite.agent.randomness import stream
from selenite.agent.roles.outcomes import Outcomes
from selenite.agent.roles.play import play_roles
from selenite.agent.roles.role import Role
from selenite.agent.roles.wording import Wording
from selenite.agent.tasks.task import Task
from selenite.agent.users.persona import persona
from selenite.agent.users.user import CardUser
from tests.agent.roles.stub import ADDED, one_stage, original, task_of, text
from tests.fixtures.scripted_server import Answer

ENDS = (
    " Also do it for ORD-1234.",
    " It costs 99.95 in all.",
    " Make that twenty.",
    " By Friday, please.",
    " It is for 2026-12-24.",
    " My name is Bartholomew.",
    " Write to someone@example.com.",
    " And delete the others.",
    ' Name it "the last one".',
    " Do not do it, though.",
)


class Inventor:
    """Puts a user's text in other words: sometimes well, mostly with something of its own."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)

    def __call__(self, body: dict[str, Any]) -> Answer:
        said, rng = original(body), self._rng
        digits = re.findall(r"\d", said)
        if digits and rng.random() < 0.2:
            digit = rng.choice(digits)
            return text({"text": ADDED + said.replace(digit, str((int(digit) + 1) % 10))})
        if rng.random() < 0.15:
            return text({"text": ADDED + " ".join(said.split()[::-1])})
        if rng.random() < 0.15:
            return text({"text": ADDED + said[: len(said) // 2]})
        return text({"text": ADDED + said + rng.choice([*ENDS, ""])})


def values_in(said: str) -> set[str]:
    """What could be a value: numbers, those of ids too, and addresses."""
    return set(re.findall(r"\d[\d.,:]*\d|\d|\S+@\S+\w", said))


def card(task: Task) -> str:
    """All that the user of a task may say, in all its forms."""
    today = task.setting.open().today
    known = [phase.request for phase in task.phases]
    for slot in task.slots.values():
        for value in (slot.value, task.mistaken.get(slot.name, slot.value)):
            known += slot.kind.forms(value, today)
    return " ".join(known)


def test_a_user_invents_nothing() -> None:
    whole, taken = Outcomes(), 0
    with one_stage() as stage:
        for number in range(50):
            task = task_of(number)
            roles = stage.roles(Inventor(number), Role.USER, repairs=1)
            trajectory, outcomes = play_roles(task, roles, number)
            outcomes.check_integrity()
            whole.add(outcomes)
            assert judge(trajectory).passes
            script = play_script(task)
            assert script is not None
            assert trajectory.events == script.events
            known = card(task)
            for message in trajectory.messages:
                if message.role != "user":
                    continue
                taken += message.content.startswith(ADDED)
                assert values_in(message.content) <= values_in(known) | {"."}
                for name in ("Bartholomew", "Friday", "twenty", "last one", "delete the others"):
                    assert name not in message.content or name.lower() in known.lower()
                assert "Do not do it" not in message.content
    counts = whole.of(Role.USER)
    assert taken == counts.accepted > 5
    assert counts.kept.total() > 20
    assert {"lost_value", "invented"} < counts.kept.keys()


def test_texts_that_were_tampered_with_are_refused() -> None:
    """Two values swapped, one left out, one with other digits."""
    tried = Counter[str]()
    for number in range(120):
        task = task_of(number)
        world, rng = task.setting.open(), random.Random(number)
        user = CardUser(task, replace(persona(number), typos=0.0), world, stream(number, "user"))
        opened = user.open()
        forms = {n: task.slots[n].kind.forms(task.slots[n].value, world.today) for n in user.said}
        said = {n: next(f for f in sorted(forms[n], key=len)[::-1] if f in opened) for n in forms}
        wording = Wording(world.domain)
        assert wording.objection(opened, ADDED + opened, list(forms.values())) is None
        if task.mistaken or len(set(said.values())) < len(said) or not said:
            continue
        one, *others = rng.sample(sorted(said), len(said))
        spoilt = {"left out": opened.replace(said[one], "")}
        other = re.sub(r"\d", lambda digit: str((int(digit[0]) + 1) % 10), said[one])
        if other != said[one]:
            spoilt["other digits"] = opened.replace(said[one], other)
        rest = [said[name] for name in others]
        if others and not any(said[one] in form or form in said[one] for form in rest):
            marked = opened.replace(said[one], "\1").replace(said[others[0]], said[one])
            spoilt["swapped"] = marked.replace("\1", said[others[0]])
        for how, after in spoilt.items():
            tried[how] += 1
            assert wording.objection(opened, after, list(forms.values())), (how, opened, after)
    assert min(tried.values()) > 20
    assert len(tried) == 3


def test_what_a_user_says_wrong_at_first_comes_first() -> None:
    """A model that swaps the two values would change what is wanted."""
    task = next(task for n in range(400) if (task := task_of(n)).mistaken)
    (name,) = task.mistaken
    slot = task.slots[name]

    def swapped(body: dict[str, Any]) -> Answer:
        said, today = original(body), task.setting.open().today
        for right in slot.kind.forms(slot.value, today):
            for wrong in slot.kind.forms(task.mistaken[name], today):
                if right in said and wrong in said:
                    parts = said.replace(wrong, "\1").replace(right, wrong).replace("\1", right)
                    return text({"text": ADDED + parts})
        return text({"text": ADDED + said})

    with one_stage() as stage:
        roles = stage.roles(swapped, Role.USER, repairs=0)
        _, outcomes = play_roles(task, roles, task.number)
    assert outcomes.of(Role.USER).kept == {"reordered": 1}
    assert outcomes.of(Role.USER).accepted >= 1
