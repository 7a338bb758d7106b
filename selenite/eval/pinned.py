"""Files of a public repository at one commit: downloaded once, checked by hash, never run."""

from __future__ import annotations

import http.client
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from selenite import atomic
from selenite.errors import ConfigError, DataError
from selenite.eval.wheels import cache_folder

_RAW = "https://raw.githubusercontent.com"
_SECONDS = 30.0  # that a server may be silent


@dataclass(frozen=True)
class PinnedFiles:
    """Some files, as they are at a commit."""

    repository: str  # owner/name on GitHub
    commit: str
    sha256: Mapping[str, str]  # by path in the repository

    @property
    def title(self) -> str:
        return f"{self.repository} {self.commit[:12]}"


def located(files: PinnedFiles, data: Path | None = None, cache: Path | None = None) -> Path:
    """The folder with the files at their paths: ``data``, or the cache, filled if it is not yet.

    Raises ``ConfigError`` where they cannot be had, with what to do, and ``DataError`` where one is
    another than the pinned one.
    """
    folder = data
    if folder is None:
        name = f"{files.repository.replace('/', '-')}-{files.commit[:12]}"
        folder = (cache or cache_folder()) / "benchmarks" / name
        if not folder.is_dir():
            _download(files, folder)
    for path in files.sha256:
        if not (folder / path).is_file():
            raise ConfigError(f"{folder}: {path} is not in it; {_remedy(files)}")
    check(files, folder)
    return folder


def check(files: PinnedFiles, folder: Path) -> None:
    """Raises ``DataError`` where a file is not the pinned one."""
    for path, pinned in files.sha256.items():
        digest = atomic.sha256(folder / path)
        if digest != pinned:
            raise DataError(
                f"{folder / path}: SHA-256 is {digest}, and {pinned} is the pinned one; take the "
                f"file of commit {files.commit}"
            )


def _download(files: PinnedFiles, folder: Path) -> None:
    """Fills the folder, whole or not at all."""
    base = f"{_RAW}/{files.repository}/{files.commit}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=folder.parent) as temporary:
        content = Path(temporary) / "content"
        for path in files.sha256:
            target = content / path
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with urllib.request.urlopen(f"{base}/{path}", timeout=_SECONDS) as response:
                    target.write_bytes(response.read())
            except (
                urllib.error.URLError,
                TimeoutError,
                ConnectionError,
                http.client.HTTPException,  # such as an end before all was there
            ) as error:
                raise ConfigError(
                    f"{base}/{path} cannot be downloaded ({error}); {_remedy(files)}, or put the "
                    f"same files into {folder}"
                ) from error
        check(files, content)
        try:
            content.rename(folder)
        except OSError:  # another process was faster
            if not folder.is_dir():
                raise


def _remedy(files: PinnedFiles) -> str:
    return (
        f"clone https://github.com/{files.repository}, check out {files.commit} there, and give "
        "the folder as --data"
    )
