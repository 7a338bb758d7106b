"""A client's connection: uvicorn's, cut when the client no longer takes what it is sent.

Here and not in the app, since an app cannot cut a connection: what it raises makes uvicorn close
the socket after all has been sent, which a client that reads nothing puts off for ever. To the app
a cut looks like any client that goes away.
"""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

_LEAST_TAKEN = 16 * 1024  # bytes within the time limit, of an answer that waits


class Connection(H11Protocol):
    """One for each client; ``seconds`` is how long one may do nothing that it should do."""

    seconds = 60.0
    _reading: asyncio.TimerHandle | None = None  # runs while sent bytes wait for the client

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(0)  # pause_writing is called whatever is left unread

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_reading()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The client has not taken all that it was sent."""
        super().pause_writing()
        self._expect_reading()

    def resume_writing(self) -> None:
        """Now it has."""
        self._stop_reading()
        super().resume_writing()

    def _expect_reading(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._reading = self.loop.call_later(self.seconds, self._check_reading, left)

    def _check_reading(self, left: int) -> None:
        if left - self.transport.get_write_buffer_size() < _LEAST_TAKEN:
            self.transport.abort()
        else:
            self._expect_reading()

    def _stop_reading(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None
