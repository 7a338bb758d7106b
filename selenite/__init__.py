"""Selenite: train, teach and serve agentic mixture-of-experts language models.

``LLM`` is loaded at first use, so that ``import selenite`` does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from selenite.types import Completion, SamplingParams

if TYPE_CHECKING:
    from selenite.llm import LLM

__all__ = ["LLM", "SamplingParams", "Completion"]


def __getattr__(name: str) -> Any:
    if name == "LLM":
        from selenite.llm import LLM

        return LLM
    raise AttributeError(f"module 'selenite' has no attribute {name!r}")
