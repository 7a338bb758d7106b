"""What a run in the sandbox may use, and which limit ended it."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from selenite.config import Config

_MiB = 2**20


class Limits(Config):
    """Upper bounds of one run; a run that crosses one of the first five is killed.

    Raises ``ValueError`` for a value that makes no sense.
    """

    seconds: float = Field(default=10, gt=0, le=86_400)  # on the wall, from start to end
    cpu_seconds: float = Field(default=10, gt=0, le=86_400)  # of all processes together
    memory_bytes: int = Field(default=512 * _MiB, ge=16 * _MiB)
    """Of all processes together, with their files in ``/tmp`` and what the run adds to the working
    directory, which lie in memory too. The sandbox itself takes about 3 MiB of it."""
    processes: int = Field(default=64, ge=1, le=10_000)  # and threads, at one time
    output_bytes: int = Field(default=_MiB, ge=0)  # of stdout and stderr together
    disk_bytes: int = Field(default=64 * _MiB, ge=64 * 2**10)
    """Of the working directory, of ``/tmp``, of ``/dev/shm``, and of any one file. A run that fills
    a disk is not killed: it is told that no space is left."""

    @property
    def num_files(self) -> int:
        """Files and folders that the working directory holds at most."""
        return max(1000, self.disk_bytes // 4096)


class KilledBy(StrEnum):
    """The limit that a run crossed."""

    TIME = "time"
    CPU = "cpu"
    MEMORY = "memory"
    PROCESSES = "processes"
    OUTPUT = "output"
