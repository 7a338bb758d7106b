"""Program: an engine for the process that started it, whose end is its own.

    python -m selenite.rl.remote.child PIPE PLACE PLACE

File descriptors: the pipe, and the shared memory in which weights come.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from selenite.errors import SeleniteError, UnavailableError
from selenite.rl.remote.host import Host
from selenite.rl.remote.messages import Answer, Weights, portable
from selenite.rl.weights.shared_memory import mapped

_WITH_WEIGHTS = ("stage", "commit")  # calls that say where weights are


def main(pipe: Connection, places: Sequence[np.ndarray]) -> None:
    """Serves until the pipe ends."""
    settings, weights, is_paused = pipe.recv()
    assert isinstance(weights, Weights)
    try:
        host = Host(settings, weights.manifest, places[weights.place], is_paused)
    except Exception as error:  # noqa: BLE001 - whoever waits for it is told
        pipe.send([Answer(0, None, portable(error))])
        return
    host.tell(Answer(0, None, None))
    threading.Thread(target=_send_news, args=(pipe, host), daemon=True).start()
    while True:
        try:
            number, method, arguments = pipe.recv()
        except (EOFError, OSError):  # whoever started it is gone
            break
        if method in _WITH_WEIGHTS:
            manifest, place = arguments
            arguments = manifest, places[place]
        host.tell(_answer(number, getattr(host, method), arguments))
    host.stop()


def _answer(number: int, function: Callable[..., Any], arguments: Sequence[Any]) -> Answer:
    try:
        return Answer(number, function(*arguments), None)
    except Exception as error:
        if not isinstance(error, SeleniteError):
            logging.getLogger(__name__).exception("a call failed")
        return Answer(number, None, portable(error))


def _send_news(pipe: Connection, host: Host) -> None:
    """Alone in sending: whoever calls is read at once, however slowly it reads."""
    try:
        while True:
            pipe.send(host.news())
    except OSError:  # whoever started it is gone, which the main thread knows, too
        return
    except UnavailableError:
        os._exit(1)  # without an engine there is nothing to end


if __name__ == "__main__":
    main(Connection(int(sys.argv[1])), [mapped(int(place)) for place in sys.argv[2:]])
