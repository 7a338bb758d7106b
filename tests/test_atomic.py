"""Text that appears whole or not at all, on disks that refuse; hashes of files."""

from __future__ import annotations

import hashlib
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from selenite.atomic import (
    describe_files,
    remove_parts,
    replacing,
    sha256,
    sync,
    write_bytes,
    write_text,
)
from selenite.errors import StorageError


@contextmanager
def files_end_at(num_bytes: int) -> Iterator[None]:
    """Lets the kernel refuse writes beyond ``num_bytes`` of a file, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_text_appears_with_the_folders_above_it_and_replaces_the_old(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "note.txt"
    for text in ("first, longer", "é\n"):
        write_text(path, text)
        assert path.read_bytes() == text.encode()
        assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("size", [100, 1_000_000])  # refused at close, and in the middle
def test_a_refusing_disk_leaves_the_old_text(tmp_path: Path, size: int) -> None:
    path = tmp_path / "note.txt"
    write_text(path, "old")
    with files_end_at(50), pytest.raises(StorageError, match=r"note.txt: cannot be written \(File"):
        write_text(path, "x" * size)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_bytes_appear_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a" / "rows.bin"
    for content in (b"\xff\0" * 9, b""):
        write_bytes(path, content)
        assert path.read_bytes() == content
    with files_end_at(50), pytest.raises(StorageError, match=r"rows.bin: cannot be written \(File"):
        write_bytes(path, b"x" * 100)
    with pytest.raises(StorageError, match="cannot be written"):
        write_bytes(path.parent, b"x")  # a folder
    assert list(tmp_path.rglob("*")) == [path.parent, path]
    assert path.read_bytes() == b""


def test_an_error_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError), replacing(path) as part:
        part.write_text("new\ud800", encoding="utf-8")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_described_file_by_file(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name, content in (("b/one.bin", b"\0" * 9), ("a.txt", b"")):
        (tmp_path / name).write_bytes(content)
        sync(tmp_path / name)
    sync(tmp_path)
    assert describe_files(tmp_path) == {
        "a.txt": {"size": 0, "sha256": hashlib.sha256(b"").hexdigest()},
        "b/one.bin": {"size": 9, "sha256": hashlib.sha256(b"\0" * 9).hexdigest()},
    }
    with pytest.raises(FileNotFoundError):
        sha256(tmp_path / "missing")


def test_parts_of_processes_that_are_gone_are_removed(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    unseen = subprocess.Popen([sys.executable, "-c", ""])  # that ended, and nobody looked
    os.waitid(os.P_PID, unseen.pid, os.WEXITED | os.WNOWAIT)
    folder = tmp_path / "a"
    folder.mkdir()
    for owner in (gone.pid, unseen.pid, 10**30, os.getpid(), os.getppid(), 1, "x"):
        (folder / f".rows.bin.{owner}.part").touch()
    (folder / "rows.part").touch()
    remove_parts(tmp_path)
    left = {path.name for path in folder.iterdir()}
    assert left == {
        "rows.part",
        ".rows.bin.x.part",
        ".rows.bin.1.part",
        f".rows.bin.{os.getppid()}.part",
    }
    unseen.wait()
