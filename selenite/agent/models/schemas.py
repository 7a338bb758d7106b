"""Checkers of tool schemas, made once for each set of tools: a schema takes about 2 ms to read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache

from selenite.chat.schema import ToolSchemas
from selenite.errors import ConfigError
from selenite.types import ToolSpec

_KEPT = 256  # sets of tools


def schemas_of(tools: Sequence[ToolSpec]) -> ToolSchemas:
    """Raises ``ConfigError`` for what is no JSON, and as ``ToolSchemas`` does."""
    try:
        text = json.dumps([[tool.name, tool.parameters] for tool in tools], allow_nan=False)
    except (TypeError, ValueError) as error:
        names = ", ".join(tool.name for tool in tools)
        raise ConfigError(f"the schemas of {names}: must be JSON ({error}); mend them") from error
    return _made(text)


@lru_cache(maxsize=_KEPT)
def _made(text: str) -> ToolSchemas:
    return ToolSchemas([ToolSpec(name, "", parameters) for name, parameters in json.loads(text)])
