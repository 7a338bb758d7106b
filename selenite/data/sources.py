"""Where text comes from: one config model for each kind of source, told apart by ``kind``.

This file has the sources made of text files (``python``, ``folder``); ``rows.py`` has those made
of rows (``jsonl``, ``parquet``, ``hf``). Each lists its files for the cache key and yields
``Document`` in a fixed order. Read by ``prepare.py``.
"""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from selenite.config import Config
from selenite.data.documents import (
    Document,
    OnInvalidUtf8,
    ReadReport,
    SourceFile,
    choose_within,
    read_document,
    reading,
)
from selenite.data.rows import HfSource, JsonlSource, ParquetSource
from selenite.errors import DataError

_TEXT_SUFFIXES = (".py", ".md", ".rst", ".txt")
_NOT_OUR_TEXT = ("__pycache__", "site-packages", "_vendor", "vendor", "node_modules")


class PythonSource(Config):
    """The standard library and the installed packages of this Python: code and documentation.

    A package is a top-level folder or module (``json``, ``numpy``); a ``.dist-info`` folder
    belongs to its package.
    """

    kind: Literal["python"] = "python"
    packages: tuple[str, ...] = ()  # empty: all
    exclude_folders: tuple[str, ...] = (*_NOT_OUR_TEXT, "test", "tests")
    min_file_bytes: int = Field(default=256, ge=0)
    max_file_bytes: int = Field(default=200_000, ge=1)  # above: mostly tables, by experience
    on_invalid_utf8: OnInvalidUtf8 = "skip"  # others' files: the user cannot mend them

    def files(self) -> list[SourceFile]:
        """All candidate files, sorted; raises ``DataError`` for a package that is not there."""
        found = [
            file
            for root in self._roots()
            for file in _walk(root, "python", set(self.exclude_folders), _TEXT_SUFFIXES)
            if self.min_file_bytes <= file.num_bytes <= self.max_file_bytes
        ]
        if self.packages:
            missing = set(self.packages) - {file.package for file in found}
            if missing:
                raise DataError(
                    f"packages {sorted(missing)} are not installed here (or hold no text): "
                    "install them, or take them out of the source's packages"
                )
            found = [file for file in found if file.package in self.packages]
        found.sort(key=lambda file: file.key)
        return _require(found, "the installed Python packages", "name other packages")

    def documents(self, max_bytes: int | None, report: ReadReport) -> Iterator[Document]:
        """Documents of about ``max_bytes`` in total, chosen by a hash of the relative path."""
        return _read_all(choose_within(self.files(), max_bytes), self.on_invalid_utf8, True, report)

    @staticmethod
    def _roots() -> list[Path]:
        paths = sysconfig.get_paths()
        unique = dict.fromkeys(paths[name] for name in ("stdlib", "purelib", "platlib"))
        return [Path(path) for path in unique]


class FolderSource(Config):
    """Text files under a folder. A package is a sub-folder of the first level."""

    kind: Literal["folder"] = "folder"
    path: str
    include: tuple[str, ...] = tuple(f"**/*{suffix}" for suffix in _TEXT_SUFFIXES)
    exclude: tuple[str, ...] = ()  # globs on the path below the folder
    max_file_bytes: int = Field(default=10_000_000, ge=1)
    skip_generated: bool = False
    on_invalid_utf8: OnInvalidUtf8 = "error"

    def files(self) -> list[SourceFile]:
        """All matching files, sorted; raises ``DataError`` where the folder is not there."""
        root = Path(self.path)
        with reading(root):
            found = list(self._matching(root))
        return _require(found, f"{root} with include={list(self.include)}", "widen include")

    def _matching(self, root: Path) -> Iterator[SourceFile]:
        if not root.is_dir():
            raise DataError(f"{root}: no such folder; mend the source's path")
        matching = {file for pattern in self.include for file in root.glob(pattern)}
        matching -= {file for pattern in self.exclude for file in root.glob(pattern)}
        for file in sorted(matching):
            if not file.is_file():
                continue
            relative = file.relative_to(root)
            package = relative.parts[0] if len(relative.parts) > 1 else root.resolve().name
            described = _describe(file, "folder", package, relative.as_posix())
            if described.num_bytes <= self.max_file_bytes:
                yield described

    def documents(self, max_bytes: int | None, report: ReadReport) -> Iterator[Document]:
        """Documents of about ``max_bytes`` in total, chosen by a hash of the relative path."""
        chosen = choose_within(self.files(), max_bytes)
        return _read_all(chosen, self.on_invalid_utf8, self.skip_generated, report)


Source = Annotated[
    PythonSource | FolderSource | JsonlSource | ParquetSource | HfSource,
    Field(discriminator="kind"),
]


def _walk(
    root: Path, source: str, exclude_folders: set[str], suffixes: tuple[str, ...]
) -> Iterator[SourceFile]:
    """Text files under ``root``, in an order that depends on their names alone."""
    folders = [""]  # below root; plain strings, for there may be tens of thousands of files
    while folders:
        folder = folders.pop()
        with reading(root / folder), os.scandir(root / folder) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
        for entry in entries:
            if entry.name.endswith(suffixes) and entry.is_file():
                path = folder + entry.name
                with reading(entry.path):
                    status = entry.stat()
                yield SourceFile(
                    Path(entry.path),
                    source,
                    _package(path),
                    path,
                    status.st_size,
                    status.st_mtime_ns,
                )
            elif entry.is_dir(follow_symlinks=False) and entry.name not in exclude_folders:
                folders.append(f"{folder}{entry.name}/")


def _package(path: str) -> str:
    """``numpy/x.py`` is of ``numpy``, ``ast.py`` of ``ast``, ``rich-1.2.dist-info`` of ``rich``."""
    first, _, rest = path.partition("/")
    if not rest:
        return first.rpartition(".")[0]
    if first.endswith((".dist-info", ".egg-info")):
        return first.split("-")[0]
    return first


def _describe(file: Path, source: str, package: str, path: str) -> SourceFile:
    status = file.stat()
    return SourceFile(file, source, package, path, status.st_size, status.st_mtime_ns)


def _read_all(
    files: Iterable[SourceFile], policy: OnInvalidUtf8, skip_generated: bool, report: ReadReport
) -> Iterator[Document]:
    for file in files:
        document = read_document(file, policy, skip_generated, report)
        if document is not None:
            yield document


def _require(found: list[SourceFile], where: str, remedy: str) -> list[SourceFile]:
    if not found:
        raise DataError(f"{where}: no text file found there; {remedy}")
    return found
