"""How glibc lays freed and live tensors out, to know what a process holds beyond live bytes.

Memory that is freed between live tensors stays with the process as a hole until something fits into
it. ``Heap`` replays a sequence of allocations under the rules of glibc's malloc: best fit with
neighbours merged; what exceeds a threshold is mapped alone and returned when freed; freeing such
a block raises the threshold to its size, up to 32 MiB; the free end of the heap is returned when it
exceeds twice the threshold (mallopt(3)). Blocks are aligned, for which malloc wants a hole larger
than the block (``_SLACK``): one of exactly its size is passed over.

Fed by ``live_bytes.py``; the plan (``memory.py``) counts its high-water mark.
"""

from __future__ import annotations

from bisect import bisect_left, insort

_ALIGNMENT = 64  # of torch's CPU tensors
_SLACK = 96
_FIRST_THRESHOLD = 128 * 1024
_LAST_THRESHOLD = 32 * 2**20


class Heap:
    """A heap that grows at its end, and mapped blocks beside it. Addresses and sizes in bytes.

    Attributes:
        high_water: the most bytes that were ever held.
    """

    def __init__(self) -> None:
        self.high_water = 0
        self._end = 0
        self._mapped = 0
        self._threshold = _FIRST_THRESHOLD
        self._live: dict[int, tuple[int, int]] = {}  # key -> address (-1: mapped), size
        self._free_by_size: list[tuple[int, int]] = []  # size, address; sorted
        self._size_at: dict[int, int] = {}  # start of a hole -> its size
        self._size_before: dict[int, int] = {}  # end of a hole -> its size

    @property
    def held(self) -> int:
        """Bytes that the process holds now, holes included."""
        return self._end + self._mapped

    def allocate(self, key: int, size: int) -> None:
        """Places a block that ``free`` will name by ``key``."""
        size = max(size + -size % _ALIGNMENT, _ALIGNMENT)
        if size >= self._threshold:
            self._mapped += size
            self._live[key] = -1, size
        else:
            self._live[key] = self._place(size), size
        self.high_water = max(self.high_water, self.held)

    def free(self, key: int) -> None:
        """Gives a block back."""
        address, size = self._live.pop(key)
        if address < 0:
            self._mapped -= size
            if size <= _LAST_THRESHOLD:
                self._threshold = max(self._threshold, size)
            return
        before = self._size_before.get(address)
        if before is not None:
            address -= before
            self._take(address, before)
            size += before
        after = self._size_at.get(address + size)
        if after is not None:
            self._take(address + size, after)
            size += after
        self._put(address, size)
        if address + size == self._end and size > 2 * self._threshold:
            self._take(address, size)
            self._end = address

    def _place(self, size: int) -> int:
        """The address of the smallest hole that fits, or of the grown end of the heap."""
        index = bisect_left(self._free_by_size, (size + _SLACK, 0))
        if index < len(self._free_by_size):
            hole, address = self._free_by_size[index]
            self._take(address, hole)
            if hole > size:
                self._put(address + size, hole - size)
            return address
        last = self._size_before.get(self._end, 0)
        address = self._end - last
        if last:
            self._take(address, last)
        self._end = address + size
        return address

    def _put(self, address: int, size: int) -> None:
        insort(self._free_by_size, (size, address))
        self._size_at[address] = size
        self._size_before[address + size] = size

    def _take(self, address: int, size: int) -> None:
        del self._free_by_size[bisect_left(self._free_by_size, (size, address))]
        del self._size_at[address]
        del self._size_before[address + size]
