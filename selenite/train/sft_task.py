"""Fine-tuning as a task of the loop: what the assistant wrote in conversations is predicted.

Its loss is the mean over the trained tokens of all micro-batches of a step: however the same pieces
are packed, the update is the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from selenite.chat.tokenizer import Tokenizer
from selenite.model.decode import decode
from selenite.model.transformer import Transformer
from selenite.optim.schedule import Schedule
from selenite.train.evaluate import evaluate
from selenite.train.inputs import num_targets
from selenite.train.language_model_task import LanguageModelTask
from selenite.train.sft_config import SftConfig
from selenite.train.sft_data import SftData
from selenite.train.task import Phase, Sample
from selenite.types import SamplingParams


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
        self.data = data

    @property
    def tokenizer(self) -> Tokenizer:
        return self.data.tokenizer

    def after_update(self, phase: Phase, step: int) -> Mapping[str, float]:
        trained = sum(map(num_targets, self._batch))
        return {**super().after_update(phase, step), "trained_tokens": float(trained)}

    def evaluate(self) -> Mapping[str, float]:
        losses = {
            f"val_loss.{name}": evaluate(self.model, batches).loss
            for name, batches in self.data.held_out.items()
        }
        return {**losses, "val_loss": sum(losses.values()) / len(losses)}

    def usage(self) -> list[str]:
        """What was read of each part, in words."""
        loader = self.data.loader
        return [
            f"{name}: {tokens:,} tokens, and {too_long:,} times a row was left out as too long"
            for name, tokens, too_long in zip(
                loader.names, loader.tokens, loader.too_long, strict=True
            )
        ]

    def samples(self) -> Sequence[Sample]:
        shown, tokenizer = self.data.shown, self.tokenizer
        if not shown:
            return []
        params = SamplingParams(temperature=0, max_tokens=self._train.sample_tokens)
        stop = frozenset(self.data.profile.stop_ids(tokenizer))
        prompts = [prompt.ids for prompt in shown]
        written = decode(self.model, prompts, [params] * len(prompts), stop)
        return [
            Sample(prompt.text, tokenizer.decode([i for i in one.token_ids if i not in stop]))
            for prompt, one in zip(shown, written, strict=True)
        ]
