"""The pool of cache pages: who holds which, counted.

A page is a fixed number of slots for cached entries. Several sequences may hold one page (a common
prefix), and the prefix cache holds what it may hand out again; a page is free when nobody does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np


class PagePool:
    """Pages ``0`` to ``num_pages - 1`` of ``page_size`` slots, with a count of holders each."""

    def __init__(self, num_pages: int, page_size: int) -> None:
        self.num_pages = num_pages
        self.page_size = page_size
        self._holders = [0] * num_pages
        # The page freed last is handed out first: it may still be in the processor's cache.
        self._free = list(range(num_pages - 1, -1, -1))

    @property
    def num_free(self) -> int:
        """Pages that nobody holds."""
        return len(self._free)

    def pages_for(self, num_tokens: int) -> int:
        """Pages that so many entries take."""
        return -(-num_tokens // self.page_size)

    def holders(self, page: int) -> int:
        """How many hold the page."""
        return self._holders[page]

    def allocate(self, count: int) -> list[int] | None:
        """``count`` free pages, each held once; None, and nothing taken, where there are fewer."""
        if count > len(self._free):
            return None
        pages = [self._free.pop() for _ in range(count)]
        for page in pages:
            assert self._holders[page] == 0, page
            self._holders[page] = 1
        return pages

    def hold(self, pages: Sequence[int]) -> None:
        """One more holder of each page, none of which may be free."""
        for page in pages:
            assert self._holders[page] > 0, page
            self._holders[page] += 1

    def release(self, pages: Sequence[int]) -> None:
        """One holder less of each page; the last one frees it."""
        for page in pages:
            assert self._holders[page] > 0, page
            self._holders[page] -= 1
            if self._holders[page] == 0:
                self._free.append(page)

    def check_integrity(self, held: Iterable[Sequence[int]]) -> None:
        """Asserts that the counts are what ``held`` (the pages of every holder) adds up to."""
        every = np.fromiter((page for pages in held for page in pages), np.int64)
        counted = np.bincount(every, minlength=self.num_pages)
        assert len(counted) == self.num_pages, f"a page beyond the pool: {every.max()}"
        wrong = np.flatnonzero(counted != np.array(self._holders))
        assert not len(wrong), [(int(p), self._holders[p], int(counted[p])) for p in wrong]
        free = np.bincount(np.array(self._free, np.int64), minlength=self.num_pages)
        assert np.array_equal(free, counted == 0), "the free list is not the pages nobody holds"
