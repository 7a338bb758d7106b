"""What the page is given to show: all of a run where it fits, an even part where not."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from selenite.chat.tokenizer import Tokenizer
from selenite.cli.main import app
from selenite.errors import DataError
from selenite.rl.page.attempts import Attempts
from selenite.rl.page.inline import number, to_json
from selenite.rl.page.write import write_page
from tests.fixtures.rl_run import metrics, write_run


def data_of(page: Path) -> Any:
    (text,) = re.findall(
        r'<script id="data" type="application/json">(.*?)</script>', page.read_text("utf-8")
    )
    return json.loads(text)


@given(st.recursive(st.text() | st.floats(allow_nan=False, allow_infinity=False), st.lists))
def test_json_stands_in_a_page_whatever_it_says(value: Any) -> None:
    text = to_json([value, "</script><!--<script>\u2028"])
    assert json.loads(text)[0] == value
    assert text.isascii()
    assert "<" not in text


def test_numbers_that_json_has_not_are_null() -> None:
    assert [number(x) for x in (float("nan"), float("inf"), 0.1234567, -0.5)] == [
        None,
        None,
        0.12346,
        -0.5,
    ]


def test_a_run_that_fits_is_there_whole(tmp_path: Path) -> None:
    made = write_run(tmp_path / "run")
    assert CliRunner().invoke(app, ["rl", "page", str(tmp_path / "run")]).exit_code == 0
    data = data_of(tmp_path / "run" / "page.html")
    rollouts = [r for groups in made for group in groups for r in group]
    assert len(data["attempts"]) == len(rollouts) == 48
    tokenizer = Tokenizer.load(tmp_path / "model")
    found = {(a["environment"], a["step"], a["number"]): a for a in data["attempts"]}
    for step, groups in enumerate(made):
        for group in groups:
            taught = [r.reward for r in group if r.score is not None]
            for own in group:
                shown = found[own.environment, step + 1, own.number]  # a file before update 1: 1
                assert shown["reward"] == pytest.approx(own.reward)
                assert shown["group_mean"] == pytest.approx(np.mean(taught), abs=1e-4)
                assert (shown["status"], shown["reason"]) == (own.status.value, own.reason)
                assert shown["task"] == own.task
                said = [data["messages"][place] for place in shown["messages"]]
                assert [m["role"] for m in said] == ["user", "assistant", "tool", "assistant"]
                assert said[3]["content"] == own.messages[3].content
                assert said[1]["calls"] == [["try", own.messages[1].tool_calls[0].arguments]]
                sampled = own.token_ids_T[own.is_sampled_T].tolist()
                turns = shown["turns"]
                assert [i for turn in turns for i in turn["ids"]] == sampled
                assert [turn["between"] for turn in turns] == ["", "The lock is open."]
                # Each turn has weights of its own here.
                assert [v for turn in turns for v, _ in turn["versions"]] == [step, step + 1]
                logprobs = own.engine_logprobs_T[own.is_sampled_T]
                told = [x for turn in turns for x in turn["logprobs"]]
                np.testing.assert_allclose(told, logprobs, rtol=1e-2)
                (prompt,) = shown["prompt"]
                assert data["messages"][prompt]["content"] == "Open the lock."
                text = "".join(data["tokens"][str(i)] for i in turns[0]["ids"])
                assert text == tokenizer.decode(turns[0]["ids"])
    # Bytes of a character that several tokens share are told as bytes.
    assert "".join(data["tokens"][str(i)] for i in turns[1]["ids"]).startswith("It is open now. ")
    assert len(data["messages"]) == len({json.dumps(m) for m in data["messages"]})
    assert data["steps"] == [{"step": n, "here": 8, "all": 8} for n in range(1, 7)]
    for step, groups in enumerate(made):
        row = metrics(step, groups)
        for name in ("reward.locks", "length.sums", "mismatch_max", "entropy"):
            assert data["series"][name][step + 1] == pytest.approx(row[name], rel=1e-4)
    assert data["series"]["failed"][2] is None
    assert data["series"]["val_reward.sums"] == [0.1, None, 1.05, None, 1.15, None, 1.25]
    assert data["series"]["time.tools"][1:] == [2.0] * 6


def test_a_run_that_is_too_large_is_there_evenly(tmp_path: Path) -> None:
    write_run(tmp_path / "run", steps=120, size=6)
    tokenizer = Tokenizer.load(tmp_path / "model")
    whole = Attempts(tmp_path / "run", tokenizer, 10**9)
    assert len(whole.records) == 120 * 12
    for room in (20_000, 100_000, 400_000):
        some = Attempts(tmp_path / "run", tokenizer, room)
        size = len(to_json(some.records)) + len(to_json(some.messages))
        assert 0.5 * room < size <= room
        numbers = [step["step"] for step in some.steps]
        assert len(numbers) == 50
        assert (numbers[0], numbers[-1]) == (1, 120)
        assert set(np.diff(numbers)) <= {2, 3}
        assert some.num_iterations == 120
        counts = Counter((r["step"], r["environment"]) for r in some.records)
        for step in some.steps:
            own = [counts[step["step"], name] for name in ("locks", "sums")]
            assert sum(own) == step["here"] <= step["all"] == 12
            assert max(own) - min(own) <= 1
        # Of a group those come first that were begun first, and none twice.
        seen = [(r["step"], r["environment"], r["number"]) for r in some.records]
        assert len(set(seen)) == len(seen)


def test_what_is_too_long_is_cut_and_told(tmp_path: Path) -> None:
    made = write_run(tmp_path / "run", steps=1, dress=lambda text: text * 3000)
    page = tmp_path / "page.html"
    write_page(tmp_path / "run", page)
    data = data_of(page)
    content = data["messages"][data["attempts"][0]["messages"][0]]["content"]
    assert len(content) < 21_000
    assert content.startswith("Open the lock")
    left = re.findall(r"\[([\d,]+) characters are left out\]", content)
    whole = len(made[0][0][0].messages[0].content)
    assert [int(text.replace(",", "")) for text in left] == [whole - 20_000]
    assert all(attempt["turns"] is None for attempt in data["attempts"])
    assert all(attempt["num_tokens"] > 8000 for attempt in data["attempts"])


def test_without_a_tokenizer_the_page_says_so(tmp_path: Path) -> None:
    write_run(tmp_path / "run", steps=2)
    (tmp_path / "model" / "tokenizer.json").unlink()
    write_page(tmp_path / "run", tmp_path / "page.html")
    data = data_of(tmp_path / "page.html")
    assert "tokenizer" in data["no_tokens"]
    assert data["tokens"] == {}
    assert all(attempt["turns"] is None for attempt in data["attempts"])


def test_a_directory_that_is_no_run_is_told(tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["rl", "page", str(tmp_path)])
    assert isinstance(told.exception, DataError)
    assert "give the directory" in str(told.exception)
    assert not (tmp_path / "page.html").exists()
    write_run(tmp_path / "run", steps=2)
    (tmp_path / "run" / "rollouts" / "step_00000001.jsonl").write_text('{"group": 0}\n')
    with pytest.raises(DataError, match="not rollouts of a run"):
        write_page(tmp_path / "run", tmp_path / "page.html")
