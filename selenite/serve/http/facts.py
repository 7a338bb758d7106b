"""What the server says of itself: ``/v1/models``, ``/version``, ``/load``."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from selenite.serve.service import Load, Service


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
