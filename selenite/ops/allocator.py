"""Memory for torch's CPU tensors from an allocator of our own (``csrc/allocator.cpp``).

glibc's malloc leaves holes between tensors that nobody can foretell. Ours never maps more for
tensors than was live at their fullest moment and ``slack`` on top. Installed by what trains
(``train/pretrain.py``, ``train/memory_measure.py``); counted on by ``train/memory.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from selenite.ops import native
from selenite.types import Decision

# As in allocator.cpp.
_LEAST_SLACK = 8 * 2**20
_SLACK_SHARE = 32


@dataclass(frozen=True)
class Counters:
    """Bytes of tensors of 64 KiB or more, in whole pages, since the allocator was installed."""

    live: int
    most_live: int
    held: int  # live blocks and the holes between them
    most_held: int
    unmapped: int  # of holes that were given back to the system, in all


def install() -> Decision:
    """Makes this process's later CPU tensors come from our allocator; once is enough.

    Where our kernels are not available torch's own allocator stays, which is glibc's malloc.
    """
    if not native.is_available():
        return Decision("torch's", native.availability().reason)
    native.function("selenite_install_allocator", "")()
    return Decision("ours", "holds little more than what is live")


def counters() -> Counters | None:
    """What the allocator counted; None where our kernels are not available."""
    if not native.is_available():
        return None
    counted = np.zeros(5, dtype=np.int64)
    native.function("selenite_allocator_counters", "p")(counted.ctypes.data)
    return Counters(*counted.tolist())


def slack(most_live: int) -> int:
    """The most bytes of holes that are kept beside ``most_live`` bytes of tensors."""
    return max(_LEAST_SLACK, most_live // _SLACK_SHARE)
