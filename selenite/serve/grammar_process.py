"""Grammars compiled in a process of their own: a schema from a stranger can take for ever.

The process takes one source at a time and may use so much time and memory for it; one that takes
more ends the process, not the server, and the next source starts another. What it compiled at once
is then compiled again here: xgrammar's serialised form takes forty times the grammar's memory (the
tools of an agent take 2 MiB and 90), and reading it longer than compiling. What took long comes
back in that form.

The process itself:

    python -m selenite.serve.grammar_process FD
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import resource
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Literal

import numpy as np

from selenite.clock import Clock, SystemClock
from selenite.errors import ConfigError, UnavailableError

if TYPE_CHECKING:
    import xgrammar

Kind = Literal["regex", "structural_tag"]

RESIDENT_BYTES = 256 * 2**20
"""That the process takes besides what a single source needs: 195 MiB were measured, most of it the
libraries that xgrammar loads."""

_SECONDS = 10  # of processor time, and of waiting
_START_SECONDS = 120.0
_DATA_BYTES = 2 * 2**30
_CACHED_BYTES = 64 * 2**20  # of compiled grammars
_CACHED_FAILURES = 1000
_FAILURE_SECONDS = 60.0
"""How long a source is refused from memory that took too long: the machine may have been busy, or
somebody stopped the process."""
_LARGEST = 64 * 2**20  # bytes of a compiled grammar, and of one that comes in serialised form
_AT_ONCE = 1.0  # seconds of processor time; compiling stops the server as long, and most take 0.1
_LONGEST_REASON = 1000  # characters
_TRIED_TOKENS = 64
_TOKEN_SECONDS = 0.02  # of processor time; other grammars take less than one thousandth


class GrammarProcess:
    """Compiles for one vocabulary; started when it is first needed, and after it was ended.

    For one thread at a time.
    """

    def __init__(
        self, info: xgrammar.TokenizerInfo, seconds: int = _SECONDS, clock: Clock | None = None
    ) -> None:
        self._info = info
        self._clock = clock or SystemClock()
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None
        self._is_ready = False
        # By digests: a source can be as long as the body of a request.
        self._known: OrderedDict[bytes, xgrammar.CompiledGrammar] = OrderedDict()
        self._num_bytes = 0
        self._failed: OrderedDict[bytes, tuple[str, float]] = OrderedDict()  # why, until when

    def compile(self, kind: Kind, source: str) -> xgrammar.CompiledGrammar:
        """The grammar of a regular expression, or of a structural tag in JSON.

        Raises ``ConfigError`` with the compiler's reason, and where it takes too long.
        """
        asked = hashlib.sha256(f"{kind} {source}".encode()).digest()
        reason, until = self._failed.get(asked, ("", 0.0))
        if self._clock.now() < until:
            self._failed.move_to_end(asked)
            raise ConfigError(reason)
        if asked not in self._known:
            try:
                self._keep(asked, self._compile(kind, source))
            except ConfigError as error:
                lasts = _FAILURE_SECONDS if isinstance(error.__cause__, OSError) else math.inf
                self._failed[asked] = str(error), self._clock.now() + lasts
                if len(self._failed) > _CACHED_FAILURES:
                    self._failed.popitem(last=False)
                raise
        self._known.move_to_end(asked)
        return self._known[asked]

    def start(self) -> None:
        """Starts the process, unless there is one; it is ready some seconds later."""
        if self._process is not None and self._process.poll() is None:
            return
        self.close()
        self._pipe, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno()), str(self._seconds)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                start_new_session=True,  # a Ctrl-C at the terminal is for the server alone
            )

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None and self._pipe is not None:
            self._process.kill()
            self._process.wait()
            self._pipe.close()
        self._process = self._pipe = None
        self._is_ready = False

    def _compile(self, kind: Kind, source: str) -> xgrammar.CompiledGrammar:
        import xgrammar

        message = json.dumps({"kind": kind, "source": source}).encode()
        try:
            answer = json.loads(self._answer(message))
        except OSError as error:
            raise ConfigError(
                f"it takes more than {self._seconds} seconds or {_DATA_BYTES // 2**20} MiB"
            ) from error
        if "error" in answer:
            raise ConfigError(answer["error"])
        if "compiled" in answer:
            return xgrammar.CompiledGrammar.deserialize_json(answer["compiled"], self._info)
        compiler = xgrammar.GrammarCompiler(self._info, max_threads=1, cache_enabled=False)
        try:
            return _compile(compiler, kind, source)
        except RuntimeError as error:  # it was compiled a moment ago: memory, perhaps
            raise ConfigError(f"it was compiled once, and not again ({error})") from error

    def _answer(self, message: bytes) -> bytes:
        """Raises ``OSError`` where the process ends over it, or is ended."""
        self._ready()
        try:
            return self._ask(message, self._seconds)
        except TimeoutError:
            raise
        except OSError:  # before its time: what others compiled fills it, or somebody ended it
            self._ready()
            return self._ask(message, self._seconds)

    def _ready(self) -> None:
        self.start()
        if self._is_ready:
            return
        try:
            self._ask(self._info.serialize_json().encode(), _START_SECONDS)
        except OSError as error:
            raise UnavailableError(
                "the process that compiles grammars does not start; the server's log says why"
            ) from error
        self._is_ready = True

    def _ask(self, message: bytes, seconds: float) -> bytes:
        """The answer to a message; the process is ended where it does not come in time.

        By killing, since a process that somebody stopped does not even take the message. Raises
        ``TimeoutError`` then, and another ``OSError`` where the process ends by itself.
        """
        assert self._process is not None
        assert self._pipe is not None
        is_late = threading.Event()

        def end(process: subprocess.Popen[bytes]) -> None:
            is_late.set()
            process.kill()

        timer = threading.Timer(seconds, end, [self._process])
        timer.start()
        try:
            self._pipe.send_bytes(message)
            return self._pipe.recv_bytes()
        except (EOFError, OSError) as error:
            self.close()
            if is_late.is_set():
                raise TimeoutError(f"no answer in {seconds:g} seconds") from error
            raise ConnectionError("the process has ended") from error
        finally:
            timer.cancel()

    def _keep(self, asked: bytes, compiled: xgrammar.CompiledGrammar) -> None:
        self._known[asked] = compiled
        self._num_bytes += compiled.memory_size_bytes
        while self._num_bytes > _CACHED_BYTES and len(self._known) > 1:
            _, oldest = self._known.popitem(last=False)
            self._num_bytes -= oldest.memory_size_bytes


def main(pipe: Connection, seconds: int) -> None:
    """Compiles until the other end of the pipe is gone."""
    import xgrammar

    info = xgrammar.TokenizerInfo.deserialize_json(pipe.recv_bytes().decode())
    # Without a cache: how long a source takes must be what it takes the next time, elsewhere.
    compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)
    pipe.send_bytes(b"ready")
    _limit(resource.RLIMIT_DATA, _DATA_BYTES)
    while True:
        try:
            asked = json.loads(pipe.recv_bytes())
        except EOFError:
            return
        used = resource.getrusage(resource.RUSAGE_SELF)
        # Ends this process also where nobody waits for it any more.
        _limit(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + seconds + 1)
        pipe.send_bytes(json.dumps(_compiled(compiler, asked["kind"], asked["source"])).encode())


def _compile(
    compiler: xgrammar.GrammarCompiler, kind: Kind, source: str
) -> xgrammar.CompiledGrammar:
    compile = compiler.compile_regex if kind == "regex" else compiler.compile_structural_tag
    return compile(source)


def _compiled(compiler: xgrammar.GrammarCompiler, kind: Kind, source: str) -> dict[str, str]:
    begun = time.process_time()
    try:
        compiled = _compile(compiler, kind, source)
    except (RuntimeError, ValueError, RecursionError) as error:  # the library has no other
        reason = str(error).splitlines()[0].rpartition(": ")[2] if str(error) else repr(error)
        return {"error": reason[:_LONGEST_REASON]}
    seconds = time.process_time() - begun
    slowest = _slowest_token(compiled)
    if slowest > _TOKEN_SECONDS:
        return {"error": f"following it takes {slowest:.2f} seconds for a single token"}
    too_large = {"error": f"it compiles to more than {_LARGEST // 2**20} MiB"}
    if compiled.memory_size_bytes > _LARGEST:
        return too_large
    if seconds <= _AT_ONCE:
        return {}
    serialized = compiled.serialize_json()
    return too_large if len(serialized) > _LARGEST else {"compiled": serialized}


def _slowest_token(compiled: xgrammar.CompiledGrammar) -> float:
    """Seconds for the slowest of some tokens of a random text that follows the grammar.

    Grammars that are small and compile at once can take minutes to find the tokens that may come
    next: those that read a text in very many ways, as ``((.?){100}){100}`` does.
    """
    import xgrammar

    matcher = xgrammar.GrammarMatcher(compiled)
    vocab_size = compiled.tokenizer_info.vocab_size
    bits = xgrammar.allocate_token_bitmask(1, vocab_size)
    rng = np.random.default_rng(0)
    ends = list(compiled.tokenizer_info.stop_token_ids)
    slowest = 0.0
    for _ in range(_TRIED_TOKENS):
        begun = time.thread_time()
        matcher.fill_next_token_bitmask(bits)
        seconds = time.thread_time() - begun
        set_bits = np.unpackbits(bits.numpy().view(np.uint8), bitorder="little")
        set_bits[ends] = 0
        allowed = np.flatnonzero(set_bits[:vocab_size])
        if not len(allowed):
            break
        token = rng.choice(allowed).item()
        begun = time.thread_time()
        matcher.accept_token(token)
        slowest = max(slowest, seconds + time.thread_time() - begun)
        if slowest > _TOKEN_SECONDS:
            break
    return slowest


def _limit(what: int, value: int) -> None:
    resource.setrlimit(what, (value, resource.getrlimit(what)[1]))


if __name__ == "__main__":
    main(Connection(int(sys.argv[1])), int(sys.argv[2]))
