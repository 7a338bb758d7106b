"""Our allocator: blocks keep their bytes, and never more is held than live bytes and the slack.

It is installed for the rest of a process, so that each test runs in one of its own.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import re
import resource
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from selenite.ops import allocator, native
from selenite.runtime import is_out_of_memory

KIB, MIB = 2**10, 2**20
PAGE = 4 * KIB
SMALLEST = 64 * KIB  # that is ours

needs_kernels = pytest.mark.skipif(
    not native.availability().value, reason=native.availability().reason
)


def in_new_process(test: Callable[[], None]) -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        process.submit(test).result()


def tensor(num_bytes: int, value: int) -> Tensor:
    return torch.full((num_bytes,), value, dtype=torch.uint8)


def is_intact(x: Tensor, value: int) -> bool:
    return bool((x.numpy() == value).all())  # numpy's memory is not counted here


def random_size(draw: random.Random) -> int:
    """Sizes of all orders of magnitude up to 8 MiB, small ones (torch's) among them."""
    return int(2 ** draw.uniform(0, 23))


def pages(size: int) -> int:
    """What a block of ours counts as."""
    return size + -size % PAGE if size >= SMALLEST else 0


def counters() -> allocator.Counters:
    found = allocator.counters()
    assert found is not None
    return found


def check_bound() -> None:
    now = counters()
    assert 0 <= now.live <= now.held <= now.most_held, now
    assert now.most_held <= now.most_live + allocator.slack(now.most_live), now


def random_sequence() -> None:
    assert allocator.install().value == allocator.install().value == "ours"
    draw = random.Random(0)
    alive: dict[int, tuple[Tensor, int]] = {}
    addresses: dict[int, int] = {}
    most_live = 0
    for key in range(4000):
        # Phases that grow and phases that shrink, as a step does.
        if alive and draw.random() < (0.35 if key // 500 % 2 == 0 else 0.6):
            gone = draw.choice(list(alive))
            x, value = alive.pop(gone)
            assert is_intact(x, value), (gone, x.shape)
            del x
        else:
            size, value = random_size(draw), draw.randrange(256)
            x = tensor(size, value)
            addresses[key] = x.data_ptr()
            assert x.data_ptr() % 64 == 0
            alive[key] = x, value
            del x
        live = sum(pages(len(x)) for x, _ in alive.values())
        most_live = max(most_live, live)
        assert (counters().live, counters().most_live) == (live, most_live)
        check_bound()
    ranges = sorted((addresses[key], len(x)) for key, (x, _) in alive.items())
    assert all(a + n <= b for (a, n), (b, _) in pairwise(ranges))
    assert all(is_intact(x, value) for x, value in alive.values())
    assert counters().unmapped > 0  # or the bound was never tried
    alive.clear()
    assert counters().live == 0


@needs_kernels
def test_random_blocks_keep_their_bytes_and_the_bound_holds() -> None:
    in_new_process(random_sequence)


def resident() -> int:
    found = re.search(r"^RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) * KIB


def held_is_resident() -> None:
    allocator.install()
    tensor(MIB, 1)
    draw = random.Random(1)
    before = resident() - counters().held
    alive: list[Tensor] = []
    for _ in range(400):
        if sum(map(len, alive)) > 256 * MIB:
            draw.shuffle(alive)
            del alive[: len(alive) // 2]
        alive.append(tensor(draw.randrange(SMALLEST, 8 * MIB), 1))
        assert resident() - before == pytest.approx(counters().held, abs=4 * MIB)
    assert counters().unmapped > 0


@needs_kernels
def test_what_is_held_is_what_the_system_counts() -> None:
    in_new_process(held_is_resident)


def many_threads() -> None:
    allocator.install()
    handed_over: list[tuple[Tensor, int]] = []
    lock = threading.Lock()
    broken: list[int] = []

    def work(seed: int) -> None:
        """Makes tensors, and frees those that others made."""
        draw = random.Random(seed)
        for _ in range(600):
            value = draw.randrange(256)
            made = tensor(random_size(draw), value), value
            with lock:
                handed_over.append(made)
                taken = [
                    handed_over.pop(draw.randrange(len(handed_over)))
                    for _ in range(draw.randrange(3))
                    if handed_over
                ]
            del made
            broken.extend(len(x) for x, value in taken if not is_intact(x, value))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not broken
    check_bound()
    assert counters().live == sum(pages(len(x)) for x, _ in handed_over)
    handed_over.clear()
    assert counters().live == 0


@needs_kernels
def test_threads_make_and_free_each_others_tensors() -> None:
    in_new_process(many_threads)


def fork_while_allocating() -> None:
    torch.set_num_threads(1)  # OpenMP's do not outlive a fork
    allocator.install()
    stop = threading.Event()

    def allocate() -> None:
        while not stop.is_set():
            torch.empty(SMALLEST, dtype=torch.uint8)

    thread = threading.Thread(target=allocate)
    thread.start()
    x = tensor(MIB, 7)
    for _ in range(20):
        child = os.fork()
        if child == 0:
            right = is_intact(x, 7)
            y = tensor(2 * MIB, 9)
            x.fill_(8)
            os._exit(0 if right and is_intact(y, 9) else 1)
        assert os.waitpid(child, 0)[1] == 0
    stop.set()
    thread.join()
    assert is_intact(x, 7)  # a child has its own


@needs_kernels
def test_a_forked_child_goes_on_allocating() -> None:
    in_new_process(fork_while_allocating)


def limited_addresses() -> None:
    allocator.install()
    blocks = [tensor(64 * MIB, 1) for _ in range(8)]
    del blocks[::2]
    before = counters()
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * PAGE
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MIB, mapped + MIB))
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**33, dtype=torch.uint8)
    assert is_out_of_memory(error.value), error.value
    assert counters().live == before.live
    # No hole has room for it; all of them together, given back, do.
    blocks.append(tensor(100 * MIB, 2))
    assert all(is_intact(x, 1) for x in blocks[:-1])
    check_bound()


@needs_kernels
def test_out_of_memory_is_torchs_error_and_comes_only_when_holes_are_given_back() -> None:
    in_new_process(limited_addresses)


def tensors_from_before() -> None:
    before = tensor(MIB, 3)
    allocator.install()
    after = before.clone()
    assert is_intact(before, 3)
    del before
    grown = after.resize_(4 * MIB)
    assert is_intact(grown[:MIB], 3)
    assert counters().live == 4 * MIB
    assert torch.empty(0).data_ptr() == 0


@needs_kernels
def test_tensors_from_before_are_freed_as_they_were_made() -> None:
    in_new_process(tensors_from_before)


def no_kernels() -> None:
    decision = allocator.install()
    assert decision.value == "torch's"
    assert "AVX2" in decision.reason
    assert allocator.counters() is None
    assert is_intact(tensor(MIB, 1), 1)


def test_without_kernels_torchs_allocator_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    in_new_process(no_kernels)
