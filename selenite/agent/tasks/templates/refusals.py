"""What an agent must not or cannot do: forbidden by a policy or to its role, out of order, without
a tool, or nothing to do at all."""

from __future__ import annotations

from selenite.agent.ontology.entity import STATUS
from selenite.agent.tasks.draft import Draft, Unfit
from selenite.agent.tasks.locating import Target, locate
from selenite.agent.tasks.plan import Source, Words
from selenite.agent.tools.naming import doing
from selenite.agent.tools.tool import Tool
from selenite.agent.world.policy import Policy
from selenite.agent.world.reply import Code

_CHAT = (
    ("Hello! How are you today?", "I am well, thank you."),
    ("Thanks for your help yesterday.", "You are welcome."),
    ("What do you think of the weather these days?", "I cannot see it from here, I am afraid."),
    (
        "Can you explain in a sentence what a prime number is?",
        "A whole number above one that only one and itself divide",
    ),
    ("Do you prefer tea or coffee?", "I drink neither, but tea sounds nice."),
    ("Tell me something nice, please.", "It is a pleasure to work with you."),
    ("What is the capital of France?", "Paris."),
    ("Which language do they speak in Brazil?", "Portuguese."),
    ("Who are you, and what can you do for me?", "I look things up and change them, by tools."),
    ("Good morning! I only wanted to say hello.", "Good morning! It is nice to hear from you."),
    ("What is the opposite of 'increase'?", "Decrease."),
    ("How do you spell 'accommodation'?", "A-c-c-o-m-m-o-d-a-t-i-o-n."),
    ("Is a tomato a fruit or a vegetable?", "To a botanist it is a fruit, to a cook a vegetable."),
    ("Could you translate 'good night' into German?", "Gute Nacht."),
    ("I am a bit tired today.", "I am sorry to hear that. I hope that you can rest soon."),
    ("Do you ever sleep?", "No, I am here whenever you need me."),
)


def forbidden(draft: Draft) -> None:
    """Something that a policy forbids, which is handed to a human instead."""
    for policy in draft.rng.sample(draft.domain.policies, len(draft.domain.policies)):
        tools = [
            tool
            for family in ("move", "delete")
            for tool in draft.tools(family, policy.entity)
            if tool.verb in policy.verbs
        ]
        gets = draft.tools("get", policy.entity)
        for tool in tools:
            ids = _refused(draft, tool, policy)
            if not ids or not gets:
                continue
            id = draft.rng.choice(ids)
            target = locate(draft, policy.entity, id)
            draft.look(policy.entity, target.id)
            escalate(draft, target.id, f"Not allowed by {policy.id}.")
            wish = doing(tool.verb, target.said)
            draft.end_phase(
                (
                    f"Please {wish}.",
                    f"I need you to {wish} right now.",
                    f"It is urgent: {wish}, please.",
                ),
                report=f"I may not {doing(tool.verb, id)}: {policy.sentence()} "
                "I handed the case to a colleague",
            )
            return
    raise Unfit("nothing is forbidden")


def denied(draft: Draft) -> None:
    """Something that the agent's role may not do, which only trying shows."""
    _in_vain(
        draft,
        Code.PERMISSION_DENIED,
        reason="My role may not do it.",
        report="I may not {wish}: my role has no permission for it",
    )


def outage(draft: Draft) -> None:
    """Something that a service does which is down, and stays so."""
    _in_vain(
        draft,
        Code.UNAVAILABLE,
        reason="The service is down.",
        report="I could not {wish}: the service is down, also after several tries",
    )


def _in_vain(draft: Draft, code: Code, reason: str, report: str) -> None:
    tool, id, target = _feasible(draft)
    draft.fail(tool, {tool.param_of("id").name: target.id}, code)
    escalate(draft, target.id, reason)
    wish = doing(tool.verb, target.said)
    draft.end_phase(
        (f"Please {wish}.", f"Can you {wish} for me?", f"I want you to {wish}."),
        report=f"{report.format(wish=doing(tool.verb, id))}. I handed the case to a colleague",
    )


def no_tool(draft: Draft) -> None:
    """Something that a tool would do which this agent does not have: handed to a human."""
    tool, id, target = _feasible(draft)
    escalate(draft, target.id, "There is no tool for it.")
    wish = doing(tool.verb, target.said)
    draft.missing = tool
    draft.end_phase(
        (f"Please {wish}.", f"Can you {wish} for me?"),
        report=f"I have no tool to {doing(tool.verb, id)}, so I handed the case to a colleague",
    )


def _feasible(draft: Draft) -> tuple[Tool, str, Target]:
    """A tool that moves or deletes, and a record on which it would work."""
    tools = draft.tools("move") + draft.tools("delete")
    if not tools:
        raise Unfit("no tool that moves or deletes")
    tool = draft.rng.choice(tools)
    id, _ = draft.any_record(
        tool.entity, lambda r: tool.family == "delete" or r.get(STATUS) in tool.options["sources"]
    )
    return tool, id, locate(draft, tool.entity, id)


def chat(draft: Draft) -> None:
    """Nothing that any tool is for."""
    request, answer = draft.rng.choice(_CHAT)
    draft.end_phase((request,), report=answer.rstrip("."))


def escalate(draft: Draft, subject: Source, reason: str) -> None:
    """The call that hands a case to a human."""
    tool = draft.tool("create", "escalation")
    sources: dict[str, Source] = {
        tool.param_of("subject").name: subject,
        tool.param_of("reason").name: Words(reason),
    }
    draft.call(tool, sources)


def _refused(draft: Draft, tool: Tool, policy: Policy) -> list[str]:
    found = []
    for id in draft.world.records.of(tool.entity):
        reply = draft.world.fork().call(tool.name, {tool.param_of("id").name: id})
        if not reply.is_ok and reply.content["error"].get("rule") == policy.id:
            found.append(id)
    return found
