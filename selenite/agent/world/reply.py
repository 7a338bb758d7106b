"""What a tool answers: a result, or a refusal with a code (those of gRPC and of HTTP APIs)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Code(StrEnum):
    """Why a call was refused or failed."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    CONFLICT = "CONFLICT"
    RATE_LIMITED = "RATE_LIMITED"
    UNAVAILABLE = "UNAVAILABLE"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    UNKNOWN_TOOL = "UNKNOWN_TOOL"


RETRYABLE = frozenset({Code.RATE_LIMITED, Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED})
"""The same call may succeed later. After DEADLINE_EXCEEDED it may have been done already."""


class Refusal(Exception):  # noqa: N818 - it is an answer, not an error of ours
    """Raised by what a tool does, before anything was changed."""

    def __init__(self, code: Code, message: str, **details: Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details  # field, rule, hint, retry_after


@dataclass(frozen=True)
class Reply:
    """A result (``code`` is None), or an error with its code."""

    content: dict[str, Any]
    code: Code | None = None

    @property
    def is_ok(self) -> bool:
        return self.code is None

    def text(self) -> str:
        """What an agent reads."""
        return json.dumps(self.content, ensure_ascii=False)


def refused(refusal: Refusal) -> Reply:
    """The reply of a refusal."""
    error = {"code": refusal.code.value, "message": refusal.message, **refusal.details}
    return Reply({"error": error}, refusal.code)
