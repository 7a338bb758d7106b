"""Pinned files, from a real server of the same paths: whole or not at all, and only what is due."""

from __future__ import annotations

import functools
import hashlib
import threading
from collections.abc import Iterator
from http.server import (
    BaseHTTPRequestHandler,
    HTTPServer,
    SimpleHTTPRequestHandler,
    ThreadingHTTPServer,
)
from pathlib import Path

import pytest

from selenite.errors import ConfigError, DataError
from selenite.eval import pinned
from selenite.eval.pinned import PinnedFiles, located

CONTENT = {"a.json": b"[1]\n", "deep/b.txt": b"two\r\n"}
FILES = PinnedFiles(
    "owner/name", "c0ffee" * 6, {p: hashlib.sha256(c).hexdigest() for p, c in CONTENT.items()}
)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


def written(folder: Path) -> Path:
    for path, content in CONTENT.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A server of the files, and the folder that it serves them from."""
    root = tmp_path / "served"
    handler = functools.partial(Quiet, directory=str(root))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(pinned, "_RAW", f"http://127.0.0.1:{server.server_address[1]}")
        yield written(root / FILES.repository / FILES.commit)
        server.shutdown()


def test_files_are_downloaded_once(served: Path, tmp_path: Path) -> None:
    folder = located(FILES, cache=tmp_path / "cache")
    assert {p: (folder / p).read_bytes() for p in CONTENT} == CONTENT
    for path in CONTENT:
        (served / path).unlink()
    assert located(FILES, cache=tmp_path / "cache") == folder


def test_a_download_that_fails_leaves_nothing_and_says_what_to_do(
    served: Path, tmp_path: Path
) -> None:
    (served / "deep" / "b.txt").unlink()
    with pytest.raises(ConfigError, match=r"owner/name, check out (c0ffee){6}.*--data") as caught:
        located(FILES, cache=tmp_path / "cache")
    target = tmp_path / "cache" / "benchmarks" / "owner-name-c0ffeec0ffee"
    assert str(target) in str(caught.value)
    assert [*target.parent.iterdir()] == []
    assert located(FILES, cache=written(target).parents[1]) == target


def test_another_file_is_refused(served: Path, tmp_path: Path) -> None:
    (served / "a.json").write_bytes(b"[2]\n")
    with pytest.raises(DataError, match=r"a\.json: SHA-256 is"):
        located(FILES, cache=tmp_path / "cache")
    own = written(tmp_path / "own")
    assert located(FILES, own) == own
    (own / "a.json").write_bytes(b"[1]")
    with pytest.raises(DataError, match=r"a\.json: SHA-256 is"):
        located(FILES, own)
    (own / "a.json").unlink()
    with pytest.raises(ConfigError, match=r"a\.json is not in it; clone"):
        located(FILES, own)


def test_a_download_that_ends_too_early_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Breaks(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"half")

        def log_message(self, *arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Breaks) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(pinned, "_RAW", f"http://127.0.0.1:{server.server_address[1]}")
        with pytest.raises(ConfigError, match=r"cannot be downloaded \(IncompleteRead"):
            located(FILES, cache=tmp_path)
        server.shutdown()
