"""The directory of an episode: what its servers work on, made anew and gone afterwards.

    workspace/       where the servers run; agents know it as /workspace
    private/NAME/    what a server keeps for itself (a database, a graph)
    home/ tmp/ logs/ not state: what programs leave in such places, and what servers said

The first two are the state. A snapshot is a copy of them, and a new episode may begin with one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selenite.agent.mcp.git_state import is_journal, staged
from selenite.errors import StorageError

SHOWN = "/workspace"
"""What agents read and write in place of the directory, which is another in each episode."""

_STATE = ("workspace", "private")


class EpisodeDirectory:
    """Everything of one episode under ``root``."""

    def __init__(self, root: Path, start: Path | None = None) -> None:
        """``start`` is a snapshot. Raises ``StorageError`` when it is none or cannot be read, and
        when the disk refuses."""
        if start is not None and not (start / "workspace").is_dir():
            raise StorageError(f"{start}: no snapshot, for it has no folder 'workspace'")
        self.root = root.resolve()  # servers speak of resolved paths
        self.workspace = self.root / "workspace"
        try:
            if start is not None:
                _copy(start, self.root)
            for name in (*_STATE, "home", "tmp", "logs"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{start or root}: no episode can begin here ({error})") from error

    def private(self, server: str) -> Path:
        """The folder that a server has for itself."""
        folder = self.root / "private" / server
        folder.mkdir(exist_ok=True)
        return folder

    def log(self, server: str) -> Path:
        """The file of what a server says on stderr."""
        return self.root / "logs" / f"{server}.txt"

    def environment(self) -> dict[str, str]:
        """Variables that keep a server from the user's files and this machine's habits."""
        places = {"HOME": str(self.root / "home"), "TMPDIR": str(self.root / "tmp")}
        return places | {"LC_ALL": "C.UTF-8", "TZ": "UTC"}

    def snapshot(self, target: Path) -> None:
        """Copies the state to a new folder; raises ``StorageError`` if it cannot."""
        try:
            target.mkdir(parents=True)
            _copy(self.root, target)
        except OSError as error:
            raise StorageError(
                f"{target}: no snapshot can be written ({error}); name a folder that is not there"
            ) from error

    def digest(self) -> str:
        """Equal for equal names, kinds, modes and contents of all files; neither their order nor
        their times count."""
        total = hashlib.blake2b(digest_size=16)
        for name in _STATE:
            for path in sorted(_below(self.root / name)):
                relative = path.relative_to(self.root)
                if not is_journal(relative):
                    total.update(_entry(path, os.fsencode(relative)))
        return total.hexdigest()

    def real(self, value: Any) -> Any:
        """Arguments with the paths that agents know made those of this episode. Only a text that
        begins with such a path is one."""
        if isinstance(value, str):
            rest = value.removeprefix(SHOWN)
            return f"{self.workspace}{rest}" if rest != value and rest[:1] in ("", "/") else value
        if isinstance(value, dict):
            return {key: self.real(item) for key, item in value.items()}
        return list(map(self.real, value)) if isinstance(value, list) else value

    def shown(self, value: Any) -> Any:
        """Results with the paths of this episode made those that agents know."""
        if isinstance(value, str):
            return value.replace(str(self.workspace), SHOWN).replace(str(self.root), "/episode")
        if isinstance(value, dict):
            return {self.shown(key): self.shown(item) for key, item in value.items()}
        return list(map(self.shown, value)) if isinstance(value, list) else value


def _copy(source: Path, target: Path) -> None:
    for name in _STATE:
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, symlinks=True)


def _below(folder: Path) -> Iterator[Path]:
    for where, folders, files in os.walk(folder):
        yield from (Path(where) / name for name in (*folders, *files))


def _entry(path: Path, name: bytes) -> bytes:
    """A digest of one file. What goes away while we look was not there."""
    try:
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode):
            data = path.read_bytes()
            content = b"file" + (staged(data) if path.name == "index" else data)
        elif stat.S_ISLNK(mode):
            content = b"link" + os.fsencode(path.readlink())
        else:  # reading a pipe would wait
            content = b"folder" if stat.S_ISDIR(mode) else b"other"
    except FileNotFoundError:
        return b""
    is_program = b"x" if mode & stat.S_IXUSR else b"-"
    return hashlib.blake2b(name + b"\0" + is_program + content, digest_size=16).digest()
