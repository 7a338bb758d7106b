"""Fine-tuning as a task of the loop: what the assistant wrote in conversations is predicted.

Its loss is the mean over the trained tokens of all micro-batches of a step, so that neither the
packing nor the number of micro-batches changes the update.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selenite.chat.profile import ChatProfile
from selenite.chat.template import Rendering
from selenite.chat.tokenizer import Tokenizer
from selenite.data.chat_rows import ChatRow
from selenite.data.packing import MicroBatch
from selenite.data.piece_loader import PieceLoader
from selenite.model.decode import decode
from selenite.model.transformer import Transformer
from selenite.optim.schedule import Schedule
from selenite.train.evaluate import evaluate
from selenite.train.language_model_task import LanguageModelTask
from selenite.train.sft_config import SftConfig
from selenite.train.task import Phase, Sample
from selenite.types import SamplingParams


@dataclass(frozen=True)
class SftData:
    """What a run learns from and is evaluated on."""

    tokenizer: Tokenizer  # with the template that is taught
    profile: ChatProfile
    loader: PieceLoader
    held_out: Mapping[str, Sequence[MicroBatch]]  # by part
    shown: Sequence[ChatRow]  # held-out conversations
    identity: Mapping[str, Any]  # hashes of all of it


class SftTask(LanguageModelTask):
    """A model and conversations. ``initial`` are the hashes of the weights that it began with."""

    def __init__(
        self, model: Transformer, data: SftData, config: SftConfig, initial: Mapping[str, str]
    ) -> None:
        schedule = Schedule(config.schedule, config.train.num_steps)
        identity = {**data.identity, "train.init_from": dict(initial)}
        super().__init__(
            model, data.loader, config.optim, schedule, config.train, config.lora, identity
        )
        self._data = data

    @property
    def tokenizer(self) -> Tokenizer:
        return self._data.tokenizer

    def after_update(self, phase: Phase, step: int) -> Mapping[str, float]:
        trained = sum(int((batch.targets_T >= 0).sum()) for batch in self._batch)
        return {**super().after_update(phase, step), "trained_tokens": float(trained)}

    def evaluate(self) -> Mapping[str, float]:
        losses = {
            f"val_loss.{name}": evaluate(self.model, batches).loss
            for name, batches in self._data.held_out.items()
        }
        return {**losses, "val_loss": sum(losses.values()) / len(losses)}

    def usage(self) -> list[str]:
        """What was read of each part, in words."""
        loader = self._data.loader
        return [
            f"{name}: {tokens:,} tokens read, {too_long:,} pieces too long and left out"
            for name, tokens, too_long in zip(
                loader.names, loader.tokens, loader.too_long, strict=True
            )
        ]

    def samples(self) -> Sequence[Sample]:
        rows = self._data.shown
        if not rows:
            return []
        tokenizer, profile = self.tokenizer, self._data.profile
        template = profile.template(tokenizer)
        prompts, texts = list[list[int]](), list[str]()
        for row in rows:
            first = next(i for i, m in enumerate(row.messages) if m.role == "assistant")
            rendering = Rendering(tokenizer, template, row.messages, row.tools)
            prompts.append(rendering.encode(rendering.text(first, add_generation_prompt=True)))
            texts.append(row.messages[first - 1].content)
        params = SamplingParams(temperature=0, max_tokens=self._train.sample_tokens)
        stop = frozenset(profile.stop_ids(tokenizer))
        written = decode(self.model, prompts, [params] * len(prompts), stop)
        return [
            Sample(text, tokenizer.decode([i for i in one.token_ids if i not in stop]))
            for text, one in zip(texts, written, strict=True)
        ]
