"""One process to a run's directory: two would write over each other's checkpoints."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenite.errors import StorageError


@contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Holds ``directory`` (made if needed) for this process.

    The operating system lets go of it when the process ends, however it ends. Raises
    ``StorageError`` if another process holds it, or it cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = (directory / ".lock").open("a")
    except OSError as error:
        raise StorageError(
            f"{directory}: cannot be written ({error.strerror}); choose another train.out_dir"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StorageError(
                f"{directory}: another process is training there; wait for it, stop it, or choose "
                "another train.out_dir"
            ) from None
        yield
