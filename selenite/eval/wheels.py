"""Benchmarks out of wheels of the package index: downloaded once, checked by hash, never installed.

What is inside is data and, for their own checkers, code that runs in the sandbox only.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from selenite import atomic
from selenite.errors import DataError, EndpointError


@dataclass(frozen=True)
class Wheel:
    """A pinned release."""

    project: str
    version: str
    sha256: str

    @property
    def title(self) -> str:
        return f"{self.project} {self.version}"


def cache_folder() -> Path:
    """Where benchmarks are kept: ``SELENITE_CACHE``, or the user's own cache folder."""
    base = os.environ.get("SELENITE_CACHE")
    return Path(base).resolve() if base else Path.home() / ".cache" / "selenite"


def unpacked(wheel: Wheel, cache: Path | None = None) -> Path:
    """The folder with the wheel's content, downloaded with pip if it is not there yet.

    Raises ``EndpointError`` where the index does not give it, ``DataError`` where it gives
    something else.
    """
    folder = (cache or cache_folder()) / "benchmarks"
    target = folder / f"{wheel.project}-{wheel.version}"
    if target.is_dir():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as temporary:
        content = Path(temporary) / "content"
        with zipfile.ZipFile(_downloaded(wheel, Path(temporary))) as archive:
            archive.extractall(content)
        for path in (content, *content.rglob("*")):  # the sandbox's user reads it
            path.chmod(0o755 if path.is_dir() else 0o644)
        try:
            content.rename(target)
        except OSError:  # another process was faster
            if not target.is_dir():
                raise
    return target


def _downloaded(wheel: Wheel, folder: Path) -> Path:
    pinned = f"{wheel.project}=={wheel.version}"
    # No source archives: building one would run it.
    options = ["--no-deps", "--only-binary=:all:", "--quiet"]
    command = [sys.executable, "-m", "pip", "download", *options, "-d", str(folder), pinned]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise EndpointError(
            f"{pinned} cannot be downloaded: {ran.stderr.strip()[-300:]}; pip must reach a package "
            "index"
        )
    (file,) = folder.glob("*.whl")
    digest = atomic.sha256(file)
    if digest != wheel.sha256:
        raise DataError(
            f"{file.name}: SHA-256 is {digest}, and {wheel.sha256} is the pinned one; the index "
            "gave another file"
        )
    return file
