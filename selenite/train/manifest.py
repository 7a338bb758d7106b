"""Directories that are there whole or not at all, and that can prove it.

A directory is written under a temporary name, gets a manifest with the size and SHA-256 of each
of its files, is forced to the disk file by file, and only then takes its name (``seal``). A kill
at any byte leaves either the finished directory or a temporary one, which the next run removes.
Checkpoints (``train/checkpoint.py``) are such directories.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from selenite import atomic

MANIFEST = "manifest.json"
TEMPORARY = ".tmp-"
"""Prefix of directories that are being written or being deleted."""


def seal(temporary: Path, final: Path) -> None:
    """Forces ``temporary`` with a manifest to the disk and renames it to ``final``.

    Raises ``OSError`` if the disk refuses; ``temporary`` then keeps its name.
    """
    assert not final.exists(), final
    entries = atomic.describe_files(temporary)
    manifest = temporary / MANIFEST
    manifest.write_text(json.dumps({"files": entries}, indent=1) + "\n", encoding="utf-8")
    for path in [*(temporary / name for name in entries), manifest, temporary]:
        atomic.sync(path)
    temporary.rename(final)
    atomic.sync(final.parent)


def faults(directory: Path) -> list[str]:
    """What is wrong with a sealed directory: one line for each bad file, empty if it is whole."""
    manifest = directory / MANIFEST
    if not manifest.is_file():
        return [f"{manifest} is missing"]
    try:
        entries = json.loads(manifest.read_text(encoding="utf-8"))["files"].items()
        expected = [(name, int(entry["size"]), str(entry["sha256"])) for name, entry in entries]
    except (ValueError, KeyError, TypeError, AttributeError):
        return [f"{manifest} is damaged"]
    found = []
    for name, size, digest in expected:
        path = directory / name
        if not path.is_file():
            found.append(f"{path} is missing")
        elif path.stat().st_size != size:
            found.append(f"{path} has {path.stat().st_size:,} bytes instead of {size:,}")
        elif atomic.sha256(path) != digest:
            found.append(f"{path} was altered: its SHA-256 is not the one in the manifest")
    return found


def remove(directory: Path) -> None:
    """Deletes a directory so that a kill midway leaves no damaged one under its name."""
    doomed = directory
    if not directory.name.startswith(TEMPORARY):
        doomed = directory.with_name(f"{TEMPORARY}delete-{directory.name}")
        directory.rename(doomed)
    shutil.rmtree(doomed)


def remove_leftovers(parent: Path) -> list[Path]:
    """Deletes what killed writes and deletions left in ``parent``; returns their paths."""
    leftovers = sorted(parent.glob(TEMPORARY + "*"))
    for path in leftovers:
        shutil.rmtree(path)
    return leftovers
