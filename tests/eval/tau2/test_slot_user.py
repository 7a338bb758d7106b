"""The user that is code: it says what it is asked, and no fact before."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from selenite.eval.tau2.device import arguments_said, asked_tool
from selenite.eval.tau2.facts import QUESTIONS, SLOTS, Fact, facts_of, slots_asked
from selenite.eval.tau2.run import SLOTS as MODE
from selenite.eval.tau2.slot_user import SlotUser
from selenite.eval.tau2.task import STOP, TRANSFER, Action, Task
from selenite.types import Message, ToolSpec
from tests.eval.tau2.conftest import OpenTable

GREETING = "Hello. What can I do for you?"
OTHER_TEXTS = (
    "Let me look.",
    "I can do that for the blue one. Do you confirm (yes/no)?",
    "Which one would you like, and in which size?",
    "Please restart your phone.",
    "It has been changed. Is there anything else?",
    "Is there anything else that you need help with?",
    "Is there anything else?",
)
TASK = Task(
    id="t",
    wish="You want to cancel your order W1234567 and order #W7654321.",
    known="You are Ada Byron in zip code 12345. You are in Rome.",
    directions="You are calm. If the agent offers a voucher, say that you prefer money. You also "
    "want to know the price of the lamp.",
    scenario="",
    ticket=None,
    actions=(
        Action("find", {"first_name": "Ada", "last_name": "Byron", "zip": "12345"}, False),
        Action("cancel", {"order_id": "#W1234567", "reason": "no longer needed"}, False),
    ),
    to_say=(),
    has_history=False,
)


def dialogue(task: Task, texts: Sequence[str], tools: Sequence[ToolSpec] = ()) -> list[str]:
    """What the user says to each; its calls by name."""
    user = SlotUser(task, tools)
    turns = [user.act([Message("user", text)]) for text in texts]
    return [turn.text or turn.calls[0].name for turn in turns]


def test_facts_are_found() -> None:
    assert facts_of(TASK) == (
        Fact("name", "Ada Byron"), Fact("zip", "12345"), Fact("order_id", "W1234567"),
        Fact("order_id", "#W7654321"), Fact("reason", "no longer needed"),
    )  # fmt: skip


def test_a_user_answers_what_it_is_asked() -> None:
    said = dialogue(
        TASK,
        [
            GREETING,
            "May I have your name and zip code?",
            "What is the order number?",
            "Why do you want to cancel it?",
            "Do you know your email address?",
            "We can offer you a voucher. Would you like a voucher?",
            "I will cancel it then. Do you confirm?",
            "It is cancelled. Is there anything else?",
            "Is there anything else?",
        ],
    )
    assert said == [
        "I want to cancel my order and order.",
        "My name is Ada Byron. My zip code is 12345.",
        "My order number is W1234567 and #W7654321.",
        "My reason is no longer needed.",
        "I do not remember my email address.",
        "I prefer money.",
        "Yes, please go ahead.",
        "I also want to know the price of the lamp.",
        STOP,
    ]


def test_statements_end_it() -> None:
    plain = Task("t", "You want tea.", "", "", "", None, (), (), False)
    assert dialogue(plain, [GREETING, "Let me look.", "I look."])[1:] == ["Please go on.", STOP]
    assert dialogue(plain, [GREETING, "I cannot help with that."])[1:] == [STOP]
    assert dialogue(plain, [GREETING, "You are being transferred to a human."])[1:] == [TRANSFER]


def values_in(text: str, facts: Sequence[Fact]) -> set[str]:
    """Slots of the facts in a text, in whole or in part; choices are no secret."""
    return {
        fact.slot
        for fact in facts
        if not SLOTS[fact.slot].is_choice
        and any(re.search(rf"(?<!\w){re.escape(form)}(?!\w)", text) for form in fact.forms)
    }


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("mock", "base"),
        ("telecom", "small"),
        ("retail", "test"),
        pytest.param("retail", "base", marks=pytest.mark.slow),
        pytest.param("airline", "base", marks=pytest.mark.slow),
        pytest.param("telecom", "base", marks=pytest.mark.slow),
    ],
)
def test_no_fact_is_said_before_it_is_asked(open_table: OpenTable, name: str, split: str) -> None:
    domain = open_table(name, split, MODE).domain
    told = 0
    for task in domain.tasks:
        facts = facts_of(task)
        assert all(
            fact.value in task.wish + task.known + task.directions
            for fact in facts
            if not SLOTS[fact.slot].is_choice
        )
        user, asked = SlotUser(task, domain.user_tools), set[str]()
        questions = [text for slot in QUESTIONS for text in (QUESTIONS[slot], *OTHER_TEXTS)]
        for text in (GREETING, *OTHER_TEXTS, *questions):
            asked |= set(slots_asked(text))
            turn = user.act([Message("user", text)])
            said = values_in(turn.text, facts)
            assert said <= asked, (task.id, text, turn.text)
            told += len(said)
    assert told >= len(domain.tasks) or name == "mock"


def test_questions_ask_for_their_own_slot_alone() -> None:
    assert {slot: slots_asked(text) for slot, text in QUESTIONS.items()} == {
        slot: [slot] for slot in QUESTIONS
    }
    assert not any(slots_asked(text) for text in (GREETING, *OTHER_TEXTS))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Please turn off airplane mode.", "toggle_airplane_mode"),
        ("Could you restart your phone?", "reboot_device"),
        ("Please check the status bar.", "check_status_bar"),
        ("Please remove and reinsert your SIM card.", "reseat_sim_card"),
        ("Can you turn on Wi-Fi calling?", "toggle_wifi_calling"),
        ("Please set your network mode preference to 4G/5G preferred.",
         "set_network_mode_preference"),
        ("Thank you for your patience. Please wait.", None),
    ],
)  # fmt: skip
def test_what_is_to_be_done_on_the_phone(
    open_table: OpenTable, text: str, name: str | None
) -> None:
    tools = open_table("telecom", "small", MODE).domain.user_tools
    found = asked_tool(text, tools)
    assert (found.name if found else None) == name


def test_arguments_are_said_or_asked_for(open_table: OpenTable) -> None:
    tools = {t.name: t for t in open_table("telecom", "small", MODE).domain.user_tools}
    grant = tools["grant_app_permission"]
    wanted = {"app_name": "messaging", "permission": "storage"}
    both = "Grant the messaging app the storage permission."
    assert arguments_said(both, grant, [wanted]) == wanted
    assert arguments_said(both, grant, []) == wanted
    assert arguments_said("Grant a permission.", grant, [wanted]) is None
    mode = tools["set_network_mode_preference"]
    assert arguments_said("Set it to 3G only, please.", mode, []) == {"mode": "3g_only"}
