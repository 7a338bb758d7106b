"""The engine: requests in, tokens out, one step at a time. No text and no network here.

    engine.add(request); while engine.has_work(): engine.step()

A step is schedule, run, sample, commit. All decisions and all state changes are made in the first
and the last, in plain Python.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from selenite.clock import Clock, SystemClock
from selenite.errors import ConfigError, ContextLengthError, NonFiniteError, SeleniteError
from selenite.model.transformer import Transformer
from selenite.ops.sampling import check_token_ids
from selenite.runtime import is_batch_invariant
from selenite.serve.attention_mode import AttentionMode, reading_of
from selenite.serve.cache.pages import PagePool
from selenite.serve.cache.prefix import PrefixCache
from selenite.serve.engine.pooling import Pooler
from selenite.serve.engine.request import Chunk, Request, SampledToken
from selenite.serve.engine.runner import Runner
from selenite.serve.engine.sampler import prompt_logprobs, sample
from selenite.serve.scheduler.scheduler import Scheduler
from selenite.types import FinishReason, SamplingParams

logger = logging.getLogger(__name__)

AtSwap = Literal["recompute", "keep", "abort"]
"""What happens to requests in the middle when the weights are swapped."""


@dataclass(frozen=True)
class EngineConfig:
    """Sizes of an engine.

    Attributes:
        num_pages: pages of the cache; with ``page_size`` the tokens that it holds.
        page_size: tokens of a page.
        max_step_tokens: rows of a step at most; longer prompts are computed in chunks.
        max_running: sequences that run at once at most.
        layout: how entries of latent attention are cached.
        attention: what rows read where a request does not say; none: as in the model's config.
        tidal_layers: that choose tokens where a request of mode tidal names none; none: the third
            and the middle one.
        records_routing: keep which experts computed each entry, for requests that want it.
    """

    num_pages: int
    page_size: int = 16
    max_step_tokens: int = 512
    max_running: int = 64
    layout: Literal["latent", "expanded"] = "expanded"
    attention: AttentionMode | None = None
    tidal_layers: tuple[int, ...] | None = None
    records_routing: bool = False


class Engine:
    """Continuous batching of a model's requests over a paged cache."""

    def __init__(
        self,
        model: Transformer,
        config: EngineConfig,
        model_id: str = "",
        clock: Clock | None = None,
    ) -> None:
        if config.layout == "latent" and is_batch_invariant():
            raise ConfigError(
                "layout=latent: absorbed attention rounds differently from training; "
                "batch-invariant mode needs layout=expanded"
            )
        if config.records_routing and model.config.moe is None:
            raise ConfigError("records_routing: the model has no experts; leave it out")
        # A wrong one is named here.
        reading_of(config.attention, model.config, config.page_size, config.layout)
        self.config = config
        self.clock = clock or SystemClock()
        self.pool = PagePool(config.num_pages, config.page_size)
        self.prefix = PrefixCache(self.pool)
        self.runner = Runner(
            *(model, config.num_pages, config.page_size, config.layout, config.records_routing)
        )
        self.scheduler = Scheduler(
            self.pool,
            self.prefix,
            self.clock,
            config.max_step_tokens,
            config.max_running,
            self.runner.adapters.key,
        )
        self.model_id = model_id
        self.weight_version = 0
        self._name_entries()

    def add(self, request: Request) -> None:
        """Queues a request.

        Raises ``ConfigError`` for one that could never run: empty, longer than the model's
        positions, larger than the whole cache, or with an ``attention`` that cannot be.
        """
        if not request.prompt:
            raise ConfigError("the prompt is empty: give at least one token")
        sizes = f"{len(request.prompt)} prompt tokens"
        if request.pooler is None:
            sizes += f" and max_tokens={request.params.max_tokens}"
        positions = self.runner.model.config.max_positions
        if request.most_tokens > positions:
            raise ContextLengthError(
                f"{sizes} exceed the model's {positions} positions; shorten the prompt, or lower "
                "max_tokens"
            )
        if self.pool.pages_for(request.most_entries) > self.pool.num_pages:
            slots = self.pool.num_pages * self.pool.page_size
            raise ConfigError(
                f"{sizes} exceed the cache of {slots} tokens; shorten the prompt, lower "
                "max_tokens, or start the engine with a larger cache"
            )
        vocabulary = self.runner.model.config.vocab_size
        wrong = [token for token in request.prompt if not 0 <= token < vocabulary]
        if wrong:
            raise ConfigError(f"token id {wrong[0]} is not in the vocabulary of {vocabulary}")
        check_token_ids(request.params, vocabulary)
        self.runner.adapters.check(request.adapter)
        if request.wants_routing and not self.config.records_routing:
            raise ConfigError("wants_routing: the engine was made without records_routing; set it")
        mode = request.attention or self.config.attention
        request.reading = reading_of(
            *(mode, self.runner.model.config, self.pool.page_size, self.config.layout),
            len(request.prompt),
            self.config.tidal_layers,
        )
        self._check_reading(request)
        request.is_queued, request.arrival = True, self.clock.now()
        self.scheduler.add(request)

    def _check_reading(self, request: Request) -> None:
        reading = request.reading
        decodes = reading.selection or reading.compression
        if request.attention is not None and request.pooler and decodes:
            raise ConfigError(
                f"attention: mode {request.attention.mode} is for rows that decode, and an "
                "embedding has none; leave it out"
            )
        if request.wants_routing and (reading.compression or reading.drafts):
            raise ConfigError(
                "attention: merged slots and drafts have no experts of their own; ask for no "
                "routing, or take another mode"
            )

    def has_work(self) -> bool:
        """Whether a request waits or runs."""
        return bool(self.scheduler.waiting or self.scheduler.running)

    def step(self) -> list[Request]:
        """Runs one step; the requests that have new tokens, or an end."""
        for request in self.scheduler.to_be_compressed():
            self._compress(request)
        chunks = self.scheduler.schedule()
        if not chunks:
            return []
        self._forget_biases()
        drafts = {c.request for c in chunks if c.selection and c.request.reading.drafts}
        if all(chunk.is_decode for chunk in chunks):
            logits_BV = self.runner.decode(chunks)
            if logits_BV is not None:
                self.scheduler.advance(chunks)
                requests = [chunk.request for chunk in chunks]
                self._sample(requests, logits_BV, drafts)
                return [r for r in requests if r not in drafts or r.finish_reason is not None]
        hidden = self.runner.run(chunks)
        if self.runner.routing is not None:
            self.runner.routing.read(chunks)
        self.scheduler.advance(chunks)
        changed = [
            chunk.request for chunk in chunks if chunk.samples and chunk.request not in drafts
        ]
        rows: dict[Request, Tensor] = {}
        for chunk, hidden_TD in zip(chunks, hidden, strict=True):
            if chunk.request.pooler is not None:
                self._pool(chunk, chunk.request.pooler, hidden_TD)
            elif chunk.request.drafts and chunk.request not in drafts:
                if self._verify(chunk, hidden_TD) and chunk.request not in changed:
                    changed.append(chunk.request)
            else:
                self._score_prompt(chunk, hidden_TD)
                if chunk.samples:
                    rows[chunk.request] = hidden_TD[-1:]
        if rows:
            self._sample(list(rows), self.runner.logits(torch.cat(list(rows.values()))), drafts)
        return changed + [request for request in drafts if request.finish_reason is not None]

    def abort(self, request: Request) -> None:
        """Ends a request now, unless it has ended; its pages are free for the next step."""
        if request.finish_reason is None:
            self._end(request, FinishReason.ABORT)

    def warm_up(self) -> None:
        """Runs a prompt and a decode step, and forgets them: the first of each loads code, which
        takes a second of somebody's request otherwise."""
        params = SamplingParams(temperature=0, max_tokens=2, ignore_eos=True)
        self.generate([Request("", (0,), params)])
        self.prefix.clear()
        self.prefix.queries = 0

    def generate(self, requests: Sequence[Request]) -> None:
        """Runs requests to their end."""
        for request in requests:
            self.add(request)
        while any(request.finish_reason is None for request in requests):
            self.step()

    def load_adapter(self, name: str, directory: Path) -> None:
        """Makes a LoRA adapter known, for requests that name it.

        Raises ``ConfigError`` for a name that is taken, ``CheckpointError`` for a directory that
        does not fit the model.
        """
        self.runner.adapters.load(name, directory)

    def unload_adapter(self, name: str) -> None:
        """Forgets an adapter that no request uses; raises ``ConfigError`` otherwise."""
        requests = (*self.scheduler.waiting, *self.scheduler.running)
        if any(request.adapter == name for request in requests):
            raise ConfigError(f"adapter {name!r}: requests use it; unload it when they have ended")
        self.runner.adapters.unload(name)

    def swap_weights(self, model: Transformer, version: int, running: AtSwap) -> list[Request]:
        """Goes on with other weights of the same model from the next step on.

        Args:
            model: verified and cast; its config is this model's.
            version: of the weights, reported with each token that they compute.
            running: what happens to requests in the middle: ``recompute`` their entries by the new
                weights, ``keep`` those of the old ones (which then are never shared), or ``abort``.

        Returns the requests that were aborted. Raises ``ConfigError`` for another model.
        """
        self.runner.swap(model)
        self.weight_version = version
        self.prefix.clear()
        self._name_entries()
        begun = [*self.scheduler.running, *(r for r in self.scheduler.waiting if r.completion)]
        aborted = begun if running == "abort" else []
        for request in aborted:
            self.abort(request)
        for request in reversed(list(self.scheduler.running)):  # the oldest ends at the head
            if running == "recompute":
                self.scheduler.preempt(request)
            else:
                request.publishes = False
        return aborted

    def sleep(self) -> None:
        """Gives the memory of the cache back; running requests will compute theirs again."""
        for request in reversed(list(self.scheduler.running)):
            self.scheduler.preempt(request)
        self.prefix.clear()
        self.runner.free_entries()

    def wake(self) -> None:
        """The opposite of ``sleep``."""
        self.runner.allocate_entries()

    def check_integrity(self) -> None:
        """Asserts that every page is accounted for; without work, that the prefix cache holds all
        that are not free."""
        self.scheduler.check_integrity()
        if not self.has_work():
            assert self.pool.num_free + len(self.prefix) == self.pool.num_pages

    def _compress(self, request: Request) -> None:
        """Gives a request fewer slots, unless it was or is preempted for want of pages."""
        if not request.is_to_be_compressed:  # preempted for one before it
            return
        merged = self.runner.compressor.merge(request)
        if self.scheduler.exchange(request, len(merged.slots[0].k_SMH)):
            self._forget_biases()
            self.runner.compressor.store(request, merged)

    def _forget_biases(self) -> None:
        self.runner.compressor.forget(self.scheduler.biased)
        self.scheduler.biased.clear()

    def _name_entries(self) -> None:
        config, entries = self.config, self.runner.model.compute_dtype
        self.scheduler.namespace = (
            self.model_id,
            str(self.weight_version),
            str(entries),
            config.layout,
        )

    def _sample(
        self, requests: Sequence[Request], logits_BV: Tensor, drafts: Collection[Request] = ()
    ) -> None:
        """A new token for each request; a request whose token cannot be drawn fails alone."""
        found = sample(logits_BV, requests, self.weight_version, drafts)
        for request, drawn in zip(requests, found, strict=True):
            if not isinstance(drawn, SampledToken):
                self._fail(request, drawn)
            elif request in drafts:
                request.tokens.append(drawn.token_id)
                request.drafts += 1
            else:
                self._append(request, drawn)

    def _verify(self, chunk: Chunk, hidden_TD: Tensor) -> bool:
        """Says what full attention says after each token that is verified, until that is not the
        draft; whether anything was said.

        A token is drawn by the random number of its place, so that it is the one that decoding
        without drafts draws, whatever the draft was.
        """
        request = chunk.request
        first = max(chunk.start, len(request.tokens) - request.drafts - 1)
        logits_TV = self.runner.logits(hidden_TD[first - chunk.start :])
        for row, position in enumerate(range(first, chunk.stop)):
            drafts = request.tokens[position + 1 :]
            request.drop_drafts()
            self._sample([request], logits_TV[row : row + 1])
            if request.finish_reason is not None:
                break
            request.num_drafted += bool(drafts)
            if not drafts or drafts[0] != request.tokens[-1]:
                break
            request.num_accepted += 1
            request.tokens += drafts[1:]
            request.drafts = len(drafts) - 1
        if not request.drafts:
            request.computed = request.clean = min(request.clean, len(request.tokens) - 1)
        return first < chunk.stop

    def _append(self, request: Request, drawn: SampledToken) -> None:
        request.completion.append(drawn)
        request.tokens.append(drawn.token_id)
        params = request.params
        # A grammar's end cannot be ignored: nothing may follow it.
        ignored = params.ignore_eos and request.grammar is None
        ends = {*params.stop_token_ids, *(() if ignored else request.end_token_ids)}
        try:
            stopped = request.stops is not None and request.stops(drawn.token_id)
        except Exception as error:  # noqa: BLE001 - one request's text must not end the others
            self._fail(request, error)
            return
        if drawn.token_id in ends or stopped:
            self._end(request, FinishReason.STOP)
        elif len(request.completion) >= params.max_tokens:
            self._end(request, FinishReason.LENGTH)

    def _pool(self, chunk: Chunk, pooler: Pooler, hidden_TD: Tensor) -> None:
        pooler.add(hidden_TD, chunk.start)
        if chunk.samples:
            try:
                pooler.finish()
            except NonFiniteError as error:
                self._fail(chunk.request, error)
            else:
                self._end(chunk.request, FinishReason.STOP)

    def _score_prompt(self, chunk: Chunk, hidden_TD: Tensor) -> None:
        """Log-probabilities of the chunk's tokens, as many rows of logits at once as are sampled
        in a step: the memory plan has room for those."""
        request = chunk.request
        if request.params.prompt_logprobs is None or chunk.start >= len(request.prompt) - 1:
            return
        num_rows = min(chunk.stop, len(request.prompt) - 1) - chunk.start
        targets = request.prompt[chunk.start + 1 : chunk.start + 1 + num_rows]
        # What was scored before a preemption stands.
        done = max(0, len(request.prompt_logprobs) - chunk.start)
        for first in range(done, num_rows, self.config.max_running):
            rows = slice(first, min(first + self.config.max_running, num_rows))
            logits_TV = self.runner.logits(hidden_TD[rows])
            count = request.params.prompt_logprobs
            request.prompt_logprobs += prompt_logprobs(logits_TV, targets[rows], count)

    def _fail(self, request: Request, error: Exception) -> None:
        if not isinstance(error, SeleniteError):  # a bug: whoever asked is told no more than that
            logger.error("request %s failed", request.id, exc_info=error)
        request.error = error
        self._end(request, FinishReason.ERROR)

    def _end(self, request: Request, reason: FinishReason) -> None:
        request.finish_reason = reason
        self.scheduler.finish(request)
