"""A model in a role: whom to ask, with which prompt, and how."""

from __future__ import annotations

from dataclasses import dataclass

from selenite.agent.models.model import Model
from selenite.agent.roles.prompts import Prompt, prompt_of
from selenite.agent.roles.role import Role


@dataclass(frozen=True)
class Source:
    """One back end of a role. ``None`` in its place is the programmatic one."""

    role: Role
    model: Model
    temperature: float | None = None  # None: left to the endpoint
    max_tokens: int = 512  # of a reply
    repairs: int = 2  # times that the model is told what code has against its proposal
    votes: int = 1  # of a judge

    @property
    def prompt(self) -> Prompt:
        return prompt_of(self.role)

    @property
    def label(self) -> str:
        """Which model, with which prompt: for the provenance of what it makes."""
        model = self.model.endpoint.model
        return f"{model} {self.prompt.hash}" if self.prompt.ask else model
