"""Program: ``selenite ARGUMENTS`` that ends when whoever started it does.

    python -m selenite.client.tether serve MODEL

Its standard input is a pipe that nobody writes to; the pipe's end means that the starter is gone,
be it by kill -9, and the process sends itself SIGTERM.
"""

from __future__ import annotations

import os
import runpy
import signal
import threading

_STDIN = 0


def _end_with_the_starter() -> None:
    # Not through sys.stdin, whose lock a blocked reader would hold while the interpreter ends.
    while os.read(_STDIN, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_end_with_the_starter, daemon=True).start()
    runpy.run_module("selenite", run_name="__main__")
