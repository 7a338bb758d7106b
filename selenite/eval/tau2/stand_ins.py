"""Runs inside the sandbox: what tau2 imports and what running and grading a task does not need.

Modules of this file take the place of packages that are not there: loggers, readers of formats that
no file of a domain has, and the software of vendors, whose one use here is to ask a model. That
question is put to whoever ``install`` is given.
"""

from __future__ import annotations

import sys
import tomllib
import types
from collections.abc import Callable
from typing import Any, TextIO


class _Silent:
    """A logger that says nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments, **options: None


def install(generate: Callable[..., Any], constructor: Callable[[str], Any]) -> None:
    """Before the first import of tau2.

    Args:
        generate: asked in the place of a model, with tau2's own arguments.
        constructor: gives what makes an environment of a domain.
    """
    _module("loguru", logger=_Silent())
    _module("dotenv", load_dotenv=lambda: True)
    _module("deepdiff", DeepDiff=None)
    _module("yaml")
    _module("pandas", DataFrame=None)
    _module("toml", load=_load_toml)
    _module("tau2.utils.llm_utils", generate=generate, get_cost=lambda messages: None)
    registry = types.SimpleNamespace(get_env_constructor=constructor)
    _module("tau2.registry", registry=registry)


def _load_toml(file: TextIO) -> dict[str, Any]:
    return tomllib.loads(file.read())


def _module(name: str, **content: Any) -> None:
    module = types.ModuleType(name)
    vars(module).update(content)
    sys.modules[name] = module
