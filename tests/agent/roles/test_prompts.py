"""What models are told: filled in whole, and with examples that code itself would take."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from selenite.agent.roles.prompts import MANNERS, prompt_of
from selenite.agent.roles.role import Role
from selenite.agent.roles.wording import Wording
from selenite.agent.users.persona import MANNERS as KNOWN
from tests.agent.roles.stub import task_of

WITH_EXAMPLES = [role for role in Role if prompt_of(role).examples]


def test_every_role_but_the_agent_s_has_a_prompt() -> None:
    assert {role for role in Role if not prompt_of(role).ask} == {Role.AGENT}
    assert set(MANNERS) == set(KNOWN)
    assert len({prompt_of(role).hash for role in Role}) == len(Role)


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.AGENT])
def test_prompts_are_filled_in(role: Role) -> None:
    prompt = prompt_of(role)
    names = set(re.findall(r"(?<!{){(\w+)}", prompt.system + prompt.ask))
    messages = prompt.messages(**{name: f"<{name}>" for name in names})
    assert [m.role for m in messages[:2]] == ["system", "user"]
    assert len(messages) == 2 + 2 * len(prompt.examples)
    assert messages[-1].role == "user"
    assert all(f"<{name}>" in messages[0].content + messages[-1].content for name in names)
    assert "{{" not in messages[0].content + messages[-1].content
    assert replace(prompt, system="x").hash != prompt.hash
    assert replace(prompt, examples=({"answer": "x"},)).hash != prompt.hash


@pytest.mark.parametrize("role", WITH_EXAMPLES)
def test_examples_are_what_code_takes(role: Role) -> None:
    wording = Wording(task_of(0).setting.open().domain)
    for example in prompt_of(role).examples:
        values = re.findall(r"{\w+}|[A-Z]{3,4}-\d+|dark green|car rental", example["text"], re.I)
        forms = [(value, value.capitalize()) for value in values]
        assert wording.objection(example["text"], example["answer"], forms) is None, example
        assert json.dumps(example)
