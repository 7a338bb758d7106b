"""The loader: exact resume at any point, ranks, mixtures, evaluation, errors from the worker."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selenite.data.loader import Loader, LoaderConfig, evaluation_batches
from selenite.data.packing import MicroBatch
from selenite.errors import CheckpointError, ConfigError

LENGTHS = [5, 17, 2, 30, 9, 12, 3]


def _config(**changes) -> LoaderConfig:
    return LoaderConfig(**{"tokens_per_microbatch": 16, "seq_len": 8, "seed": 5, **changes})


def _take(loader: Loader, count: int) -> list[MicroBatch]:
    return [next(loader) for _ in range(count)]


def _assert_equal(left: list[MicroBatch], right: list[MicroBatch]) -> None:
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        for name in ("tokens_T", "targets_T", "positions_T", "document_T", "num_bytes"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@given(before=st.integers(0, 12), prefetch=st.integers(1, 5), mixed=st.booleans())
@settings(max_examples=30, deadline=None)
def test_resume_is_exact_at_any_point(make_shard, before, prefetch, mixed):
    shards = [make_shard(LENGTHS), make_shard([8, 8], "other")] if mixed else make_shard(LENGTHS)
    config = _config(prefetch=prefetch)
    with Loader(shards, config) as one:
        whole = _take(one, 20)
    with Loader(shards, config) as one:
        head = _take(one, before)
        state = json.loads(json.dumps(one.state_dict()))  # as a checkpoint would keep it
        _take(one, 3)  # reading on does not change a state taken before
    with Loader(shards, config) as fresh:
        fresh.load_state_dict(state)
        _assert_equal([*head, *_take(fresh, 20 - before)], whole)


def test_a_loader_in_use_can_be_set_back(make_shard):
    with Loader(make_shard(LENGTHS), _config()) as loader:
        _take(loader, 2)
        state = loader.state_dict()
        expected = _take(loader, 4)
        loader.load_state_dict(state)
        _assert_equal(_take(loader, 4), expected)


def test_closing_loses_nothing(make_shard):
    with Loader(make_shard(LENGTHS), _config()) as loader:
        whole = _take(loader, 6)
    with Loader(make_shard(LENGTHS), _config()) as loader:
        parts = _take(loader, 2)
        loader.close()
        loader.close()
        _assert_equal([*parts, *_take(loader, 4)], whole)


@pytest.mark.parametrize("mixed", [False, True])
def test_ranks_share_the_sequence_of_one(make_shard, mixed):
    shards = [make_shard(LENGTHS), make_shard([8, 8], "other")] if mixed else [make_shard(LENGTHS)]
    with Loader(shards, _config()) as alone:
        whole = _take(alone, 12)
    for rank in range(3):
        with Loader(shards, _config(), rank=rank, world_size=3) as loader:
            _assert_equal(_take(loader, 4), whole[rank::3])


def test_a_run_may_go_on_with_other_ranks_and_sizes(make_shard):
    shard = make_shard(LENGTHS)
    with Loader(shard, _config()) as alone:
        whole = _take(alone, 10)
    with Loader(shard, _config(), rank=1, world_size=2) as loader:
        _take(loader, 2)
        state = loader.state_dict()
    with Loader(shard, _config()) as alone:
        alone.load_state_dict(state)
        _assert_equal(_take(alone, 6), whole[4:])
    with Loader(shard, _config(tokens_per_microbatch=32)) as doubled:
        doubled.load_state_dict(state)
        tokens = np.concatenate([batch.tokens_T for batch in whole[4:6]])
        np.testing.assert_array_equal(next(doubled).tokens_T, tokens)


def test_a_mixture_takes_tokens_in_proportion(make_shard):
    shards = [make_shard(LENGTHS), make_shard([8, 8], "other")]
    count = 4000
    with Loader(shards, _config(tokens_per_microbatch=1), weights=[3, 1]) as loader:
        _take(loader, count)
        first, second = loader.state_dict()["positions"]
    assert first + second == count
    # A binomial share: five standard deviations, sqrt(0.75 * 0.25 / 4000) = 0.0068 each.
    assert abs(first / count - 0.75) < 5 * 0.0069


def test_a_state_of_another_run_is_refused(make_shard):
    with Loader(make_shard(LENGTHS), _config()) as loader:
        state = loader.state_dict()
        with pytest.raises(CheckpointError, match="seed=6, this run has 5"):
            loader.load_state_dict({**state, "seed": 6})
        with pytest.raises(CheckpointError, match="corpora="):
            loader.load_state_dict({**state, "corpora": ["0" * 64]})
        with pytest.raises(CheckpointError, match="no 'positions'"):
            loader.load_state_dict({"seed": 5, "corpora": state["corpora"], "drawn": 0})


def test_errors_in_the_worker_reach_the_consumer(make_shard):
    shard = make_shard(LENGTHS)
    shard.index["length"][3] = 0  # its tokens are now in no document
    with Loader(shard, _config()) as loader, pytest.raises(IndexError):
        _take(loader, 20)


def test_close_ends_the_worker(make_shard):
    before = threading.active_count()
    loader = Loader(make_shard(LENGTHS), _config())
    next(loader)
    assert threading.active_count() == before + 1
    loader.close()
    assert threading.active_count() == before


def test_settings_that_contradict_are_refused(make_shard):
    shard = make_shard(LENGTHS)
    with pytest.raises(ConfigError, match="rank=2"):
        Loader(shard, _config(), rank=2, world_size=2)
    with pytest.raises(ConfigError, match="2 weights for 1 corpora"):
        Loader(shard, _config(), weights=[1, 2])
    with pytest.raises(ConfigError, match="positive"):
        Loader(shard, _config(), weights=[0])


@given(num_tokens=st.integers(1, 50), seq_len=st.integers(1, 20))
@settings(max_examples=50, deadline=None)
def test_evaluation_reads_each_token_once_with_all_bytes(make_shard, num_tokens, seq_len):
    shard = make_shard(LENGTHS)
    batches = list(evaluation_batches(shard, num_tokens, seq_len))
    tokens = np.concatenate([batch.tokens_T for batch in batches])
    np.testing.assert_array_equal(tokens, np.arange(shard.num_tokens))
    assert sum(batch.num_bytes for batch in batches) == shard.num_bytes


def test_evaluation_stops_at_its_limit_and_repeats_itself(make_shard):
    shard = make_shard(LENGTHS)
    first, second = (list(evaluation_batches(shard, 16, 8, max_tokens=40)) for _ in range(2))
    _assert_equal(first, second)
    assert [len(batch.tokens_T) for batch in first] == [16, 16, 8]
