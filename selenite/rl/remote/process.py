"""A channel to an engine in a child process, over a pipe; weights come through shared memory.

The child is ``selenite.rl.remote.child``. The pipe's end tells either side that the other is gone,
be it by kill -9.
"""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from multiprocessing import Pipe
from typing import Any

from selenite.rl.remote.engine import SILENCE, START_SECONDS, EngineDiedError, Start
from selenite.rl.remote.messages import Answer, HostSettings, Weights

_HELLO = 0  # number of the call that the child answers once it serves


class ProcessChannel:
    """A ``Channel``.

    Args:
        settings: of the engine.
        weights: that it begins with, in one of the places.
        is_paused: whether it waits for ``resume``.
        places: file descriptors of shared memory with weights.

    Raises ``EngineDiedError`` where it does not come to serve.
    """

    def __init__(
        self, settings: HostSettings, weights: Weights, is_paused: bool, places: Sequence[int]
    ) -> None:
        self._numbers = itertools.count(_HELLO + 1)
        self._answers = dict[int, Future[Any]]()
        self._lock = threading.Lock()  # for sending: messages must not mix
        self._pipe, theirs = Pipe()
        with theirs:
            files = [theirs.fileno(), *places]
            self._process = subprocess.Popen(
                [sys.executable, "-m", "selenite.rl.remote.child", *map(str, files)],
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr.fileno(),
                pass_fds=files,
                start_new_session=True,  # a Ctrl-C at the terminal is for the trainer alone
            )
        self._is_ended = False
        self._answers[_HELLO] = hello = Future[Any]()
        try:
            self._put((settings, weights, is_paused))
            while not hello.done():
                self._receive(START_SECONDS)
        except EngineDiedError:
            self.close()
            raise
        if hello.exception() is not None:
            self.close()
            raise EngineDiedError(f"it did not start ({hello.exception()})")

    @property
    def process_id(self) -> int:
        """Of the child."""
        return self._process.pid

    def call(self, method: str, *arguments: Any) -> Future[Any]:
        """``Channel.call``."""
        future: Future[Any] = Future()
        number = next(self._numbers)
        self._answers[number] = future
        try:
            self._put((number, method, arguments))
        except EngineDiedError as error:
            if self._answers.pop(number, None) is not None:
                future.set_exception(error)
        else:
            if self._is_ended:  # between the two: nobody else would tell
                self._forget()
        return future

    def news(self) -> list[Any]:
        """``Channel.news``."""
        return self._receive(SILENCE)

    def close(self) -> None:
        """Kills the child: it has nothing to lose."""
        self._process.kill()
        self._process.wait()
        self._is_ended = True
        self._forget()

    def _receive(self, seconds: float) -> list[Any]:
        """News; answers find their calls."""
        try:
            if not self._pipe.poll(seconds):
                raise EngineDiedError(f"silent for {seconds:g} s")
            items = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise EngineDiedError(f"its process has ended ({self._end()})") from error
        news = list[Any]()
        for item in items:
            if not isinstance(item, Answer):
                news.append(item)
                continue
            future = self._answers.pop(item.call)
            if item.error is None:
                future.set_result(item.result)
            else:
                future.set_exception(item.error)
        return news

    def _put(self, message: object) -> None:
        try:
            with self._lock:
                self._pipe.send(message)
        except OSError as error:
            raise EngineDiedError(f"its process has ended ({self._end()})") from error

    def _end(self) -> str:
        try:
            status = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "it closed its pipe"
        return f"killed by signal {-status}" if status < 0 else f"exit code {status}"

    def _forget(self) -> None:
        """Nobody answers calls any more."""
        while self._answers:
            try:
                _, future = self._answers.popitem()
            except KeyError:  # another thread was faster
                return
            future.set_exception(EngineDiedError("its process has ended"))


def in_children(settings: HostSettings, places: Sequence[int]) -> Start:
    """Starts engines in child processes."""

    def start(weights: Weights, is_paused: bool) -> ProcessChannel:
        return ProcessChannel(settings, weights, is_paused, places)

    return start
