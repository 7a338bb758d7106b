"""Do the same calls in the same world give the same results and the same states, bit for bit."""

from __future__ import annotations

import json

from selenite.agent.episodes.trajectory import Trajectory


def faults(trajectory: Trajectory) -> list[str]:
    """Where a replay parts from the record."""
    world = trajectory.task.setting.open()
    if world.records.digest() != trajectory.before.digest():
        return ["the world begins in another state"]
    for place, event in enumerate(trajectory.events):
        reply = world.call(event.tool, event.arguments)
        again = world.events[-1]
        if reply != event.reply:
            return [f"call {place}: another result"]
        if (again.before, again.after) != (event.before, event.after):
            return [f"call {place}: another state"]
    calls = [call for m in trajectory.messages for call in m.tool_calls]
    answers = [m.content for m in trajectory.messages if m.role == "tool"]
    if not len(calls) == len(answers) == len(trajectory.events):
        return ["calls in the messages and calls in the world differ in number"]
    pairs = zip(calls, answers, trajectory.events, strict=True)
    for place, (call, answer, event) in enumerate(pairs):
        if (call.name, json.loads(call.arguments)) != (event.tool, dict(event.arguments)):
            return [f"call {place}: the message has another call"]
        if answer != event.reply.text():
            return [f"call {place}: the message has another result"]
    if world.records.digest() != trajectory.after.digest():
        return ["it ends in another state"]
    return []
