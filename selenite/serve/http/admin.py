"""What changes the server for everybody: pausing, sleeping, other weights.

Served with ``--admin`` alone: whoever reaches these endpoints can stop or replace the model. They
are for programs: on a machine where no key is asked for, every page in the user's browser reaches
them too.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from selenite.serve.engine.engine import AtSwap
from selenite.serve.http.door import DoorOf
from selenite.serve.http.protocol import Body


async def _refuse_pages(request: Request) -> None:
    """Browsers set these headers, and pages cannot take them away."""
    for header in ("Origin", "Sec-Fetch-Site"):
        if header in request.headers:
            raise HTTPException(
                403, f"{header}: this endpoint is for programs, not for pages; send no such header"
            )


router = APIRouter(dependencies=[Depends(_refuse_pages)])


class PauseBody(Body):
    """The request."""

    mode: Literal["keep", "abort"] = "keep"
    """What happens to requests in the middle: they go on after ``/resume``, or end."""


class UpdateBody(Body):
    """The request."""

    path: str = Field(min_length=1)  # a model directory that the server can read
    version: int | None = Field(default=None, ge=0)  # None: the next number
    sha256: str | None = Field(default=None, pattern="^[0-9a-fA-F]{64}$")
    running: AtSwap = "recompute"


class Weights(BaseModel):
    """Which weights are served."""

    version: int
    sha256: str | None


class EngineState(BaseModel):
    """After a change."""

    is_paused: bool
    weights: Weights


@router.post("/pause", response_model=EngineState)
async def pause(door: DoorOf, body: PauseBody | None = None) -> EngineState:
    """Runs no more steps until ``/resume``."""
    service = door.service()
    await asyncio.wrap_future(service.thread.pause())
    if body is not None and body.mode == "abort":
        await asyncio.wrap_future(service.thread.abort_all())
    return _state(door)


@router.post("/resume", response_model=EngineState)
async def resume(door: DoorOf) -> EngineState:
    """Runs steps again; wakes a server that sleeps."""
    await asyncio.wrap_future(door.service().thread.resume())
    return _state(door)


@router.post("/sleep", response_model=EngineState)
async def sleep(door: DoorOf) -> EngineState:
    """Pauses, and gives the memory of the cache back until ``/wake_up``."""
    await asyncio.wrap_future(door.service().thread.sleep())
    return _state(door)


@router.post("/wake_up", response_model=EngineState)
async def wake_up(door: DoorOf) -> EngineState:
    """The opposite of ``/sleep``."""
    return await resume(door)


@router.post("/update_weights", response_model=EngineState)
async def update_weights(body: UpdateBody, door: DoorOf) -> EngineState:
    """Reads and verifies a model directory beside the old weights, then swaps between two steps.

    Requests keep being served meanwhile; a directory that is refused leaves the old weights.
    """
    updater = door.service().weights
    await asyncio.to_thread(
        updater.update, Path(body.path), body.version, body.sha256, body.running
    )
    return _state(door)


@router.get("/weights", response_model=Weights)
async def weights(door: DoorOf) -> Weights:
    """Which weights are served."""
    return _weights(door)


def _weights(door: DoorOf) -> Weights:
    current = door.service().weights.current
    return Weights(version=current.version, sha256=current.sha256)


def _state(door: DoorOf) -> EngineState:
    return EngineState(is_paused=door.service().thread.is_paused, weights=_weights(door))
