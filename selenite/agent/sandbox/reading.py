"""Reading a working directory that somebody hostile may have filled.

No symbolic link is followed, nothing but regular files is opened, and what is read is bounded: a
file with holes can claim to be far larger than the disk. Nobody changes anything meanwhile: all
this happens between runs. ``root`` is an open descriptor of the directory.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import BinaryIO

from selenite.errors import ConfigError, StorageError

LONGEST_PATH = 2000
"""Bytes of a path. The kernel takes 4095, and a copy may lie deeper than what is copied."""


@dataclass(frozen=True)
class Entry:
    """Something below the working directory."""

    path: str  # relative; bytes that are not UTF-8 as Python's os module has them
    mode: int
    size: int  # bytes; of a symbolic link: of its target's name
    modified: int  # nanoseconds

    @property
    def is_readable(self) -> bool:
        """Whether it is a regular file that its owner may read."""
        return stat.S_ISREG(self.mode) and bool(self.mode & stat.S_IRUSR)

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.mode)

    @property
    def is_closed(self) -> bool:
        """Whether it is a folder that its owner may not read, or one too deep down."""
        is_deep = len(os.fsencode(self.path)) > LONGEST_PATH
        return self.is_folder and (is_deep or self.mode & 0o500 != 0o500)


def walk(root: int) -> Iterator[Entry]:
    """All that is below in a fixed order, except what is in closed folders."""
    os.fchmod(root, 0o755)  # a run may have closed it
    pending = [""]
    while pending:
        folder = pending.pop()
        below = []
        for name in sorted(_names(root, folder)):
            path = f"{folder}/{name}" if folder else name
            found = os.stat(path, dir_fd=root, follow_symlinks=False)
            entry = Entry(path, found.st_mode, found.st_size, found.st_mtime_ns)
            yield entry
            if entry.is_folder and not entry.is_closed:
                below.append(path)
        pending += reversed(below)


def read(
    root: int, patterns: Sequence[str], most_bytes: int
) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """The files that a path or a pattern names, and the paths of those that were left out.

    Patterns are the shell's, of the whole path: ``*`` is any text, with slashes. Left out is
    what is no readable regular file, and what would make all together exceed ``most_bytes``.
    What lies in closed folders is not seen.
    """
    files: dict[str, bytes] = {}
    left_out = []
    for entry in walk(root) if patterns else ():
        is_asked_for = any(fnmatchcase(entry.path, pattern) for pattern in patterns)
        if entry.path not in patterns and not is_asked_for:
            continue
        if entry.is_readable and entry.size <= most_bytes:
            with _opened(root, entry) as file:
                files[entry.path] = file.read(entry.size)
            most_bytes -= entry.size
        elif entry.is_closed or not entry.is_folder:
            left_out.append(entry.path)
    return files, tuple(left_out)


def copy_out(root: int, directory: Path, most_bytes: int) -> tuple[str, ...]:
    """Copies all to a new directory; returns the paths that were left out, as ``read`` does.

    Symbolic links are copied as they are: they may point anywhere. Raises ``ConfigError``
    where the directory is there already, ``StorageError`` where it cannot be written.
    """
    if os.path.lexists(directory):
        raise ConfigError(f"{directory} is there already; name a directory that is not")
    left_out = []
    try:
        directory.mkdir(parents=True)
        for entry in walk(root):
            target = directory / entry.path
            if entry.is_folder:
                target.mkdir()
                target.chmod(entry.mode & 0o777 | 0o700)
            elif stat.S_ISLNK(entry.mode):
                target.symlink_to(os.readlink(entry.path, dir_fd=root))
            elif entry.is_readable and entry.size <= most_bytes:
                most_bytes -= entry.size
                with _opened(root, entry) as content, target.open("xb") as file:
                    shutil.copyfileobj(content, file)
                target.chmod(entry.mode & 0o777 | 0o600)
                os.utime(target, ns=(entry.modified, entry.modified))
            else:
                left_out.append(entry.path)
            if entry.is_closed:
                left_out.append(entry.path)
    except OSError as error:
        raise StorageError(f"{directory}: cannot be written ({error.strerror})") from error
    return tuple(left_out)


def _names(root: int, folder: str) -> list[str]:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    opened = os.open(folder or ".", flags, dir_fd=root)
    try:
        return os.listdir(opened)
    finally:
        os.close(opened)


def _opened(root: int, entry: Entry) -> BinaryIO:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    return open(os.open(entry.path, flags, dir_fd=root), "rb")
