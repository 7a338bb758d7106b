"""The server's state as its endpoints see it: loading, ready, draining or broken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from selenite.errors import UnavailableError
from selenite.serve.config import ServeConfig
from selenite.serve.http.errors import ModelNotFoundError
from selenite.serve.http.metrics import Metrics
from selenite.serve.service import Service


@dataclass
class Door:
    """One for each app. ``open`` is called once, by whoever loads the model."""

    config: ServeConfig
    loaded: Service | None = None
    _metrics: Metrics | None = None

    def open(self, service: Service) -> None:
        """From now on requests are taken."""
        self._metrics = Metrics(service)
        self.loaded = service

    def metrics(self) -> Metrics:
        """Raises ``UnavailableError`` while there is no service."""
        self.service()
        assert self._metrics is not None, "a service without metrics"
        return self._metrics

    @property
    def state(self) -> str:
        """``loading``, ``ready``, ``draining`` or ``failed``."""
        if self.loaded is None:
            return "loading"
        if not self.loaded.thread.is_alive and not self.loaded.is_draining:
            return "failed"
        return "draining" if self.loaded.is_draining else "ready"

    def service(self, model: str | None = None) -> Service:
        """The service; raises ``UnavailableError`` while there is none, and
        ``ModelNotFoundError`` for a model that is not served."""
        if self.loaded is None:
            raise UnavailableError("the model is being loaded; try again soon")
        if model is not None and model not in self.loaded.names:
            raise ModelNotFoundError(model, self.loaded.names)
        return self.loaded


async def _door(request: Request) -> Door:
    door: Door = request.app.state.door
    return door


DoorOf = Annotated[Door, Depends(_door)]
"""A handler's parameter: the door of its app."""
