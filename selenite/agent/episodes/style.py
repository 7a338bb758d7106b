"""Agents: system prompts and ways of talking, thousands of them by number."""

from __future__ import annotations

import random
import tomllib
from dataclasses import dataclass
from importlib.resources import files

from selenite.agent.randomness import stream
from selenite.agent.tasks.task import Task
from selenite.agent.world.world import World

_FILE = tomllib.loads(files(__package__).joinpath("agents.toml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class AgentStyle:
    """How an agent is set up and how it talks."""

    number: int
    is_parallel: bool  # independent calls go out together
    says_steps: bool  # a word beside calls

    def system(self, task: Task, world: World) -> str:
        """The system prompt for a task: who it is, the day, the rules, the domain's policies."""
        rng = stream(0, "agent", self.number)
        domain = world.domain
        title = domain.subject
        names = {"title": title, "name": rng.choice(_FILE["names"]), "today": world.today}
        parts = [rng.choice(_FILE["intro"]), rng.choice(_FILE["today"])]
        rules = [rng.choice(_FILE[kind]) for kind in ("tone", "ask", "escalate", "retry")]
        rng.shuffle(rules)
        policies = rng.choice(_FILE["policies"])
        # Last, since not all of an agent's tasks have it.
        rules += [rng.choice(_FILE["confirm"])] if task.confirms else []
        text = " ".join(part for part in [*parts, *rules] if part).format(**names)
        if domain.policies:
            sentences = [policy.sentence() for policy in domain.policies]
            text = "\n".join([text, policies, *sentences])
        return text


def agent_style(number: int) -> AgentStyle:
    """Agent ``number``."""
    rng = stream(0, "agent style", number)
    return AgentStyle(number, is_parallel=rng.random() < 0.7, says_steps=rng.random() < 0.4)


def phrase(act: str, rng: random.Random, **values: str) -> str:
    """A sentence of an act."""
    text: str = rng.choice(_FILE[act]["any"])
    words = values.get("words", "")
    return text.format(**values, Words=words[:1].upper() + words[1:])
