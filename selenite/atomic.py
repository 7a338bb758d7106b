"""Files that are on the disk whole or not at all, and what proves that they are.

The ground floor of everything that is saved: configs (``config.py``), metrics (``log.py``),
corpora (``data/build_folder.py``), checkpoints and summaries (``train/``).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

from selenite.errors import StorageError


class FileEntry(TypedDict):
    """How a file was when it was written."""

    size: int  # bytes
    sha256: str  # hexadecimal


def write_text(path: Path, text: str) -> None:
    """Writes ``text`` as UTF-8, as ``write_bytes`` does."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Writes ``content``: afterwards ``path`` has all of it, or is as it was before.

    Makes the folders above ``path``. Raises ``StorageError`` when the disk refuses.
    """
    with replacing(path) as part:
        part.write_bytes(content)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write beside ``path``, which takes its place at the end, or goes on an error.

    Makes the folders above ``path``. Raises ``StorageError`` when the disk refuses.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        sync(part)
        part.replace(path)
        sync(path.parent)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        with contextlib.suppress(OSError):  # there only after an error, which matters more
            part.unlink()


def remove_parts(folder: Path) -> None:
    """Removes what killed processes left below ``folder`` of files that they did not finish.

    Raises ``StorageError`` when the disk refuses.
    """
    for part in folder.rglob(".*.part"):
        owner = part.name.removesuffix(".part").rpartition(".")[2]
        if owner.isdigit() and not is_alive(int(owner)):
            try:
                part.unlink(missing_ok=True)
            except OSError as error:
                raise StorageError(f"{part}: cannot be removed ({error.strerror})") from error


def is_alive(process: int) -> bool:
    """Whether another process of this machine has a number. It is not asked for our own: whoever
    had it left what bears it before we came."""
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)  # signal 0 only asks
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    try:  # one that was killed keeps its number until its parent looks
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state != "Z"


def sync(path: Path) -> None:
    """Forces a file, or the names in a folder, to the disk; raises ``OSError`` if it refuses."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file; raises ``OSError`` if it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe_files(folder: Path) -> dict[str, FileEntry]:
    """Size and SHA-256 of every file below ``folder``, by its path there, sorted."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": sha256(path)}
        for path in files
    }
