"""A server of one's own: ``selenite serve MODEL`` as a child, on a free port of this machine."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from selenite.client.endpoint import Endpoint
from selenite.errors import EndpointError

_URL = re.compile(r"http://127\.0\.0\.1:\d+")
_SHUTDOWN_SECONDS = 15.0


@contextmanager
def child_server(model: Path, options: Sequence[str] = ()) -> Iterator[Endpoint]:
    """A server of ``model`` that is ready; it ends with the block, or with this process.

    ``options`` are further ones of ``selenite serve``. Only this process has the key. Raises
    ``EndpointError`` with what the server said when it does not start.
    """
    key = secrets.token_urlsafe(32)
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "selenite.client.tether", "serve", str(model)),
                *("--host", "127.0.0.1", "--port", "0", *options),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "SELENITE_API_KEY": key},
            start_new_session=True,  # a Ctrl-C at the terminal is for us alone
        )
        assert process.stdout is not None
        # Should the server say more, a full pipe would stop it.
        drain = threading.Thread(target=process.stdout.read, daemon=True)
        try:
            url = _url(process, errors, model)
            drain.start()
            yield Endpoint(url, key)
        finally:
            _end(process)
            if drain.ident is not None:
                drain.join()
            process.stdout.close()


def _url(process: subprocess.Popen[str], errors: IO[bytes], model: Path) -> str:
    """Reads what the server says until its address, which it says when the model is loaded."""
    assert process.stdout is not None
    for line in process.stdout:
        if found := _URL.search(line):
            return found[0]
    code = process.wait()
    errors.seek(0)
    said = errors.read().decode(errors="replace").strip()
    raise EndpointError(f"selenite serve {model}: ended with {code} before it was ready\n{said}")


def _end(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    process.terminate()
    try:
        process.wait(_SHUTDOWN_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
