"""A server process: the socket first, then the model; at SIGTERM what runs is finished."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType

import uvicorn

from selenite.errors import ConfigError
from selenite.serve.config import ServeConfig
from selenite.serve.http.app import create_app
from selenite.serve.http.connection import Connection
from selenite.serve.http.door import Door
from selenite.serve.load import load_model
from selenite.serve.service import Service

logger = logging.getLogger(__name__)
# Of an address that cannot be listened at, ``run_server`` tells, with the option to change.
logging.getLogger("uvicorn.error").addFilter(lambda record: not isinstance(record.msg, OSError))


def run_server(config: ServeConfig, say: Callable[[str], None]) -> None:
    """Serves until a signal ends it. ``say`` is told what runs, once it does.

    Raises what loading the model raises, after the socket is closed.
    """
    server = Server(config, say)
    server.run()
    if server.failure is not None:
        raise server.failure


class Server(uvicorn.Server):
    """uvicorn's, with a drain between the first signal and the exit."""

    def __init__(self, config: ServeConfig, say: Callable[[str], None]) -> None:
        self.door = Door(config)
        self.failure: Exception | None = None
        self._say = say
        self._is_ending = False
        self._loop: asyncio.AbstractEventLoop | None = None
        super().__init__(
            uvicorn.Config(
                create_app(self.door),
                host=config.host,
                port=config.port,
                http=Connection,
                lifespan="off",
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=5,
                h11_max_incomplete_event_size=64 * 1024,
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        except SystemExit as ended:
            fault = ended.__context__
            if not isinstance(fault, OSError):
                raise
            config = self.door.config
            self.failure = ConfigError(
                f"--host {config.host} --port {config.port}: {fault.strerror or fault}; give "
                "another (--port 0: any free one)"
            )
            self.should_exit = True
        if self.started:
            self._loop = asyncio.get_running_loop()
            self._say(f"loading {self.door.config.model} (/health says when it is ready)")
            threading.Thread(
                target=self._load, args=(self._loop,), name="load", daemon=True
            ).start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        if self.door.loaded is not None:
            await asyncio.to_thread(self.door.loaded.close)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal drains, further ones change nothing; but Ctrl-C ends at once then."""
        if self._is_ending:
            if sig == signal.SIGINT:
                self.should_exit = self.force_exit = True
            return
        self._is_ending = True
        if self.door.loaded is None or self._loop is None:
            self.should_exit = True
        else:
            # No more here: what a handler raises ends up in whatever ran at that moment.
            self._loop.call_soon_threadsafe(self._drain, self.door.loaded)

    def _drain(self, service: Service) -> None:
        self._draining = asyncio.ensure_future(self._drained(service))
        self._say(
            f"ending: {service.num_open} completions are open and have up to "
            f"{self.door.config.shutdown_timeout:g} s; Ctrl-C ends at once"
        )

    async def _drained(self, service: Service) -> None:
        await service.drain(self.door.config.shutdown_timeout)
        self.should_exit = True

    def _load(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            service = Service(load_model(self.door.config), self.door.config)
        except Exception as error:  # noqa: BLE001 - raised again by run_server
            self.failure = error
            self.should_exit = True
            return
        service.start()
        loop.call_soon_threadsafe(self._open, service)

    def _open(self, service: Service) -> None:
        self.door.open(service)
        port = self.servers[0].sockets[0].getsockname()[1]
        host = self.door.config.host
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        for name, decision in service.loaded.decisions.items():
            self._say(f"{name:13} {decision.value} ({decision.reason})")
        self._say(f"{'page':13} {url}/")
        self._say(f"{'url':13} {url}/v1")
