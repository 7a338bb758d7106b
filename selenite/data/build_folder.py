"""A folder that appears whole or not at all: built under a temporary name, synced, renamed.

Used by ``prepare.py``. Left-overs of builders that were killed are removed by the next one.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenite.atomic import is_alive, sync
from selenite.errors import StorageError


@contextmanager
def build_folder(folder: Path) -> Iterator[Path]:
    """Gives an empty folder to fill, which becomes ``folder`` when the block ends well.

    When another process finished the same folder meanwhile, that one stays. Raises
    ``StorageError`` when the disk is full or cannot be written: the block must turn the
    ``OSError`` of what it reads into an error of its own.
    """
    building = folder.with_name(f".building-{folder.name}-{os.getpid()}")
    _remove_left_overs(folder)
    try:
        building.mkdir(parents=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        yield building
        for path in [*building.rglob("*"), building]:
            sync(path)  # a power cut must not leave a whole name with holes under it
        _take_name(building, folder)
        sync(folder.parent)
    except OSError as error:
        raise _unwritable(folder, error) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)  # gone already when it was renamed


def _unwritable(folder: Path, error: OSError) -> StorageError:
    return StorageError(
        error.errno,
        f"cannot write ({error.strerror or error}); free space there or choose another cache "
        "folder",
        str(folder),
    )


def _take_name(building: Path, folder: Path) -> None:
    try:
        building.rename(folder)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise


def _remove_left_overs(folder: Path) -> None:
    prefix = f".building-{folder.name}-"
    for left in folder.parent.glob(f"{prefix}*"):
        owner = left.name.removeprefix(prefix)
        if owner.isdigit() and not is_alive(int(owner)):
            shutil.rmtree(left, ignore_errors=True)
