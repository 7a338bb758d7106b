"""The replay of malloc: holes, merging, mapped blocks, the end of the heap."""

from __future__ import annotations

import random

from selenite.train.heap import Heap

KIB = 1024
SMALL = 100 * KIB  # below the first threshold: on the heap


def test_a_hole_is_kept_and_reused() -> None:
    heap = Heap()
    for key in "abc":
        heap.allocate(key, SMALL)
    heap.free("b")
    assert heap.held == 3 * SMALL
    heap.allocate("d", SMALL - KIB)  # fits into the hole
    assert heap.held == 3 * SMALL


def test_a_block_of_just_the_size_of_the_hole_does_not_fit_it() -> None:
    """Aligned blocks ask malloc for more than they use."""
    heap = Heap()
    for key in "abc":
        heap.allocate(key, SMALL)
    heap.free("b")
    heap.allocate("d", SMALL)
    assert heap.held == 4 * SMALL


def test_neighbouring_holes_become_one() -> None:
    heap = Heap()
    for key in "abcd":
        heap.allocate(key, SMALL // 4)
    for key in "acb":
        heap.free(key)
    heap.allocate("e", 3 * SMALL // 4 - KIB)
    assert heap.held == SMALL


def test_large_blocks_are_mapped_until_one_is_freed() -> None:
    heap = Heap()
    heap.allocate("a", 512 * KIB)
    heap.free("a")
    assert (heap.held, heap.high_water) == (0, 512 * KIB)
    heap.allocate("b", 256 * KIB)  # now below the threshold: on the heap
    heap.allocate("c", KIB)
    heap.free("b")
    assert heap.held == 257 * KIB


def test_the_end_of_the_heap_is_returned_when_it_is_large() -> None:
    heap = Heap()
    heap.allocate("a", SMALL)
    for key in range(10):
        heap.allocate(key, SMALL)
    for key in range(10):
        heap.free(key)
    assert heap.held < 4 * SMALL
    assert heap.high_water == 11 * SMALL


def test_never_less_than_what_is_live_and_nothing_once_all_is_free() -> None:
    draw = random.Random(0)
    heap, live = Heap(), {}
    for key in range(2000):
        if live and draw.random() < 0.5:
            heap.free(gone := draw.choice(list(live)))
            del live[gone]
        else:
            live[key] = draw.choice([KIB, 64 * KIB, 3 * KIB * KIB, 40 * KIB * KIB])
            heap.allocate(key, live[key])
        assert heap.held >= sum(live.values())
    for key in live:
        heap.free(key)
    assert heap.held < 2 * 32 * KIB * KIB  # one hole at most, up to twice the threshold
