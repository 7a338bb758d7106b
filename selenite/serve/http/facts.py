"""What the server says of itself: models, version, load, counters, the last requests."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from selenite.serve.service import Load, Service
from selenite.types import FinishReason


class ModelEntry(BaseModel):
    """A model."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["selenite"] = "selenite"
    max_model_len: int  # tokens of a prompt and its completion together


class ModelList(BaseModel):
    """All models."""

    object: Literal["list"] = "list"
    data: list[ModelEntry]


class Version(BaseModel):
    """Of the server."""

    version: str


class ServerLoad(BaseModel):
    """``server_load`` is vLLM's name for what clients wait for."""

    server_load: int
    running: int
    waiting: int
    pages: int
    pages_in_use: int


class ServerStats(BaseModel):
    """Gauges and counters of one moment; two answers make rates. The web page draws them."""

    uptime: float  # seconds, by the engine's clock
    running: int
    waiting: int
    open: int  # completions that clients wait for
    ended: int  # completions so far
    pages: int
    pages_in_use: int  # by running completions
    pages_cached: int  # that hold published prefixes, in use or not
    prefix_cache_queries: int  # tokens looked up so far
    prefix_cache_hits: int  # tokens found so far
    prompt_tokens: int  # so far, of completions that were scheduled
    generation_tokens: int  # so far
    preemptions: int  # so far


class RequestTimeline(BaseModel):
    """When a completion did what, in ``uptime``'s seconds; null: it has not, or never did."""

    model_config = ConfigDict(from_attributes=True)

    id: str  # the id of the answer ends in it
    index: int
    model: str
    arrival: float
    first_scheduled: float | None
    first_token: float | None
    last_token: float | None
    ended: float | None
    prompt_tokens: int
    cached_tokens: int  # of the prompt, found in the prefix cache
    completion_tokens: int
    preemptions: int
    finish_reason: FinishReason | None


class RequestList(BaseModel):
    """Open completions and the last hundred that ended, the latest first; no text of any."""

    uptime: float
    requests: list[RequestTimeline]


def model_entry(service: Service, name: str) -> ModelEntry:
    """The model, or one of its adapters."""
    return ModelEntry(id=name, created=service.created, max_model_len=service.max_tokens)


def model_list(service: Service) -> ModelList:
    """The model that is served, and its adapters."""
    return ModelList(data=[model_entry(service, name) for name in service.names])


def server_load(load: Load) -> ServerLoad:
    """As ``/load`` has it."""
    return ServerLoad(
        server_load=load.open,
        running=load.running,
        waiting=load.waiting,
        pages=load.pages,
        pages_in_use=load.pages_in_use,
    )


def server_stats(service: Service) -> ServerStats:
    """As ``/stats`` has it. Read beside the engine's thread: numbers may be a step old."""
    engine, timelines, load = service.engine, service.timelines, service.load()
    return ServerStats(
        uptime=timelines.now,
        running=load.running,
        waiting=load.waiting,
        open=load.open,
        ended=timelines.num_ended,
        pages=load.pages,
        pages_in_use=load.pages_in_use,
        pages_cached=len(engine.prefix),
        prefix_cache_queries=engine.prefix.queries,
        prefix_cache_hits=engine.prefix.hits,
        prompt_tokens=timelines.num_prompt_tokens,
        generation_tokens=timelines.num_completion_tokens,
        preemptions=engine.scheduler.num_preemptions,
    )


def request_list(service: Service) -> RequestList:
    """As ``/requests`` has it."""
    timelines = service.timelines
    requests = [RequestTimeline.model_validate(timeline) for timeline in timelines.last()]
    return RequestList(uptime=timelines.now, requests=requests)
