"""Does the engine compute what the trainer computed? Log-probabilities of the same tokens.

The engine writes completions once (the baseline: all requests in one batch). Every other way to
compute the same tokens is then held against it: the trainer's packed forward pass, a warm prefix
cache, requests alone, other page and chunk sizes, preemption. In batch-invariant mode every
difference must be 0; in fast mode they are what the order of summation costs.

    selenite eval parity MODEL --dtype bfloat16 --batch-invariant
"""

from __future__ import annotations

import inspect
import json as json_module
import random
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from selenite.chat.tokenizer import Tokenizer
from selenite.clock import SystemClock
from selenite.model.hf_adapter import load_pretrained
from selenite.model.pack import pack_weights
from selenite.model.transformer import Transformer
from selenite.ops.attention_context import packed_context
from selenite.ops.logprobs import token_logprobs
from selenite.serve.engine.engine import Engine, EngineConfig
from selenite.serve.engine.request import Request
from selenite.types import SamplingParams

_SOURCES = (textwrap, json_module.decoder, inspect, random)
"""Modules of the standard library whose text is the prompts."""
_CONFIG = EngineConfig(num_pages=1024, page_size=16, max_step_tokens=512, max_running=64)
_PREEMPT_EVERY = 3  # steps


@dataclass(frozen=True)
class Difference:
    """How far one way of computing is from the baseline, in nats, over all tokens compared."""

    name: str
    largest: float
    mean: float
    tokens: int
    other_tokens: int  # completions that took another token somewhere; compared up to there


@dataclass(frozen=True)
class Parity:
    """All comparisons, and what the baseline took."""

    differences: list[Difference]
    seconds: float  # of the baseline
    tokens: int  # that the baseline computed, prompts included
    rounding: Difference | None = None
    """The trainer in this dtype against the trainer in float32: what the dtype costs anyway, and so
    what the differences of fast mode are measured by. None: it is float32."""

    @property
    def is_exact(self) -> bool:
        """Whether nothing differs: no log-probability, and no token."""
        return all(each.largest == 0 and each.other_tokens == 0 for each in self.differences)


@dataclass(frozen=True)
class Scored:
    """The tokens of a sequence, and the log-probabilities of its last ones: from the second token
    on, or of the completion alone."""

    tokens: list[int]
    logprobs: list[float]


def load(
    directory: Path, dtype: torch.dtype
) -> tuple[Transformer, Transformer, Transformer | None]:
    """The model as the trainer holds it (float32 masters), as the engine does (cast), and as a
    trainer in float32 would, if that is another."""
    trained = load_pretrained(directory, dtype)
    served = pack_weights(load_pretrained(directory, dtype).cast(dtype))
    is_exact = dtype == torch.float32
    return trained, served, None if is_exact else load_pretrained(directory, torch.float32)


def prompts(tokenizer: Tokenizer, count: int, max_tokens: int) -> list[list[int]]:
    """Beginnings of different lengths from the standard library's text, same each time."""
    rng = random.Random(0)
    texts = [inspect.getsource(module) for module in _SOURCES]
    beginnings = []
    for index in range(count):
        text = texts[index % len(texts)]
        start = rng.randrange(len(text) // 2)
        ids = tokenizer.encode(text[start : start + 8 * max_tokens])
        beginnings.append([tokenizer.bos_id, *ids[: rng.randrange(1, max_tokens)]])
    return beginnings


def compare(
    trained: Transformer,
    served: Transformer,
    prompts: Sequence[Sequence[int]],
    max_tokens: int,
    exact: Transformer | None = None,
) -> Parity:
    """All comparisons, the baseline being one batch of the engine.

    Args:
        trained: for the packed forward pass.
        served: for the engine.
        prompts: token ids, at least two prompts.
        max_tokens: of each completion; half of them are greedy.
        exact: for the packed forward pass in float32; None: ``trained`` is in float32.
    """
    params = [
        SamplingParams(
            temperature=float(index % 2),
            seed=index,
            max_tokens=max_tokens,
            ignore_eos=True,
            logprobs=0,
            prompt_logprobs=0,
        )
        for index in range(len(prompts))
    ]

    def written(config: EngineConfig = _CONFIG, after: Callable[[Engine, int], None] | None = None):  # type: ignore[no-untyped-def]
        return run(Engine(served, config), prompts, params, after)

    clock = SystemClock()
    start = clock.now()
    baseline = written()
    seconds = clock.now() - start
    engine = Engine(served, _CONFIG)
    # Log-probabilities of a prompt are computed, not looked up, so the warm cache is read without.
    unscored = [replace(own, prompt_logprobs=None) for own in params]
    run(engine, prompts, unscored)
    warm = run(engine, prompts, unscored)
    assert engine.prefix.hits > 0
    alone = [
        run(Engine(served, _CONFIG), [prompt], [own])[0]
        for prompt, own in zip(prompts, params, strict=True)
    ]
    packed = train_pass(trained, baseline)
    others = {
        "trainer, packed": packed,
        "prefix cache, warm": warm,
        "requests alone": alone,
        "pages of 1": written(replace(_CONFIG, num_pages=16 * 1024, page_size=1)),
        "pages of 64": written(replace(_CONFIG, num_pages=256, page_size=64)),
        "chunks of 7": written(replace(_CONFIG, max_step_tokens=7)),
        "chunks of 64": written(replace(_CONFIG, max_step_tokens=64)),
        "preempted": written(after=preempt_often),
    }
    differences = [difference(name, baseline, scored) for name, scored in others.items()]
    rounding = None
    if exact is not None:
        name = "trainer against trainer in float32"
        rounding = difference(name, packed, train_pass(exact, baseline))
    num_tokens = sum(len(scored.tokens) for scored in baseline)
    return Parity(differences, seconds, num_tokens, rounding)


def run(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    params: Sequence[SamplingParams],
    after: Callable[[Engine, int], None] | None = None,
) -> list[Scored]:
    """Completions of all prompts; ``after`` is called after each step with its number."""
    requests = [
        Request(str(index), tuple(prompt), own)
        for index, (prompt, own) in enumerate(zip(prompts, params, strict=True))
    ]
    for request in requests:
        engine.add(request)
    step = 0
    while engine.has_work():
        engine.step()
        step += 1
        if after is not None:
            after(engine, step)
    engine.check_integrity()
    for request in requests:
        if request.error is not None:
            raise request.error
    return [_scored(request) for request in requests]


def preempt_often(engine: Engine, step: int) -> None:
    """Takes the pages of a running request at every third step, in turn, once each."""
    candidates = [r for r in engine.scheduler.running if r.preemptions == 0]
    if step % _PREEMPT_EVERY == 0 and candidates:
        engine.scheduler.preempt(candidates[step % len(candidates)])


def train_pass(model: Transformer, sequences: Sequence[Scored]) -> list[Scored]:
    """The same tokens through the trainer's packed forward pass, with all that a gradient needs."""
    context = packed_context([len(sequence.tokens) for sequence in sequences])
    tokens_T = torch.tensor([token for sequence in sequences for token in sequence.tokens])
    hidden_TD = model(tokens_T, context.positions_T, context).hidden_TD
    logprobs_T = token_logprobs(hidden_TD, model.head_weight, tokens_T.roll(-1))
    by_sequence = logprobs_T.split([len(sequence.tokens) for sequence in sequences])
    return [
        replace(sequence, logprobs=own[:-1].tolist())
        for sequence, own in zip(sequences, by_sequence, strict=True)
    ]


def difference(name: str, baseline: Sequence[Scored], other: Sequence[Scored]) -> Difference:
    """Of each token that both have after the same tokens."""
    gaps: list[float] = []
    diverged = 0
    for a, b in zip(baseline, other, strict=True):
        same = next(
            (i for i, (x, y) in enumerate(zip(a.tokens, b.tokens, strict=False)) if x != y),
            min(len(a.tokens), len(b.tokens)),
        )
        diverged += same < len(a.tokens)
        # Where the prompt was not scored, the log-probabilities are those of the completion.
        first = max(len(a.tokens) - len(a.logprobs), len(b.tokens) - len(b.logprobs))
        ours = a.logprobs[first - len(a.tokens) :] if first < len(a.tokens) else []
        theirs = b.logprobs[first - len(b.tokens) :] if first < len(b.tokens) else []
        gaps += [abs(x - y) for x, y in zip(ours, theirs, strict=False)][: same - first]
    return Difference(name, max(gaps), sum(gaps) / len(gaps), len(gaps), diverged)


def _scored(request: Request) -> Scored:
    tokens = [*request.prompt_logprobs, *request.completion]
    logprobs = [token.logprob for token in tokens if token.logprob is not None]
    return Scored(request.tokens, logprobs)
