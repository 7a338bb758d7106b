"""Grammars compiled in a process of their own: a schema from a stranger can take for ever.

The process takes one source at a time and may use so much time and memory for it; one that takes
more ends the process, not the server, and the next source starts another. Messages are JSON; the
compiled grammar comes back in xgrammar's own serialised form.

The process itself:

    python -m selenite.serve.grammar_process FD
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections import OrderedDict
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Literal

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
_CACHED_BYTES = 64 * 2**20  # of compiled grammars, here and there
_CACHED_FAILURES = 1000


class GrammarProcess:
    """Compiles for one vocabulary; started when it is first needed, and after it was ended.

    For one thread at a time.
    """

    def __init__(self, info: xgrammar.TokenizerInfo, seconds: int = _SECONDS) -> None:
        self._info = info
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None
        self._is_ready = False
        self._known: OrderedDict[tuple[Kind, str], xgrammar.CompiledGrammar] = OrderedDict()
        self._num_bytes = 0
        self._failed: OrderedDict[tuple[Kind, str], str] = OrderedDict()

    def compile(self, kind: Kind, source: str) -> xgrammar.CompiledGrammar:
        """The grammar of a regular expression, or of a structural tag in JSON.

        Raises ``ConfigError`` with the compiler's reason, and where it takes too long.
        """
        asked = kind, source
        if asked in self._failed:
            self._failed.move_to_end(asked)
            raise ConfigError(self._failed[asked])
        if asked not in self._known:
            try:
                self._keep(asked, self._compile(kind, source))
            except ConfigError as error:
                self._failed[asked] = str(error)
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

        pipe = self._ready()
        try:
            pipe.send_bytes(json.dumps({"kind": kind, "source": source}).encode())
            answer = json.loads(self._receive(pipe, self._seconds))
        except (EOFError, ConnectionError, TimeoutError) as error:
            self.close()
            raise ConfigError(
                f"it takes more than {self._seconds} seconds or {_DATA_BYTES // 2**20} MiB"
            ) from error
        if "error" in answer:
            raise ConfigError(answer["error"])
        return xgrammar.CompiledGrammar.deserialize_json(answer["compiled"], self._info)

    def _ready(self) -> Connection:
        self.start()
        assert self._pipe is not None
        if not self._is_ready:
            try:
                self._pipe.send_bytes(self._info.serialize_json().encode())
                self._receive(self._pipe, _START_SECONDS)
            except (EOFError, ConnectionError, TimeoutError) as error:
                self.close()
                raise UnavailableError(
                    "the process that compiles grammars does not start; the server's log says why"
                ) from error
            self._is_ready = True
        return self._pipe

    @staticmethod
    def _receive(pipe: Connection, seconds: float) -> bytes:
        if not pipe.poll(seconds):
            raise TimeoutError
        return pipe.recv_bytes()

    def _keep(self, asked: tuple[Kind, str], compiled: xgrammar.CompiledGrammar) -> None:
        self._known[asked] = compiled
        self._num_bytes += compiled.memory_size_bytes
        while self._num_bytes > _CACHED_BYTES and len(self._known) > 1:
            _, oldest = self._known.popitem(last=False)
            self._num_bytes -= oldest.memory_size_bytes


def main(pipe: Connection, seconds: int) -> None:
    """Compiles until the other end of the pipe is gone."""
    import xgrammar

    info = xgrammar.TokenizerInfo.deserialize_json(pipe.recv_bytes().decode())
    compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_limit_bytes=_CACHED_BYTES)
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


def _compiled(compiler: xgrammar.GrammarCompiler, kind: Kind, source: str) -> dict[str, str]:
    compile = compiler.compile_regex if kind == "regex" else compiler.compile_structural_tag
    try:
        return {"compiled": compile(source).serialize_json()}
    except (RuntimeError, ValueError, RecursionError) as error:  # the library has no other
        reason = str(error).splitlines()[0].rpartition(": ")[2] if str(error) else repr(error)
        return {"error": reason}


def _limit(what: int, value: int) -> None:
    resource.setrlimit(what, (value, resource.getrlimit(what)[1]))


if __name__ == "__main__":
    main(Connection(int(sys.argv[1])), int(sys.argv[2]))
