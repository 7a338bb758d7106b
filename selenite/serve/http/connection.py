"""A client's connection: uvicorn's, cut when the client is too slow to send or to read.

Here and not in the app, since an app cannot cut a connection: what it raises makes uvicorn close
the socket after all has been sent, which a client that reads nothing puts off for ever. To the app
a cut looks like any client that goes away. A body that the app waits for is the app's to limit
(``guard.py``), since it can answer.
"""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

_LEAST_TAKEN = 16 * 1024  # bytes within the time limit, of an answer that waits


class Connection(H11Protocol):
    """One for each client, which has ``seconds`` to send a request and to read what waits."""

    seconds = 60.0
    _sending: asyncio.TimerHandle  # runs while a request is incomplete
    _reading: asyncio.TimerHandle | None = None  # runs while something waits to be read

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(0)  # pause_writing is called whatever is left unread
        self._expect_sending()

    def connection_lost(self, exc: Exception | None) -> None:
        self._sending.cancel()
        if self._reading is not None:
            self._reading.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._sending.cancel()
        elif self._sending.cancelled():
            self._expect_sending()

    def pause_writing(self) -> None:
        """The client has not taken all that it was sent."""
        super().pause_writing()
        self._expect_reading()

    def resume_writing(self) -> None:
        """Now it has."""
        assert self._reading is not None, "resumed without a pause"
        self._reading.cancel()
        super().resume_writing()

    def _expect_sending(self) -> None:
        self._sending = self.loop.call_later(self.seconds, self._check_sending)

    def _check_sending(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()
        else:
            self._expect_sending()  # the app waits for the body, and will answer

    def _expect_reading(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._reading = self.loop.call_later(self.seconds, self._check_reading, left)

    def _check_reading(self, left: int) -> None:
        if left - self.transport.get_write_buffer_size() < _LEAST_TAKEN:
            self.transport.abort()
        else:
            self._expect_reading()
