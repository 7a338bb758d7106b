"""The user that is code: it says what it is asked, and no fact before."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace

import pytest

from selenite.eval.tau2.agents import GoldAgent
from selenite.eval.tau2.device import arguments_said, asked_tool
from selenite.eval.tau2.facts import QUESTIONS, SLOTS, Fact, facts_of, slots_asked
from selenite.eval.tau2.run import SLOTS as MODE
from selenite.eval.tau2.run import run
from selenite.eval.tau2.slot_user import SlotUser
from selenite.eval.tau2.task import STOP, TRANSFER, YES, Action, Task, Turn
from selenite.eval.tau2.users import TicketUser
from selenite.types import Message, ToolCall
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


CANCELS = ToolCall("cancel", "{}", "c")


def dialogue(task: Task, said: Sequence[str | ToolCall]) -> list[str]:
    """What the user says to each text, while the agent makes the calls between them."""
    user, answers = SlotUser(task, (), frozenset({"cancel"})), []
    for one in said:
        if isinstance(one, ToolCall):
            user.see([one])
        else:
            answers.append(user.act([Message("user", one)]).text)
    return answers


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


PLAIN = Task("t", "You want tea.", "", "", "", None, (), (), False)
VERIFIED = "Thank you, your identity has been verified. Let me look up your order."


@pytest.mark.parametrize(
    ("said", "answers"),
    [
        (["Let me look.", "I look."], ["Please go on.", STOP]),
        (["I cannot help with that.", "I cannot."], ["Please go on.", STOP]),
        ([VERIFIED, "One moment."], ["Please go on.", STOP]),
        ([ToolCall("find", "{}", "c"), VERIFIED], ["Please go on."]),
        ([VERIFIED, CANCELS, "Your order has been cancelled."], ["Please go on.", STOP]),
        (["You are being transferred to a human."], [TRANSFER]),
    ],
)
def test_statements_end_it_after_a_change_or_a_second_pause(
    said: list[str | ToolCall], answers: list[str]
) -> None:
    assert dialogue(PLAIN, [GREETING, *said])[1:] == answers


def test_a_wish_that_is_left_needs_a_change_of_its_own() -> None:
    for end in ("It has been cancelled.", "It is cancelled. Is there anything else?"):
        said = [GREETING, CANCELS, end, "I have been looking.", "It is 3 dollars."]
        assert dialogue(TASK, said)[1:] == [
            "I also want to know the price of the lamp.", "Please go on.", STOP,
        ]  # fmt: skip


@pytest.mark.parametrize(
    "question",
    ["Thank you, Ada. How can I help you today?", "What would you like me to do?",
     "What can I do for you?", "What do you need help with today?", "What do you need?"],
)  # fmt: skip
def test_an_open_question_gets_the_wish_again(question: str) -> None:
    said = dialogue(TASK, [GREETING, "What is the order number?", question, "What else is there?"])
    known = "I want to cancel my order W1234567 and order #W7654321."
    assert said[2:] == [known, "I also want to know the price of the lamp."]


DETAILS = "Order ID: #W1234567; reason: no longer needed."
NUMBERS = "My order number is W1234567 and #W7654321."


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ([f"{DETAILS} Do you confirm (yes/no)?"], YES),
        (["What is the order number?", "I will cancel that order number. Shall I proceed?"], YES),
        ([f"{DETAILS} Shall I go ahead, or is there anything else to add? Answer yes or no."], YES),
        (["I will cancel by order number. Do you confirm?"], NUMBERS),  # which one was not said
        (["Order number?", "To proceed, please provide the order number."], NUMBERS),
        (["May I have your order number?", "May I have your order number again?"], NUMBERS),
        ([f"{DETAILS} I can offer a voucher. Would you like me to send the voucher?"],
         "I prefer money."),
        (["For Canada I need your name. May I proceed?"], "My name is Ada Byron."),
        (["Address: 1 Main Street, zip: 54321. Shall I proceed?"], YES),  # a new one
        ([CANCELS, "The cancellation is confirmed. Is there anything else?"],
         "I also want to know the price of the lamp."),
    ],
)  # fmt: skip
def test_what_is_known_is_confirmed(said: list[str | ToolCall], answer: str) -> None:
    assert dialogue(TASK, [GREETING, *said])[-1] == answer


def test_a_condition_about_confirming_comes_before_the_yes() -> None:
    directions = "If the agent asks for confirmation, say that you are not sure. If that is not "
    directions += "possible, cancel the order. When asked for the order, you give 7 first."
    task = replace(TASK, directions=directions)
    question = f"I will cancel the order. {DETAILS} Do you confirm (yes/no)?"
    assert dialogue(task, [GREETING, question, question])[1:] == ["I am not sure.", YES]


class KeepsPolicy:
    """The solution, which lists the details and obtains a yes before each change."""

    def __init__(self, task: Task, writes: frozenset[str]) -> None:
        self._gold = GoldAgent(task, is_solo=False, asks=True)
        self._writes = writes
        self._due: Turn | None = None  # a change
        self.questions = 0

    def act(self, messages: Sequence[Message]) -> Turn:
        if self._due is not None and messages[-1].content == YES:
            turn, self._due = self._due, None
            return turn
        turn = self._due or self._gold.act(messages)
        if not (turn.calls and turn.calls[0].name in self._writes):
            return turn
        self._due = turn
        self.questions += 1
        listed = "; ".join(
            f"{name.replace('_', ' ')}: {value}"
            for name, value in json.loads(turn.calls[0].arguments).items()
        )
        what = turn.calls[0].name.replace("_", " ")
        return Turn(f"I will {what}. {listed}. Do you confirm (yes/no)?")


@pytest.mark.slow
def test_a_solution_that_keeps_the_policy_is_told_yes(open_table: OpenTable) -> None:
    table = open_table("retail", "test", MODE)
    agents = list[KeepsPolicy]()

    def agent(task: Task, trial: int) -> KeepsPolicy:
        agents.append(KeepsPolicy(task, table.domain.writes))
        return agents[-1]

    episodes = run(table, 1, 2, agent)
    assert [episode.task for episode in episodes if not episode.passes] == []
    tasks = table.domain.tasks
    changes = sum(action.name in table.domain.writes for task in tasks for action in task.actions)
    # Four users are told to say something else when they are asked to confirm.
    asked = sum(agent.questions for agent in agents)
    assert asked == changes + 4


@pytest.mark.parametrize("name", ["retail", "telecom"])
def test_which_tools_change_something(open_table: OpenTable, name: str) -> None:
    writes = open_table(name, "small" if name == "telecom" else "test", MODE).domain.writes
    due = {"retail": {"cancel_pending_order"}, "telecom": {"refuel_data", "toggle_roaming"}}[name]
    assert due <= writes
    assert not writes & {"get_order_details", "check_status_bar", "transfer_to_human_agents"}


def test_who_was_told_all_says_yes_once_and_ends() -> None:
    user = TicketUser(PLAIN)
    said = [
        user.act([Message("user", text)]).text for text in (GREETING, "Do you confirm?", "Done.")
    ]
    assert said[1:] == [f"You have all that I know. {YES}", STOP]


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
        user, asked = SlotUser(task, domain.user_tools, domain.writes), set[str]()
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
