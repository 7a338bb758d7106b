"""Sources whose documents are rows: JSON lines, parquet tables and Hugging Face data sets.

Rows are read in order until the byte limit is reached: they cannot be chosen without being read.
The file of a row is its package, so that whole files can be held out. See ``sources.py``.
"""

from __future__ import annotations

import glob
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from selenite.config import Config
from selenite.data.documents import (
    Document,
    OnInvalidUtf8,
    ReadReport,
    SourceFile,
    decode,
    has_utf8,
    reading,
)
from selenite.errors import DataError, MissingExtraError

_CHUNK = 1 << 20  # bytes of a compressed file read at a time


class JsonlSource(Config):
    """One JSON object a line, plain or compressed (``.gz``, ``.zst``)."""

    kind: Literal["jsonl"] = "jsonl"
    paths: tuple[str, ...] = Field(min_length=1)  # files or globs
    text_field: str = "text"
    on_invalid_utf8: OnInvalidUtf8 = "error"

    def files(self) -> list[SourceFile]:
        """The files, sorted; raises ``DataError`` for a pattern that matches none."""
        return expand(self.paths, self.kind)

    def documents(self, max_bytes: int | None, report: ReadReport) -> Iterator[Document]:
        """Documents in the order of file and line, until ``max_bytes`` are reached."""
        return _limit(self._rows(report), max_bytes, report)

    def _rows(self, report: ReadReport) -> Iterator[Document]:
        for file in self.files():
            with reading(file.file):
                for number, line in numbered_lines(file.file):
                    text = self._text(line, f"{file.file}, line {number}", report)
                    if text is not None:
                        yield Document(text, self.kind, file.package, f"{file.path}:{number}")

    def _text(self, line: bytes, place: str, report: ReadReport) -> str | None:
        """The text in a line, or ``None`` where it is blank or skipped (and counted)."""
        decoded = decode(line, place, self.on_invalid_utf8, report)
        if decoded is None or not decoded.strip():
            return None
        text = _text_of(parse_json(decoded, place), self.text_field, place)
        return text if has_utf8(text, place, self.on_invalid_utf8, report) else None


class ParquetSource(Config):
    """Parquet files with a column of text."""

    kind: Literal["parquet"] = "parquet"
    paths: tuple[str, ...] = Field(min_length=1)  # files or globs
    text_field: str = "text"

    def files(self) -> list[SourceFile]:
        """The files, sorted; raises ``DataError`` for a pattern that matches none."""
        return expand(self.paths, self.kind)

    def documents(self, max_bytes: int | None, report: ReadReport) -> Iterator[Document]:
        """Documents in the order of file and row, until ``max_bytes`` are reached."""
        return _limit(self._rows(), max_bytes, report)

    def _rows(self) -> Iterator[Document]:
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError as error:
            raise MissingExtraError("pyarrow", "train", "reading parquet files") from error
        for file in self.files():
            try:
                with reading(file.file):
                    table = parquet.ParquetFile(file.file)
                    yield from self._rows_of(table, file)
            except pyarrow.ArrowException as error:
                raise DataError(
                    f"{file.file}: not a readable parquet file ({error}); write it again"
                ) from error

    def _rows_of(self, table: Any, file: SourceFile) -> Iterator[Document]:
        names = table.schema_arrow.names
        if self.text_field not in names:
            raise DataError(
                f"{file.file}: no column {self.text_field!r}; set text_field to one of {names}"
            )
        number = 0
        for batch in table.iter_batches(columns=[self.text_field]):
            for scalar in batch.column(0):
                number += 1
                place = f"{file.file}, row {number}"
                try:
                    value = scalar.as_py()
                except UnicodeDecodeError as error:
                    raise DataError(
                        f"{place}: not UTF-8 (byte {error.start}); write the file again"
                    ) from error
                text = _text_of({self.text_field: value}, self.text_field, place)
                yield Document(text, self.kind, file.package, f"{file.path}:{number}")


class HfSource(Config):
    """A data set of the Hugging Face hub, streamed; needs the extra ``datasets`` and a network."""

    kind: Literal["hf"] = "hf"
    path: str
    name: str | None = None
    split: str = "train"
    revision: str | None = None  # pin it: the cache key is this config alone
    text_field: str = "text"

    def files(self) -> list[SourceFile]:
        """None on this machine: the cache key of this source is its config."""
        return []

    def documents(self, max_bytes: int | None, report: ReadReport) -> Iterator[Document]:
        """Documents in the order of rows, until ``max_bytes`` are reached."""
        return _limit(self._rows(), max_bytes, report)

    def _rows(self) -> Iterator[Document]:
        try:
            import datasets
        except ImportError as error:
            raise MissingExtraError("datasets", "datasets", f"the source {self.path!r}") from error
        try:
            rows = datasets.load_dataset(
                self.path, self.name, split=self.split, revision=self.revision, streaming=True
            )
            for number, row in enumerate(rows, start=1):
                text = _text_of(row, self.text_field, f"{self.path}, row {number}")
                yield Document(text, self.kind, self.path, f"{self.path}:{number}")
        except DataError:
            raise
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            raise DataError(
                f"data set {self.path!r} (name={self.name!r}, split={self.split!r}, "
                f"revision={self.revision!r}) cannot be read: {error}; mend the source, or check "
                "the network and the access to it"
            ) from error


def expand(patterns: tuple[str, ...], source: str) -> list[SourceFile]:
    """The files of patterns, sorted, each once; ``DataError`` for a pattern that matches none."""
    found: dict[Path, SourceFile] = {}
    for pattern in patterns:
        with reading(pattern):
            names = [pattern] if Path(pattern).is_file() else glob.glob(pattern, recursive=True)
            files = {Path(name): Path(name).stat() for name in names if Path(name).is_file()}
        if not files:
            raise DataError(f"{pattern}: no such file; mend the paths of the {source} source")
        for file, status in files.items():
            package = file.name.split(".")[0]
            found[file] = SourceFile(
                file, source, package, file.name, status.st_size, status.st_mtime_ns
            )
    return [found[file] for file in sorted(found)]


def _limit(
    documents: Iterator[Document], max_bytes: int | None, report: ReadReport
) -> Iterator[Document]:
    """Passes on documents until their bytes reach the limit; empty ones are counted instead."""
    total = 0
    for document in documents:
        if not document.text.strip():
            report.empty += 1
            continue
        yield document
        total += len(document.text.encode())
        if max_bytes is not None and total >= max_bytes:
            return


def numbered_lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers from 1 on, decompressed by the file's suffix."""
    if file.suffix == ".zst":
        yield from enumerate(_zstd_lines(file), start=1)
    elif file.suffix == ".gz":
        try:
            with gzip.open(file, "rb") as lines:
                yield from enumerate(lines, start=1)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise _damaged(file, str(error)) from error
    else:
        with file.open("rb") as plain:
            yield from enumerate(plain, start=1)


def _zstd_lines(file: Path) -> Iterator[bytes]:
    try:
        import zstandard
    except ImportError as error:
        raise MissingExtraError("zstandard", "train", f"reading {file}") from error
    # The library's own file reader takes a file that was cut short for a whole one.
    frame = zstandard.ZstdDecompressor().decompressobj()
    pending = b""
    try:
        with file.open("rb") as stream:
            while raw := stream.read(_CHUNK):
                while raw:
                    if frame.eof:  # a file may have several frames end to end
                        frame = zstandard.ZstdDecompressor().decompressobj()
                    *lines, pending = (pending + frame.decompress(raw)).split(b"\n")
                    yield from lines
                    raw = frame.unused_data
    except zstandard.ZstdError as error:
        raise _damaged(file, str(error)) from error
    if not frame.eof:
        raise _damaged(file, "it ends within a frame")
    yield pending


def _damaged(file: Path, fault: str) -> DataError:
    return DataError(f"{file}: the compressed file is damaged ({fault}); copy or write it again")


def parse_json(line: str, place: str) -> Any:
    """The value of a line; ``place`` opens the message of the ``DataError``."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:  # the latter: nested without end
        raise DataError(f"{place}: not JSON ({error}); mend or remove the line") from error


def _text_of(row: Any, field: str, place: str) -> str:
    if not isinstance(row, dict) or field not in row:
        keys = list(row) if isinstance(row, dict) else type(row).__name__
        raise DataError(f"{place}: no field {field!r}; set text_field to one of {keys}")
    if not isinstance(row[field], str):
        raise DataError(
            f"{place}: {field!r} holds {type(row[field]).__name__}, not text; mend the row or set "
            "text_field"
        )
    return row[field]
