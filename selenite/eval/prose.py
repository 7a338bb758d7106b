"""Does a model still read prose? Its loss on the text of Python's ``help`` topics.

The text comes with every interpreter and nothing here is trained on it. What fine-tuning costs is
the loss beside that of the model that it began with, on the same windows.
"""

from __future__ import annotations

import pydoc_data.topics
from dataclasses import dataclass
from pathlib import Path

import torch

from selenite.chat.tokenizer import Tokenizer
from selenite.errors import ConfigError
from selenite.eval.statistics import bootstrap_difference
from selenite.model.hf_adapter import load_pretrained
from selenite.ops.attention_context import packed_context
from selenite.ops.logprobs import token_logprobs

WINDOWS, LENGTH = 64, 1024  # tokens of each


@dataclass(frozen=True)
class Prose:
    """Mean loss of each window, in nats per token."""

    losses: tuple[float, ...]

    @property
    def loss(self) -> float:
        return sum(self.losses) / len(self.losses)

    def worse_than(self, base: Prose) -> tuple[float, float, float]:
        """How much of the base's loss is added, and its 95 % interval over windows."""
        mean, low, high = bootstrap_difference(base.losses, self.losses)
        return mean / base.loss, low / base.loss, high / base.loss


def prose_text() -> str:
    """Of all topics, one after another."""
    return "\n\n".join(topic for _, topic in sorted(pydoc_data.topics.topics.items()))


@torch.inference_mode()
def read_prose(directory: Path, dtype: torch.dtype, windows: int = WINDOWS) -> Prose:
    """A model's loss, in its compute dtype. Raises ``ConfigError`` for more windows than there is
    text."""
    tokenizer = Tokenizer.load(directory)
    ids = tokenizer.encode(prose_text())
    if len(ids) < windows * LENGTH:
        raise ConfigError(f"windows={windows}: there is text for {len(ids) // LENGTH}; take fewer")
    model = load_pretrained(directory, dtype)
    losses = []
    for number in range(windows):
        tokens_T = torch.tensor(ids[number * LENGTH : (number + 1) * LENGTH])
        context = packed_context([LENGTH])
        hidden_TD = model(tokens_T, context.positions_T, context).hidden_TD
        logprobs_T = token_logprobs(hidden_TD[:-1], model.head_weight, tokens_T[1:])
        losses.append(-float(logprobs_T.double().mean()))
    return Prose(tuple(losses))
