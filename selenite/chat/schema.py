"""Calls against the tools that were offered: is the tool among them, do the arguments fit.

This is what schema accuracy counts (K2 Vendor Verifier): the share of calls whose tool was
offered, whose arguments parse, and which pass the package ``jsonschema``. References to other
documents are not followed: a schema comes from a stranger, and checking it must not fetch anything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NoReturn

from selenite.errors import ConversationError, MissingExtraError
from selenite.types import ToolCall, ToolSpec


class CallFault(StrEnum):
    """Why a call is not what its tool asks for."""

    UNKNOWN_TOOL = "unknown_tool"
    NOT_JSON = "not_json"
    NOT_AN_OBJECT = "not_an_object"
    SCHEMA_VIOLATION = "schema_violation"
    UNCHECKABLE = (
        "uncheckable"  # a reference that leads nowhere or in circles, a pattern not in `re`
    )


@dataclass(frozen=True)
class CallCheck:
    """What is wrong with one call."""

    fault: CallFault | None  # None: nothing
    path: str = ""  # of the value at fault, as in "$.city[0]"; "": none in particular
    detail: str = ""  # for people, and for the model that should try again

    @property
    def valid(self) -> bool:
        return self.fault is None


class ToolSchemas:
    """The schemas of the tools of one request, checked once.

    Raises ``ConversationError`` for two tools of one name and for what is no JSON schema.
    """

    def __init__(self, tools: Sequence[ToolSpec]) -> None:
        try:
            import jsonschema
            import referencing
        except ImportError as error:
            raise MissingExtraError("jsonschema", "serve", "checking arguments") from error
        self._unresolvable = referencing.exceptions.Unresolvable
        self._validators: dict[str, Any] = {}
        for tool in tools:
            if tool.name in self._validators:
                raise ConversationError(
                    f"two tools are named {tool.name!r}; a call could mean either: rename one"
                )
            dialect = tool.parameters.get("$schema", "")
            if not isinstance(dialect, str):
                raise ConversationError(
                    f"the parameters of the tool {tool.name!r}: $schema={dialect!r} is not the "
                    "address of a dialect; leave it out"
                )
            kind = jsonschema.validators.validator_for(
                tool.parameters, default=jsonschema.Draft202012Validator
            )
            try:
                # Patterns are ECMA's, and Python's `re` refuses some: no fault of the schema.
                kind.check_schema(tool.parameters, format_checker=jsonschema.FormatChecker(()))
            except jsonschema.SchemaError as error:
                raise ConversationError(
                    f"the parameters of the tool {tool.name!r} are no JSON schema: "
                    f"{error.message[:200]} at {error.json_path}; mend them"
                ) from error
            # An empty registry retrieves nothing; the default one opens URLs.
            self._validators[tool.name] = kind(tool.parameters, registry=referencing.Registry())

    def check(self, call: ToolCall) -> CallCheck:
        """The first fault of a call, most general first; the same call has always the same."""
        if call.name not in self._validators:
            known = ", ".join(map(repr, self._validators)) or "none"
            return CallCheck(
                CallFault.UNKNOWN_TOOL, detail=f"no tool {call.name!r}; there are: {known}"
            )
        try:
            arguments = json.loads(call.arguments, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:  # also integers too long to convert
            return CallCheck(CallFault.NOT_JSON, detail=str(error))
        if not isinstance(arguments, dict):
            kind = type(arguments).__name__
            return CallCheck(CallFault.NOT_AN_OBJECT, "$", f"the arguments are a {kind}")
        return self._check_schema(call.name, arguments)

    def _check_schema(self, name: str, arguments: dict[str, Any]) -> CallCheck:
        try:
            errors = sorted(
                self._validators[name].iter_errors(arguments),
                key=lambda error: (error.json_path, error.message),
            )
        # OverflowError: multipleOf against an integer that no float holds
        except (self._unresolvable, re.error, RecursionError, OverflowError) as error:
            reason = str(error)[:200] or type(error).__name__
            detail = _encodable(f"the schema of {name!r}: {reason}")
            return CallCheck(CallFault.UNCHECKABLE, detail=detail)
        if not errors:
            return CallCheck(None)
        first = errors[0]
        path, detail = _encodable(first.json_path), _encodable(first.message[:500])
        return CallCheck(CallFault.SCHEMA_VIOLATION, path, detail)


def schema_accuracy(checks: Iterable[CallCheck]) -> float | None:
    """The share of valid calls; None where nothing was called."""
    results = [check.valid for check in checks]
    return sum(results) / len(results) if results else None


def _encodable(text: str) -> str:
    """JSON escapes can spell half of a surrogate pair, which UTF-8 cannot."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
