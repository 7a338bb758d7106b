"""Ways to read less or keep less at one budget, and what each makes of long texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from selenite.chat.tokenizer import Tokenizer
from selenite.errors import ConfigError
from selenite.eval.longcontext.text import Found, Kind, Needle, needles, prose_ids, windows
from selenite.eval.longcontext.told import Heard, Pace, Passage, tell
from selenite.model.hf_adapter import load_pretrained
from selenite.model.pack import pack_weights
from selenite.serve.attention_mode import (
    AnyMode,
    FullAttention,
    KeepKvAttention,
    TidalAttention,
    stored_layers,
)
from selenite.serve.engine.engine import Engine, EngineConfig

FULL = "full attention"
KINDS: tuple[Kind, ...] = ("code", "job")
_PAGE = 16
_LEAST = 8  # tokens of a budget

METHODS: dict[str, Callable[[int, int], AnyMode]] = {
    # The others read what is told beside their budget: at the mean half of it.
    "TidalDecode": lambda budget, told: TidalAttention(mode="tidal", budget=budget + told // 2),
    "KeepKV": lambda budget, told: _kept(budget),
    "KeepKV, votes": lambda budget, told: _kept(budget, merge="votes"),
    "KeepKV, zip": lambda budget, told: _kept(budget, merge="zip"),
    "H2O": lambda budget, told: _kept(budget, merge="none", keep="h2o"),
    "SnapKV": lambda budget, told: _kept(budget, merge="none"),
    "StreamingLLM": lambda budget, told: _kept(budget, merge="none", keep="recent"),
}
"""By name: the mode at a budget of tokens or slots of the prompt, and tokens that are told."""


def _kept(budget: int, **more: object) -> KeepKvAttention:
    return KeepKvAttention.model_validate(
        {"mode": "keepkv", "budget": budget, "every": None, **more}
    )


@dataclass(frozen=True)
class Cell:
    """What a method scored at a length and a budget."""

    method: str
    length: int
    share: float  # the budget, of the prompt
    losses: tuple[float, ...]  # nats per told token of each window of prose
    needles: tuple[Found, ...]  # pass codes
    answers: tuple[Found, ...]  # to questions
    pace: Pace


@dataclass(frozen=True)
class Sizes:
    """How much is asked."""

    lengths: tuple[int, ...]
    shares: tuple[float, ...]
    windows: int
    told: int
    depths: int
    each: int  # needles of each depth, and questions
    at_once: int


def passages_of(
    tokenizer: Tokenizer, ids: Sequence[int], length: int, sizes: Sizes
) -> list[tuple[Passage, Needle | None]]:
    """What is told at a length: texts that go on, then facts that are asked for."""
    texts = windows(ids, tokenizer.bos_id, length, sizes.told, sizes.windows)
    hidden = needles(tokenizer, ids, length, sizes.depths, sizes.each, kinds=KINDS)
    return [*((text, None) for text in texts), *((needle.passage, needle) for needle in hidden)]


def measure_methods(
    directory: Path,
    dtype: torch.dtype,
    sizes: Sizes,
    methods: Sequence[str],
    watch: Callable[[Cell], None] = lambda cell: None,
) -> list[Cell]:
    """All cells, full attention first.

    Raises ``ConfigError`` for lengths that the model has no positions for, and for methods that
    there are not or that the model cannot use.
    """
    unknown = [name for name in methods if name not in METHODS]
    if unknown:
        raise ConfigError(f"method {unknown[0]!r}: must be one of {', '.join(METHODS)}")
    model = pack_weights(load_pretrained(directory, dtype).cast(dtype))
    tokenizer = Tokenizer.load(directory)
    most = max(sizes.lengths) + max(sizes.told, 64)
    if most > model.config.max_positions:
        raise ConfigError(
            f"a prompt of {max(sizes.lengths)} tokens and what follows take {most} positions, and "
            f"the model has {model.config.max_positions}; take shorter ones"
        )
    ids = prose_ids(tokenizer, max(sizes.lengths) + sizes.told)
    cells = []
    for length in sizes.lengths:
        passages = passages_of(tokenizer, ids, length, sizes)
        modes: list[tuple[str, float, AnyMode]] = [(FULL, 1.0, FullAttention(mode="full"))]
        for share in sizes.shares:
            budget = max(_LEAST, round(share * length))
            modes += [(name, share, METHODS[name](budget, sizes.told)) for name in methods]
        # A prompt is computed once for all modes; a smaller cache is made of its pages, beside it.
        pages = -(-(length + max(sizes.told, 64)) // _PAGE) + 1
        config = EngineConfig(
            *(3 * sizes.at_once * pages, _PAGE),
            max_running=sizes.at_once,
            tidal_layers=stored_layers(directory, model.config),
        )
        engine = Engine(model, config)
        engine.warm_up()
        heard = {(name, share): _Scores([], [], [], []) for name, share, _ in modes}
        for first in range(0, len(passages), sizes.at_once):
            some = passages[first : first + sizes.at_once]
            for name, share, mode in modes:
                found, pace = tell(engine, [passage for passage, _ in some], mode)
                heard[name, share].add(some, found, pace)
        for (name, share), scores in heard.items():
            cells.append(scores.cell(name, length, share))
            watch(cells[-1])
    return cells


@dataclass
class _Scores:
    losses: list[float]
    needles: list[Found]
    answers: list[Found]
    paces: list[Pace]

    def add(
        self, some: Sequence[tuple[Passage, Needle | None]], heard: Sequence[Heard], pace: Pace
    ) -> None:
        for (_, needle), own in zip(some, heard, strict=True):
            if needle is None:
                # The first token is the prompt's own.
                self.losses.append(-sum(own.logprobs[1:]) / (len(own.logprobs) - 1))
            else:
                found = self.needles if needle.kind == "code" else self.answers
                found.append(needle.found(own))
        self.paces.append(pace)

    def cell(self, name: str, length: int, share: float) -> Cell:
        pace = Pace(
            sum(pace.tokens for pace in self.paces),
            sum(pace.seconds for pace in self.paces),
            sum(pace.slots for pace in self.paces),
        )
        found = tuple(self.needles), tuple(self.answers)
        return Cell(name, length, share, tuple(self.losses), *found, pace)
