"""Statistics over ranks: two real processes on gloo, of which one alone sees the outlier."""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from selenite.optim.balance import global_load
from selenite.optim.qk_clip import MaxLogit, clip_factors

OUTLIER = [[400.0, 3.0], [-math.inf, 7.0]]  # what rank 1 alone sees
CALM = [[5.0, 50.0], [-math.inf, math.nan]]


def rank(index: int, port: int, results: mp.Queue[tuple[object, ...]]) -> None:
    store = dist.TCPStore("127.0.0.1", port, 2, is_master=False)
    dist.init_process_group("gloo", store=store, rank=index, world_size=2)
    calls = 0
    all_reduce = dist.all_reduce

    def counted(*args: object, **settings: object) -> object:
        nonlocal calls
        calls += 1
        return all_reduce(*args, **settings)

    dist.all_reduce = counted
    maximum = MaxLogit()
    maximum.update(torch.tensor(CALM) - 1)
    maximum.update(torch.tensor(OUTLIER if index else CALM))
    taken, reductions = maximum.take().tolist(), calls
    load = global_load(torch.tensor([[3, 1]]) + index)
    results.put((index, taken, reductions, load.tolist()))
    dist.destroy_process_group()


def test_all_ranks_clip_and_balance_alike_when_one_sees_the_outlier():
    master = dist.TCPStore("127.0.0.1", 0, 2, is_master=True, wait_for_workers=False)
    context = mp.get_context("spawn")
    results = context.Queue()
    ranks = [context.Process(target=rank, args=(index, master.port, results)) for index in (0, 1)]
    for process in ranks:
        process.start()
    try:
        seen = sorted(results.get(timeout=60) for _ in ranks)
    finally:
        for process in ranks:
            process.join(timeout=10)
            process.kill()
    assert [load for *_, load in seen] == [[[7, 3]]] * 2  # both ranks' tokens
    assert [calls for _, _, calls, _ in seen] == [1, 1]  # all layers in one collective
    expected = [[400.0, 50.0], [-math.inf, math.inf]]  # a NaN of any rank is seen by all
    assert [values for _, values, _, _ in seen] == [expected] * 2
    assert clip_factors(torch.tensor(expected), 100.0).tolist() == [[0.25, 1.0], [1.0, 1.0]]
