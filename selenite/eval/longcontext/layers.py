"""Which layer should choose tokens anew? A sweep over all of them, by needles (TidalDecode, arXiv
2410.05076, section 4.1).

How much attention on plain text is kept does not tell: the layer that keeps most of it is not the
one that finds what is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from selenite import atomic
from selenite.chat.tokenizer import Tokenizer
from selenite.errors import ConfigError
from selenite.eval.longcontext.text import needles, prose_ids
from selenite.eval.longcontext.told import tell
from selenite.model.hf_adapter import load_pretrained
from selenite.model.pack import pack_weights
from selenite.serve.attention_mode import (
    LAYERS,
    AnyMode,
    FullAttention,
    TidalAttention,
    first_layer,
)
from selenite.serve.engine.engine import Engine, EngineConfig

_PAGE, _ROOM = 16, 96  # tokens of a page; of questions and answers, at most
_SEED = 1  # of other needles than those of ``selenite eval longcontext``


@dataclass(frozen=True)
class Trial:
    """What needles cost where these layers choose; no layers: full attention."""

    layers: tuple[int, ...]
    loss: float  # nats per token of the answers
    found: int

    @property
    def num_whole(self) -> int:
        """Layers that read everything, if any choose: these, and those before the first."""
        return self.layers[0] + len(self.layers)


def sweep(
    directory: Path,
    dtype: torch.dtype,
    budget: int,
    length: int,
    count: int,
    chosen: Sequence[int] = (),
    watch: Callable[[Trial], None] = lambda trial: None,
) -> list[Trial]:
    """Full attention, then each layer that could choose beside those that are chosen; none: beside
    the usual first one.

    Raises ``ConfigError`` for a model with no choice, and for prompts that it has no positions for.
    """
    model = pack_weights(load_pretrained(directory, dtype).cast(dtype))
    layers, first = model.config.num_layers, first_layer(model.config)
    if layers < first + 3:
        raise ConfigError(
            f"{directory}: of {layers} layers none can be left to read what others chose; mode "
            "tidal gains nothing with this model"
        )
    if length + _ROOM > model.config.max_positions:
        raise ConfigError(
            f"--length {length}: with questions {length + _ROOM} positions are needed, and the "
            f"model has {model.config.max_positions}; take less"
        )
    tokenizer = Tokenizer.load(directory)
    hidden = needles(tokenizer, prose_ids(tokenizer, length), length, count, 1, seed=_SEED)
    pages = count * (-(-(length + _ROOM) // _PAGE))
    engine = Engine(model, EngineConfig(pages + 1, _PAGE, max_running=count))
    modes: list[tuple[tuple[int, ...], AnyMode]] = [((), FullAttention(mode="full"))]
    beside = chosen or (first,)
    for layer in sorted({*range(1, layers - 1)} - {*beside}):
        tried = sorted((*beside, layer))
        modes.append((tuple(tried), TidalAttention(mode="tidal", budget=budget, layers=tried)))
    trials = []
    for tried_layers, mode in modes:
        heard, _ = tell(engine, [needle.passage for needle in hidden], mode)
        found = [needle.found(own) for own, needle in zip(heard, hidden, strict=True)]
        loss = sum(needle.loss for needle in found) / count
        trials.append(Trial(tried_layers, loss, sum(needle.is_found for needle in found)))
        watch(trials[-1])
    return trials


def save_layers(directory: Path, layers: tuple[int, ...]) -> None:
    """Makes these the model's own, for requests of mode ``tidal`` that name none."""
    atomic.write_text(directory / LAYERS, json.dumps({"layers": layers}) + "\n")
