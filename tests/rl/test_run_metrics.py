"""What the clock went to, and rows evenly apart."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selenite.errors import DataError
from selenite.rl.run_metrics import TIMES, evenly, read_steps, time_split

seconds = st.floats(0, 1e6)


@given(seconds, seconds, seconds, st.tuples(seconds, seconds, seconds))
def test_the_parts_of_the_time_are_the_time(
    acting: float, training: float, syncing: float, spent: tuple[float, float, float]
) -> None:
    step = {
        "seconds": acting + training + syncing,
        "rollout_seconds": acting,
        "sync_seconds": syncing,
        **{f"seconds.{kind}": own for kind, own in zip(TIMES, spent, strict=False)},
    }
    split = time_split(step)
    assert tuple(split) == TIMES
    assert split["training"] == pytest.approx(training, abs=1e-6)
    assert split["syncing"] == syncing
    if sum(spent):
        assert sum(split.values()) == pytest.approx(step["seconds"], abs=1e-6)
        assert split["tools"] * sum(spent) == pytest.approx(acting * spent[1], abs=1e-3, rel=1e-6)


def test_an_update_that_waited_for_no_rollouts_trained() -> None:
    split = time_split({"seconds": 2.0, "sync_seconds": 0.5})
    assert {name: value for name, value in split.items() if value} == {
        "training": 1.5,
        "syncing": 0.5,
    }


@given(st.integers(1, 60), st.integers(1, 20))
def test_rows_are_evenly_apart(total: int, count: int) -> None:
    chosen = evenly(range(total), count)
    assert len(chosen) == min(total, count)
    assert chosen == sorted(set(chosen))
    if count > 1:
        assert (chosen[0], chosen[-1]) == (0, total - 1)
        gaps = [b - a for a, b in pairwise(chosen)]
        assert max(gaps, default=0) - min(gaps, default=0) <= 1


@pytest.mark.parametrize("text", [None, '{"step": 1, "loss": 2.0}\n', "no json\n", "1\n"])
def test_a_directory_of_something_else_is_told(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(DataError, match=r"give (the directory|a directory)"):
        read_steps(tmp_path)
