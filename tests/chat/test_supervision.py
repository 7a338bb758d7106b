"""The loss is on what the assistant wrote and on nothing else, read back as text."""

from __future__ import annotations

import copy

import pytest

from selenite.agent.episodes.episode import play_script
from selenite.agent.episodes.trajectory import Trajectory
from selenite.agent.tasks.author import make_task
from selenite.agent.tasks.task import TaskClass
from selenite.chat.conversation import Conversation
from selenite.chat.profile import SMOLLM2
from selenite.chat.supervision import supervise
from selenite.chat.template import k2_template
from selenite.chat.tokenizer import Tokenizer
from selenite.errors import TokenizerError, UnstableTemplateError
from selenite.types import Message

TEXTS = ['{"city": "Paris", "days": 3}', "Please cancel the order ORDR-0012.", "Done."] * 20


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXTS, 400)


@pytest.fixture(scope="module")
def trajectories() -> list[Trajectory]:
    found: dict[TaskClass, Trajectory] = {}
    for number in range(120):
        trajectory = play_script(make_task(5, number, range(8)))
        assert trajectory is not None
        found.setdefault(trajectory.task.cls, trajectory)
    assert len(found) >= 10
    return list(found.values())


def written(message: Message) -> str:
    """What a K2 model writes for a turn."""
    calls = "".join(
        f"<|tool_call_begin|>{c.id}<|tool_call_argument_begin|>{c.arguments}<|tool_call_end|>"
        for c in message.tool_calls
    )
    if calls:
        calls = f"<|tool_calls_section_begin|>{calls}<|tool_calls_section_end|>"
    return f"{message.content}{calls}<|im_end|>"


def test_what_is_trained_is_what_the_assistant_wrote(
    tokenizer: Tokenizer, trajectories: list[Trajectory]
):
    masked = 0
    for trajectory in trajectories:
        found = supervise(tokenizer, trajectory.messages, trajectory.tools, trajectory.untrained)
        trained = [id for id, is_on in zip(found.ids, found.is_trained, strict=True) if is_on]
        turns = [
            written(message)
            for place, message in enumerate(trajectory.messages)
            if message.role == "assistant" and place not in trajectory.untrained
        ]
        assert tokenizer.decode(trained) == "".join(turns)
        masked += len(trajectory.untrained)
    assert masked > 0  # error turns were among them


def test_ids_are_those_that_serving_makes(tokenizer: Tokenizer, trajectories: list[Trajectory]):
    for trajectory in trajectories:
        found = supervise(tokenizer, trajectory.messages, trajectory.tools)
        conversation = Conversation.start(tokenizer, trajectory.tools)
        place = 0
        for start, end, number in found.turns:
            conversation = conversation.extended(trajectory.messages[place:number])
            assert tuple(conversation.prompt_ids()) == found.ids[:start]
            conversation = conversation.with_reply(found.ids[start:end])
            place = number + 1


def test_another_models_template(tokenizer: Tokenizer, trajectories: list[Trajectory]):
    trajectory = trajectories[0]
    found = supervise(tokenizer, trajectory.messages, trajectory.tools, profile=SMOLLM2)
    text = tokenizer.decode(found.ids)
    for start, end, number in found.turns:
        message = trajectory.messages[number]
        turn = tokenizer.decode(found.ids[start:end])
        assert message.content in turn
        assert all(call.arguments in turn for call in message.tool_calls)
        assert not turn.endswith("\n")
    assert trajectory.messages[0].content in text


def test_templates_that_cannot_be_trained_on_are_refused(tokenizer: Tokenizer):
    messages = [Message("user", "a"), Message("assistant", "b"), Message("user", "c")]
    messages.append(Message("assistant", "d"))
    forgets = k2_template().replace("{{- message.content or '' -}}", "{{ messages | length }}")
    other = copy.copy(tokenizer)
    other.chat_template = forgets
    with pytest.raises(UnstableTemplateError, match="message 1"):
        supervise(other, messages)
    other.chat_template = None
    with pytest.raises(TokenizerError, match="no chat template"):
        supervise(other, messages)
