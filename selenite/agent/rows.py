"""Rows on disk: JSON lines, compressed, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from selenite import atomic
from selenite.errors import DataError, MissingExtraError

_LEVEL = 6


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    """Writes a file, and gives its SHA-256; the same rows make the same bytes.

    Raises ``StorageError`` when the disk refuses, ``MissingExtraError`` without zstandard.
    """
    text = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
    atomic.write_bytes(path, _zstandard().ZstdCompressor(level=_LEVEL).compress(text.encode()))
    return atomic.sha256(path)


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file; raises ``DataError`` where it is missing or broken."""
    zstandard = _zstandard()
    try:
        text = zstandard.ZstdDecompressor().decompress(path.read_bytes()).decode()
    except (OSError, UnicodeDecodeError, zstandard.ZstdError) as error:
        raise broken(path, error) from error
    for line in text.split("\n"):  # nothing else ends a row: texts have other line breaks in them
        if line:
            yield _row_of(line, path)


def broken(path: Path, error: Exception) -> DataError:
    """The error of a file of a pipeline that cannot be read."""
    if isinstance(error, FileNotFoundError):
        return DataError(f"{path} is missing: call the command again that made it")
    reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
    return DataError(
        f"{path}: broken ({reason}); remove it and call the command again that made it"
    )


def _row_of(line: str, path: Path) -> dict[str, Any]:
    try:
        row = json.loads(line)
        if not isinstance(row, dict):
            raise ValueError(f"a row is no object: {line[:40]}")
    except ValueError as error:
        raise broken(path, error) from error
    return row


def _zstandard() -> ModuleType:
    try:
        import zstandard
    except ModuleNotFoundError as error:
        raise MissingExtraError("zstandard", "agent", "compressed rows") from error
    return zstandard
