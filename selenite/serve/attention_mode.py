"""What a request's rows read: everything, or blocks that they choose; as people say it.

    {"mode": "full"}
    {"mode": "moba", "block_size": 512, "top_k": 3, "sink": true, "full_layers": [-1]}

What ``moba`` leaves out is as in the model's config.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from selenite.errors import ConfigError
from selenite.model.config import MobaConfig, ModelConfig
from selenite.ops.attention_context import BlockRouting


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


AttentionMode = Annotated[FullAttention | MobaAttention, Field(discriminator="mode")]

_ADAPTER: TypeAdapter[FullAttention | MobaAttention] = TypeAdapter(AttentionMode)


def read_mode(text: str) -> FullAttention | MobaAttention:
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
            'an object such as {"mode": "moba", "block_size": 512, "top_k": 3}'
        ) from error


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
