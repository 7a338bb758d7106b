"""Something of the user's own, by its name in Python."""

from __future__ import annotations

import importlib
from typing import Any

from selenite.errors import ConfigError


def from_python(setting: str, factory: str) -> Any:
    """What ``package.module:name`` names. Raises ``ConfigError`` where there is nothing."""
    module, _, name = factory.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"{setting}={factory}: {error}; give package.module:function of something that Python "
            "can import here"
        ) from error
