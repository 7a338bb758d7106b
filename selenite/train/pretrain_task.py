"""Pre-training as a task of the loop: all tokens of packed documents are predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

from selenite.chat.tokenizer import Tokenizer
from selenite.data.corpus import TokenCorpus
from selenite.data.loader import Loader, evaluation_batches
from selenite.data.packing import MicroBatch
from selenite.model.decode import decode
from selenite.model.lora import LoRAConfig
from selenite.model.transformer import Transformer
from selenite.optim.build import OptimConfig
from selenite.optim.schedule import Schedule
from selenite.train.evaluate import evaluate
from selenite.train.language_model_task import LanguageModelTask
from selenite.train.pretrain_config import TrainConfig
from selenite.train.task import Sample
from selenite.types import SamplingParams


class PretrainTask(LanguageModelTask):
    """A transformer on a corpus. ``model`` is initialised; the loader is at its beginning.

    With ``lora`` the model has these adapters, and they alone are trained. ``initial`` are the
    hashes of the weights that the model began with, none if they were drawn.
    """

    def __init__(
        self,
        model: Transformer,
        corpora: Sequence[TokenCorpus],
        loader: Loader,
        optim: OptimConfig,
        schedule: Schedule,
        train: TrainConfig,
        lora: LoRAConfig | None = None,
        initial: Mapping[str, str] | None = None,
    ) -> None:
        identity = {
            "tokenizer": corpora[0].tokenizer_fingerprint,
            "corpora": [corpus.train.sha256 for corpus in corpora],
            "train.init_from": initial,
        }
        super().__init__(model, loader, optim, schedule, train, lora, identity)
        self._corpora = corpora
        self._prompts = train.prompts

    def evaluate(self) -> Mapping[str, float]:
        result = evaluate(self.model, self._validation())
        return {"val_loss": result.loss, "val_bits_per_byte": result.bits_per_byte}

    def samples(self) -> Sequence[Sample]:
        prompts = self._prompts
        if not prompts:
            return []
        tokenizer = self.tokenizer
        prompt_ids = [[tokenizer.bos_id, *tokenizer.encode(prompt)] for prompt in prompts]
        params = [
            SamplingParams(temperature=0.8, max_tokens=self._train.sample_tokens, seed=number)
            for number in range(len(prompts))
        ]
        decoded = decode(self.model, prompt_ids, params, frozenset({tokenizer.eos_id}))
        return [
            Sample(prompt, tokenizer.decode([i for i in one.token_ids if i != tokenizer.eos_id]))
            for prompt, one in zip(prompts, decoded, strict=True)
        ]

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that all corpora share."""
        return self._corpora[0].tokenizer

    def _validation(self) -> chain[MicroBatch]:
        """The held-out head of each corpus, ``eval_tokens`` in all."""
        share = max(1, self._train.eval_tokens // len(self._corpora))
        return chain.from_iterable(
            evaluation_batches(
                corpus.val, self._train.micro_batch_tokens, self._train.seq_len, share
            )
            for corpus in self._corpora
        )
