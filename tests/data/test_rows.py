"""Sources made of rows: plain, compressed and parquet give the same text; bad rows are named."""

from __future__ import annotations

import gzip
import json
import sys

import pyarrow
import pytest
import zstandard
from pyarrow import parquet

from selenite.data.documents import ReadReport
from selenite.data.rows import HfSource, JsonlSource, ParquetSource
from selenite.errors import DataError, MissingExtraError

TEXTS = ["first é", "second\nline", "third"]
LINES = "".join(json.dumps({"text": text, "n": 1}) + "\n" for text in TEXTS).encode()


def _read(source, max_bytes=None, report=None):
    return list(source.documents(max_bytes, report or ReadReport()))


def _jsonl(*paths, **changes):
    return JsonlSource(paths=[str(path) for path in paths], **changes)


def test_plain_and_compressed_lines_give_the_same_text(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(LINES)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(LINES))
    (tmp_path / "c.jsonl.zst").write_bytes(zstandard.compress(LINES))
    for name in ("a.jsonl", "b.jsonl.gz", "c.jsonl.zst"):
        documents = _read(_jsonl(tmp_path / name))
        assert [document.text for document in documents] == TEXTS
        assert documents[1].path == f"{name}:2"
    together = _read(_jsonl(tmp_path / "*.jsonl*"))
    assert [document.package for document in together] == ["a"] * 3 + ["b"] * 3 + ["c"] * 3


def test_parquet_gives_its_column_of_text(tmp_path):
    file = tmp_path / "t.parquet"
    parquet.write_table(pyarrow.table({"body": TEXTS}), file)
    documents = _read(ParquetSource(paths=(str(file),), text_field="body"))
    assert [document.text for document in documents] == TEXTS
    with pytest.raises(DataError, match=r"t.parquet: no column 'text'; .*\['body'\]"):
        _read(ParquetSource(paths=(str(file),)))
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"t.parquet: not a readable parquet file"):
        _read(ParquetSource(paths=(str(file),), text_field="body"))


def test_parquet_that_is_not_utf8_names_the_row(tmp_path):
    file = tmp_path / "t.parquet"
    good, bad = b"fine", b"\xff\xfe"
    offsets = pyarrow.array([0, len(good), len(good) + len(bad)], pyarrow.int32())
    column = pyarrow.StringArray.from_buffers(
        2, offsets.buffers()[1], pyarrow.py_buffer(good + bad)
    )
    parquet.write_table(pyarrow.table({"text": column}), file)
    with pytest.raises(DataError, match=r"t\.parquet, row 2: not UTF-8 \(byte 0\)"):
        _read(ParquetSource(paths=(str(file),)))


def test_the_byte_limit_ends_reading_and_empty_rows_are_counted(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"text": " "}\n\n' + LINES)
    report = ReadReport()
    assert [document.text for document in _read(_jsonl(file), 8, report)] == TEXTS[:1]
    assert report.empty == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"text": "cut', r"a.jsonl, line 4: not JSON"),
        (b'{"body": "x"}', r"a.jsonl, line 4: no field 'text'; .*\['body'\]"),
        (b'["x"]', r"a.jsonl, line 4: no field 'text'; .* list"),
        (b'{"text": 7}', r"a.jsonl, line 4: 'text' holds int"),
        (b'{"text": "\xff"}', r"a.jsonl, line 4: not UTF-8"),
        (rb'{"text": "ab\ud83d"}', r"a.jsonl, line 4: character 2 is '\\ud83d', half of a"),
        (b"[" * 100_000, r"a.jsonl, line 4: not JSON"),
        (b'{"text": ' + b"9" * 5000 + b"}", r"a.jsonl, line 4: not JSON"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    file = tmp_path / "a.jsonl"
    file.write_bytes(LINES + line + b"\n")
    with pytest.raises(DataError, match=message):
        _read(_jsonl(file))


@pytest.mark.parametrize("text", [b"\xff", rb"\ud83d"])
def test_a_line_that_is_not_utf8_can_be_skipped(tmp_path, text):
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"text": "' + text + b'"}\n' + LINES)
    report = ReadReport()
    documents = _read(_jsonl(file, on_invalid_utf8="skip"), report=report)
    assert [document.text for document in documents] == TEXTS
    assert report.invalid_utf8 == [f"{file}, line 1"]


@pytest.mark.parametrize(
    ("name", "compress"), [("a.jsonl.gz", gzip.compress), ("a.jsonl.zst", zstandard.compress)]
)
@pytest.mark.parametrize("damage", ["cut", "flipped", "not compressed"])
def test_a_damaged_compressed_file_is_named(tmp_path, name, compress, damage):
    whole = compress(LINES * 500)
    middle = len(whole) // 2
    damaged = {
        "cut": whole[:middle],
        "flipped": whole[:middle] + bytes([whole[middle] ^ 0xFF]) + whole[middle + 1 :],
        "not compressed": LINES,
    }[damage]
    (tmp_path / name).write_bytes(damaged)
    with pytest.raises(DataError, match=name):
        _read(_jsonl(tmp_path / name))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none-\*.jsonl: no such file"):
        _jsonl(tmp_path / "none-*.jsonl").files()


@pytest.mark.parametrize("name", ["b.jsonl", "b.jsonl.gz", "b.jsonl.zst", "b.parquet"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, name):
    """It vanishes after the files were listed; a refused permission takes the same way."""
    if name == "b.parquet":
        source = ParquetSource(paths=(str(tmp_path / "*.parquet"),))
        parquet.write_table(pyarrow.table({"text": TEXTS}), tmp_path / "a.parquet")
    else:
        source = _jsonl(tmp_path / "*.jsonl*")
        (tmp_path / "a.jsonl").write_bytes(LINES)
    (tmp_path / name).write_bytes(b"")
    documents = source.documents(None, ReadReport())
    next(documents)
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match=rf"{name}: cannot be read \(.*No such file"):
        list(documents)


def test_a_data_set_that_cannot_be_loaded_is_named(tmp_path):
    pytest.importorskip("datasets")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"data set .*empty.* cannot be read: .*; mend the source"):
        _read(HfSource(path=str(tmp_path / "empty")))


@pytest.mark.parametrize(
    ("module", "source", "extra"),
    [
        ("pyarrow", ParquetSource(paths=(__file__,)), "train"),
        ("zstandard", None, "train"),
        ("datasets", HfSource(path="some/set"), "datasets"),
    ],
)
def test_a_missing_package_names_its_extra(tmp_path, monkeypatch, module, source, extra):
    (tmp_path / "a.jsonl.zst").write_bytes(zstandard.compress(LINES))
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"{module}.*selenite\[{extra}\]"):
        _read(source or _jsonl(tmp_path / "a.jsonl.zst"))
