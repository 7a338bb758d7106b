"""Writing into a working directory that somebody hostile may have filled.

A path is followed a folder at a time and never through a symbolic link: what lies in the way of
ours is taken away, so that nobody inside decides where our files go. Nobody changes anything
meanwhile: all this happens between runs.
"""

from __future__ import annotations

import itertools
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from selenite.agent.sandbox.reading import LONGEST_PATH
from selenite.errors import ConfigError, StorageError

ASIDE = "../aside"
"""A folder beside the working directory, out of reach of runs. Folders in the way go there, since
removing one that somebody hostile made can take for ever."""
_LONGEST_NAME = 255  # bytes


class Writer:
    """Writes into a directory, by an open descriptor, which stays the caller's.

    Args:
        owner: user and group to whom all that is written belongs; None: those of this process.
    """

    def __init__(self, root: int, owner: int | None) -> None:
        self._root = root
        self._owner = owner
        self._serial = itertools.count()

    def write(self, files: Mapping[str, bytes]) -> None:
        """Writes files, with their folders; whatever else has their places is removed.

        Raises ``ConfigError`` for a name that leaves the directory, and ``StorageError`` where the
        disk is full.
        """
        for name in files:
            _check(name)
        for name, content in files.items():
            with _storing(name), self._created(name, 0o644) as file:
                file.write(content)

    def copy_in(self, directory: Path) -> None:
        """Copies a directory's files, folders and symbolic links, with modes and times.

        Raises ``ConfigError`` where it is none, cannot be read or holds something else, and
        ``StorageError`` where the disk is full.
        """
        if not directory.is_dir():
            raise ConfigError(f"{directory}: a session starts from a directory, and this is none")
        for folder, folders, names in os.walk(directory):
            for name in (*folders, *names):
                source = Path(folder, name)
                path = source.relative_to(directory).as_posix()
                if source.is_symlink():
                    with _storing(path):
                        self._link(path, os.readlink(source))
                elif source.is_dir():
                    with _storing(path), self._within(path) as made:
                        os.fchmod(made, source.stat().st_mode & 0o777 | 0o700)
                elif source.is_file() and os.access(source, os.R_OK):
                    found = source.stat()
                    with (
                        source.open("rb") as content,
                        _storing(path),
                        self._created(path, found.st_mode & 0o777 | 0o600) as file,
                    ):
                        shutil.copyfileobj(content, file)
                        file.flush()
                        os.utime(file.fileno(), ns=(found.st_mtime_ns, found.st_mtime_ns))
                else:
                    raise ConfigError(
                        f"{source}: must be a file that can be read, a folder or a symbolic link; "
                        "remove it"
                    )

    @contextmanager
    def _created(self, path: str, mode: int) -> Iterator[BinaryIO]:
        """A new file in the place of whatever is there."""
        folder, _, name = path.rpartition("/")
        with self._within(folder) as parent:
            self._clear(parent, name)
            new = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            with open(os.open(name, new, 0o600, dir_fd=parent), "wb") as file:
                self._own(name, parent)
                yield file
                os.fchmod(file.fileno(), mode)

    def _link(self, path: str, target: str) -> None:
        folder, _, name = path.rpartition("/")
        with self._within(folder) as parent:
            self._clear(parent, name)
            os.symlink(target, name, dir_fd=parent)
            self._own(name, parent)

    @contextmanager
    def _within(self, path: str) -> Iterator[int]:
        """A folder that this process may write into, in the place of whatever is there."""
        parent = os.dup(self._root)
        try:
            os.fchmod(parent, 0o755)
            for name in path.split("/") if path else ():
                below = self._folder(parent, name)
                os.close(parent)
                parent = below
            yield parent
        finally:
            os.close(parent)

    def _folder(self, parent: int, name: str) -> int:
        if not stat.S_ISDIR(_mode(parent, name)):
            self._clear(parent, name)
            os.mkdir(name, dir_fd=parent)
            self._own(name, parent)
        os.chmod(name, stat.S_IMODE(_mode(parent, name)) | 0o755, dir_fd=parent)
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)

    def _clear(self, parent: int, name: str) -> None:
        """Takes away what has a name."""
        mode = _mode(parent, name)
        if stat.S_ISDIR(mode):
            os.chmod(name, 0o700, dir_fd=parent)
            aside = f"{ASIDE}/{next(self._serial)}"
            os.rename(name, aside, src_dir_fd=parent, dst_dir_fd=self._root)
        elif mode:
            os.unlink(name, dir_fd=parent)

    def _own(self, name: str, parent: int) -> None:
        if self._owner is not None:
            os.chown(name, self._owner, self._owner, dir_fd=parent, follow_symlinks=False)


def _mode(parent: int, name: str) -> int:
    """What a name stands for; 0 where there is nothing of that name."""
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return 0


@contextmanager
def _storing(path: str) -> Iterator[None]:
    """Raises ``StorageError`` for an ``OSError`` of writing into the working directory."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{path!r} cannot be written into the sandbox ({error.strerror}); raise disk_bytes, or "
            "let a run remove files"
        ) from error


def _check(name: str) -> None:
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\0" in name:
        raise ConfigError(
            f"files: {name!r} must be a relative path of plain names, as in 'tests/data.json'"
        )
    longest = max(len(os.fsencode(part)) for part in parts)
    if longest > _LONGEST_NAME or len(os.fsencode(name)) > LONGEST_PATH:
        raise ConfigError(f"files: {name[:60]!r}… is too long for a path; shorten it")
