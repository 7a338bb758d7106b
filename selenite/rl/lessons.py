"""Conversations in which an environment does its own tasks: what a model can be taught before it
acts. Each is played, and earns everything, before it is written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from selenite import atomic
from selenite.chat.openai_form import message_entry, tool_entry
from selenite.errors import ConfigError
from selenite.rl.gym.config import EnvironmentPart
from selenite.rl.gym.environment import SHOWN, Demonstrating, Environment, close


def write_lessons(parts: Sequence[EnvironmentPart], tasks: int, path: Path) -> int:
    """Writes JSON lines as ``selenite sft`` reads them; returns how many.

    Args:
        parts: the environments; those that cannot do their own tasks are left out.
        tasks: of each.
        path: of the file.

    Raises ``ConfigError`` where no environment can do its tasks, or one cannot after all.
    """
    rows = list[dict[str, Any]]()
    for part in parts:
        environment = part.open()
        if isinstance(environment, Demonstrating):
            rows.extend(_rows(environment, environment, tasks))
    if not rows:
        raise ConfigError(
            f"environments: {', '.join(part.kind for part in parts)}: none can do its own tasks; "
            "give one that has a solution for each (house)"
        )
    atomic.write_text(path, "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))
    return len(rows)


def _rows(environment: Environment, shown: Demonstrating, tasks: int) -> Iterator[dict[str, Any]]:
    for number in range(SHOWN, SHOWN + tasks):
        episode = environment.begin(number)
        try:
            messages = list(episode.opening)
            for turn in shown.solution(number):
                messages += [turn, *episode.reply(turn)]
            faults = [check for check in episode.score().checks if check.value < 1]
            if faults:
                raise ConfigError(
                    f"{environment.name}: its solution of task {number} does not earn everything "
                    f"({faults[0].name}: {faults[0].reason}); mend the environment"
                )
            yield {
                "messages": [message_entry(message) for message in messages],
                "tools": [tool_entry(tool) for tool in episode.tools],
                "group": environment.name,
            }
        finally:
            close(episode)
