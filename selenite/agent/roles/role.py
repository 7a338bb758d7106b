"""The roles of the synthesis (K2 section 3.1), each of which code or a model can take."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """Who does what."""

    DOMAIN_AUTHOR = "domain_author"  # proposes archetypes
    TOOL_AUTHOR = "tool_author"  # describes tools
    AGENT_AUTHOR = "agent_author"  # introduces agents in their system prompts
    TASK_AUTHOR = "task_author"  # words requests
    USER = "user"  # words what a user says
    TOOL_WORLD = "tool_world"  # answers calls, while the truth is kept beside
    AGENT = "agent"  # acts
    JUDGE = "judge"  # votes on what code lets pass
