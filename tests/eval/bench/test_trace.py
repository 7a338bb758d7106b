"""Traces: an excerpt of a real one, its tree of shared prefixes, and lines that are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from selenite.errors import ConfigError, DataError
from selenite.eval.bench.prompts import PromptMaker, of_range
from selenite.eval.bench.trace import read_trace, replay

EXCERPT = Path(__file__).parents[2] / "fixtures" / "mooncake" / "conversation_excerpt.jsonl"


def shared(a: list[int], b: list[int]) -> int:
    """Length of the common beginning."""
    return next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(map(len, (a, b)))
    )


def test_the_excerpt_as_it_is() -> None:
    lines = read_trace(EXCERPT)
    requests, arrivals = replay(lines)
    assert len(lines) == len(requests) == 16
    assert [r.input_len for r in requests] == [line.input_length for line in lines]
    assert [r.output_len for r in requests] == [line.output_length for line in lines]
    assert arrivals == tuple(line.timestamp / 1000 for line in lines)
    assert len(read_trace(EXCERPT, count=5)) == 5


@pytest.mark.parametrize("scale", [1.0, 1 / 32, 1 / 512])
def test_prompts_share_what_the_trace_shares(scale: float) -> None:
    lines = read_trace(EXCERPT)
    requests, _ = replay(lines, scale)
    maker = PromptMaker(of_range(50_000), seed=0)
    prompts = [maker.ids(request) for request in requests]
    block = int(512 * scale)
    for i, prompt in enumerate(prompts):
        assert len(prompt) == requests[i].input_len == max(1, round(lines[i].input_length * scale))
        for j in range(i):
            blocks = shared(list(lines[i].hash_ids), list(lines[j].hash_ids))
            expected = min(blocks * block, requests[i].input_len, requests[j].input_len)
            # Different blocks begin with the same token once in many times.
            assert expected <= shared(prompt, prompts[j]) <= expected + 1


def test_speed_and_scale() -> None:
    lines = read_trace(EXCERPT)
    _, slow = replay(lines)
    _, fast = replay(lines, speed=10)
    assert fast == pytest.approx([at / 10 for at in slow])
    for wrong in ({"speed": 0.0}, {"length_scale": 0.3}, {"length_scale": 1 / 1024}):
        with pytest.raises(ConfigError, match=r"--trace-speed|--length-scale"):
            replay(lines, **wrong)


def test_without_hash_ids_nothing_is_shared(tmp_path: Path) -> None:
    file = tmp_path / "trace.jsonl"
    line = '{"timestamp": 5, "input_length": 600, "output_length": 2, "session": "x"}\n'
    file.write_text(line + "\n" + line)
    requests, arrivals = replay(read_trace(file))
    assert arrivals == (0.0, 0.0)
    maker = PromptMaker(of_range(50_000), seed=0)
    assert shared(*map(maker.ids, requests)) <= 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no requests"),
        ("{", "line 1"),
        ("[]", "line 1"),
        ('{"timestamp": 0, "input_length": 0, "output_length": 1}', "line 1: input_length"),
        ('{"timestamp": 0, "input_length": 5}', "line 1: output_length"),
        ('{"timestamp": 0, "input_length": 513, "output_length": 1, "hash_ids": [1]}',
         "must be 2"),
        ('{"timestamp": 9, "input_length": 1, "output_length": 1}\n'
         '{"timestamp": 8, "input_length": 1, "output_length": 1}', "line 2: timestamp is before"),
    ],
)  # fmt: skip
def test_what_is_no_trace(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "trace.jsonl"
    file.write_text(text)
    with pytest.raises(DataError, match=message):
        read_trace(file)
    with pytest.raises(DataError, match="cannot be read"):
        read_trace(tmp_path / "missing.jsonl")
