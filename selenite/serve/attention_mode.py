"""What a request's rows read: everything, blocks or tokens that they choose; as people say it.

    {"mode": "full"}
    {"mode": "moba", "block_size": 512, "top_k": 3, "sink": true, "full_layers": [-1]}
    {"mode": "tidal", "budget": 256, "layers": [2, 14], "share": "layer", "correct_every": 512}
    {"mode": "keepkv", "budget": 0.2, "every": 128, "refresh_every": 1024}

What ``moba`` leaves out is as in the model's config.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from selenite.errors import CheckpointError, ConfigError
from selenite.model.config import MobaConfig, ModelConfig
from selenite.ops.attention_context import BlockRouting, TokenSelection
from selenite.ops.slot_merging import Keep, Merge


class FullAttention(BaseModel):
    """Rows read everything."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    mode: Literal["full"]


class MobaAttention(BaseModel):
    """Rows read blocks (``MobaConfig``); None: as in the model's config."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    mode: Literal["moba"]
    block_size: int | None = Field(default=None, gt=0, le=2**20)
    top_k: int | None = Field(default=None, gt=0, le=2**20)
    sink: bool | None = None
    share: Literal["head", "group"] | None = None
    full_layers: Annotated[list[int], Field(max_length=1024)] | None = None


class TidalAttention(BaseModel):
    """Rows that decode read chosen tokens (``TokenSelection``), prompts everything."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    mode: Literal["tidal"]
    budget: int = Field(gt=0, le=2**20)
    """Tokens that a row reads, itself, sinks and recent ones included."""
    layers: Annotated[list[int], Field(min_length=1, max_length=1024)] | None = None
    """Layers that choose; None: the model's own, or the third one and the middle one."""
    share: Literal["head", "group", "layer"] = "layer"
    sinks: int | None = Field(default=None, ge=0, le=2**20)
    """None: four, or a quarter of the budget if that is less."""
    recent: int | None = Field(default=None, ge=1, le=2**20)  # None: a quarter of the budget
    correct_every: int | None = Field(default=None, ge=1, le=2**20)
    """Tokens of the completion after which their entries are computed anew, reading everything;
    None: never."""
    drafts: int | None = Field(default=None, ge=1, le=256)
    """Tokens that are drafts until as many have been read again, reading everything: what is said
    is what full attention says. None: what rows that choose say is said."""


class KeepKvAttention(BaseModel):
    """Once the prompt is computed, fewer slots stand for its tokens (``ops/slot_merging.py``)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    mode: Literal["keepkv"]
    budget: Annotated[int, Field(ge=4, le=2**20)] | Annotated[float, Field(gt=0, lt=1)]
    """Slots that are kept, or their share of the prompt's tokens: at least sinks and window."""
    keep: Keep = "snapkv"
    merge: Merge = "bias"
    likeness: float = Field(default=0.8, ge=-1, le=1)
    """Cosine of two keys above which their slots may be merged; others are given up."""
    sinks: int = Field(default=4, ge=0, le=2**20)  # a quarter of the budget, if that is less
    window: int = Field(default=32, ge=1, le=64)
    """Last tokens whose queries say what is kept, and which are kept themselves; half of the
    budget, if that is less."""
    decay: float = Field(default=1.0, gt=0, le=1)  # weight of a query beside the one after it
    every: int | None = Field(default=128, ge=1, le=2**20)
    """Slots beyond the budget after which there are too many again; None: never."""
    refresh_every: int | None = Field(default=None, ge=8, le=2**20)
    """Tokens after which all entries are taken from the prefix cache, or computed again, and made
    fewer by the queries of that time; None: never."""
    reading: TidalAttention | None = None
    """How decoding rows read the slots that are left; None: all of them."""


LAYERS = "tidal.json"
"""In a model directory: which layers choose tokens where nothing else is said."""

AnyMode = FullAttention | MobaAttention | TidalAttention | KeepKvAttention
AttentionMode = Annotated[AnyMode, Field(discriminator="mode")]

_ADAPTER: TypeAdapter[AnyMode] = TypeAdapter(AttentionMode)


def read_mode(text: str) -> AnyMode:
    """Of a command line: ``full``, ``moba``, or a JSON object. Raises ``ConfigError``."""
    try:
        if text in ("full", "moba"):
            return _ADAPTER.validate_python({"mode": text})
        return _ADAPTER.validate_json(text)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        raise ConfigError(
            f"attention {text}: {where + ': ' if where else ''}{fault['msg']}; give full, moba, or "
            'an object such as {"mode": "moba", "block_size": 512, "top_k": 3}, '
            '{"mode": "tidal", "budget": 256} or {"mode": "keepkv", "budget": 0.2}'
        ) from error


@dataclass(frozen=True)
class Compression:
    """How many slots a request's tokens have, and which."""

    budget: int
    num_sinks: int
    window: int
    mode: KeepKvAttention


@dataclass(frozen=True)
class Reading:
    """What a mode means for a request's rows; nothing: they read everything."""

    routing: BlockRouting | None = None
    selection: TokenSelection | None = None
    correct_every: int | None = None  # tokens of the completion
    drafts: int | None = None  # tokens that are to be verified together
    compression: Compression | None = None


EVERYTHING = Reading()


def reading_of(
    mode: AnyMode | None,
    model: ModelConfig,
    page_size: int,
    layout: Literal["latent", "expanded"] = "expanded",
    prompt: int = 0,
    tidal_layers: tuple[int, ...] | None = None,
) -> Reading:
    """What rows read in this mode, None being the model's own.

    Args:
        mode: what was asked for.
        model: that serves.
        page_size: tokens of a page.
        layout: of cached entries.
        prompt: tokens of the prompt, of which a budget may be a share.
        tidal_layers: that choose tokens where the mode names none.

    Raises ``ConfigError`` for a mode that says too little or contradicts itself, or that the model
    or pages of this size cannot serve.
    """
    if mode is not None and mode.mode == "tidal":
        # Prompts are read as the model reads them.
        if model.moba is not None:
            raise ConfigError(
                "attention: the model's rows choose blocks (moba), and a row cannot choose tokens, "
                "too; take mode full or moba"
            )
        if mode.drafts is not None and mode.correct_every is not None:
            raise ConfigError(
                "attention: drafts are computed anew when they are verified; leave "
                "correct_every out"
            )
        selection = _selection(mode, model, tidal_layers)
        return Reading(None, selection, mode.correct_every, mode.drafts)
    if mode is not None and mode.mode == "keepkv":
        compression = _compression(mode, model, layout, prompt)
        if mode.reading is None:
            return Reading(compression=compression)
        for name in ("correct_every", "drafts"):
            if getattr(mode.reading, name) is not None:
                raise ConfigError(
                    f"attention: {name} computes entries anew that have no slots any more; leave "
                    "it out, or take refresh_every of mode keepkv"
                )
        selection = _selection(mode.reading, model, tidal_layers)
        return Reading(None, selection, compression=compression)
    return Reading(routing_of(mode, model, page_size))


def first_layer(model: ModelConfig) -> int:
    """The layer that chooses first, where nothing else is said."""
    return min(2, model.num_layers - 1)


def stored_layers(directory: Path, model: ModelConfig) -> tuple[int, ...] | None:
    """Layers that ``selenite eval layers`` stored with a model; None: it did not.

    Raises ``CheckpointError`` for a file that says something else.
    """
    path = directory / LAYERS
    if not path.is_file():
        return None
    try:
        found = TypeAdapter(list[int]).validate_python(json.loads(path.read_bytes())["layers"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path}: not what selenite eval layers writes; remove it, or make it anew"
        ) from error
    if not found or not all(0 <= layer < model.num_layers for layer in found):
        raise CheckpointError(
            f"{path}: layers {found} of a model with layers 0 to {model.num_layers - 1}; make it "
            "anew by selenite eval layers"
        )
    return tuple(sorted(set(found)))


def _selection(
    mode: TidalAttention, model: ModelConfig, own: tuple[int, ...] | None
) -> TokenSelection:
    count = model.num_layers
    if mode.layers is None:
        first = first_layer(model)
        layers = sorted(own or {first, max(first, count // 2 - 1)})
    else:
        layers = sorted({layer + count if layer < 0 else layer for layer in mode.layers})
        wrong = [layer for layer in mode.layers if not -count <= layer < count]
        if wrong:
            raise ConfigError(
                f"attention: layers={mode.layers}: the model has layers 0 to {count - 1}; "
                f"leave {wrong[0]} out"
            )
    if mode.share == "group" and model.attention == "mla":
        raise ConfigError(
            "attention: share=group: latent attention has no groups of heads; take layer, or head"
        )
    sinks = min(4, mode.budget // 4) if mode.sinks is None else mode.sinks
    recent = max(1, mode.budget // 4) if mode.recent is None else mode.recent
    if sinks + recent > mode.budget:
        raise ConfigError(
            f"attention: {sinks} sinks and {recent} recent tokens are more than "
            f"budget={mode.budget}; raise it, or lower sinks or recent"
        )
    return TokenSelection(mode.budget, tuple(layers), mode.share, sinks, recent)


def _compression(
    mode: KeepKvAttention, model: ModelConfig, layout: Literal["latent", "expanded"], prompt: int
) -> Compression:
    if model.moba is not None:
        raise ConfigError(
            "attention: the model's rows choose blocks (moba), whose mean keys merged slots do not "
            "have; take mode full or moba"
        )
    if model.attention == "mla" and layout == "latent":
        raise ConfigError(
            "attention: mode keepkv merges the keys of each head, and a latent has the keys of all "
            "heads in one; start the server with --kv-layout expanded, or take another mode"
        )
    budget = mode.budget
    if isinstance(budget, float):  # of a short prompt at least what is kept whatever it says
        budget = max(mode.sinks + mode.window, round(budget * prompt))
    return Compression(budget, min(mode.sinks, budget // 4), min(mode.window, budget // 2), mode)


def routing_of(
    mode: FullAttention | MobaAttention | None, model: ModelConfig, page_size: int
) -> BlockRouting | None:
    """How rows choose blocks in this mode, None being the model's own; None: they do not.

    Raises ``ConfigError`` for a mode that says too little, or that pages of this size cannot serve.
    """
    if mode is None:
        routing = model.routing()
    elif mode.mode == "full":
        routing = None
    else:
        routing = model.routing(_moba(mode, model))
    if routing is not None and routing.block_size % page_size:
        raise ConfigError(
            f"attention: block_size={routing.block_size} is not a multiple of the {page_size} "
            "tokens of a page; choose another, or start the server with another --block-size"
        )
    return routing


def _moba(mode: MobaAttention, model: ModelConfig) -> MobaConfig:
    known: dict[str, Any] = {} if model.moba is None else model.moba.model_dump()
    known |= mode.model_dump(exclude_none=True, exclude={"mode"})
    missing = [name for name in ("block_size", "top_k") if name not in known]
    if missing:
        raise ConfigError(
            f"attention: {' and '.join(missing)} missing; give both, since the model was not "
            "trained with blocks and has none of its own"
        )
    try:
        # The whole config, which checks that there are such layers.
        changed = ModelConfig.model_validate({**model.model_dump(), "moba": known})
    except ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise ConfigError(f"attention: {message}") from error
    assert changed.moba is not None
    return changed.moba
