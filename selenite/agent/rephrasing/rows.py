"""Rows on disk: JSON lines, compressed, whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from selenite.atomic import sha256
from selenite.errors import MissingExtraError, StorageError

_LEVEL = 6


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    """Writes a file, and gives its SHA-256; the same rows make the same bytes.

    Raises ``StorageError`` when the disk refuses, ``MissingExtraError`` without zstandard.
    """
    text = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(_zstandard().ZstdCompressor(level=_LEVEL).compress(text.encode()))
        part.replace(path)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror or error})") from error
    return sha256(path)


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file that ``write_rows`` wrote."""
    raw = _zstandard().ZstdDecompressor().decompress(path.read_bytes())
    yield from map(json.loads, raw.decode().split("\n")[:-1])  # no other sign ends a line


def _zstandard() -> ModuleType:
    try:
        import zstandard
    except ModuleNotFoundError as error:
        raise MissingExtraError("zstandard", "agent", "compressed rows") from error
    return zstandard
