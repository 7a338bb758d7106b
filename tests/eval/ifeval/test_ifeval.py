"""IFEval: its prompts, what constants achieve, and what a model has beyond them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from selenite.cli.eval import eval as command
from selenite.errors import ConfigError, DataError
from selenite.eval.ifeval.check import Followed
from selenite.eval.ifeval.constants import CONSTANTS, JUNK
from selenite.eval.ifeval.measure import bounds, measure, scored, suite
from selenite.eval.ifeval.prompts import Prompt, read_prompts
from selenite.eval.ifeval.relevance import own_words, relevance
from selenite.eval.ifeval.scores import Result, lift
from selenite.eval.measure import Target
from selenite.eval.question import Answer
from selenite.eval.scoreboard import read_verdicts
from tests.fixtures.server import make_model

STRICT = st.lists(st.lists(st.booleans(), min_size=1, max_size=3), min_size=1, max_size=12)


def result(agent: str, strict: list[list[bool]]) -> Result:
    return Result(agent, {str(n): Followed(tuple(s), tuple(s)) for n, s in enumerate(strict)}, 0.0)


def test_all_prompts_are_read(prompts: list[Prompt]) -> None:
    names = [name for prompt in prompts for name in prompt.instructions]
    assert (len(prompts), len(names), len(set(names))) == (541, 834, 25)
    assert len({prompt.id for prompt in prompts}) == 541
    assert all(len(p.instructions) == len(p.arguments) for p in prompts)


def test_another_file_is_refused(data: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    with pytest.raises(ConfigError, match=r"no such file; fetch .*input_data\.jsonl.* --data"):
        read_prompts(other)
    other.write_bytes(data.read_bytes() + b"\n")
    with pytest.raises(DataError, match="SHA-256 is"):
        read_prompts(other)


@given(STRICT)
@settings(max_examples=100, deadline=None)
def test_shares_are_means_and_parts_add_up_to_the_average(strict: list[list[bool]]) -> None:
    found = result("model", strict)
    flat = [one for each in strict for one in each]
    by_prompt = np.mean([all(each) for each in strict])
    assert found.shares["strict prompts"] == pytest.approx(by_prompt)
    assert found.shares["loose instructions"] == pytest.approx(np.mean(flat))
    assert found.average == pytest.approx((by_prompt + np.mean(flat)) / 2)
    assert np.mean(found.parts(sorted(found.followed))) == pytest.approx(found.average)


def test_lift_is_beyond_the_best_constant() -> None:
    rng = np.random.default_rng(4)
    model, good, bad = (
        result(name, [[bool(rng.random() < share)] for _ in range(400)])
        for name, share in (("model", 0.6), ("good", 0.3), ("bad", 0.1))
    )
    found = lift(model, [bad, good])
    assert found.constant == "good"
    assert found.difference == pytest.approx(model.average - good.average)
    assert 0 < found.low < found.difference < found.high
    # Of 0 and 1 paired by prompt, a bootstrap's interval is nearly the normal one.
    difference = np.subtract(model.parts([*model.followed]), good.parts([*model.followed]))
    half = 1.96 * difference.std() / np.sqrt(len(difference))
    assert found.high - found.low == pytest.approx(2 * half, rel=0.05)
    same = lift(good, [good, bad])
    assert (same.difference, same.low, same.high) == (0, 0, 0)


def test_relevance_tells_junk_from_what_is_about_the_prompt() -> None:
    texts = {"a": "Write about otters and rivers.", "b": "Write about violins.", "c": "Write now."}
    asked = [Prompt(key, text, (), ()) for key, text in texts.items()]
    own = own_words(asked)
    assert own == {"a": {"otters", "rivers"}, "b": {"violins"}, "c": set()}
    assert relevance(own, texts) == 1
    assert relevance(own, {"a": "OTTERS swim.", "b": "A violin."}) == 0.25
    assert relevance(own, {"c": "Write now."}) == 0


def test_junk_says_nothing_about_any_prompt(prompts: list[Prompt]) -> None:
    own = own_words(prompts)
    replies = dict.fromkeys(own, JUNK)
    assert relevance(own, replies) < 0.04
    assert relevance(own, {prompt.id: prompt.text for prompt in prompts}) == 1
    assert 280 < len(JUNK.split()) < 340


@pytest.mark.usefixtures("checkers")
def test_constants_are_as_strong_as_the_page_says(prompts: list[Prompt]) -> None:
    empty, sentence, junk = bounds(prompts[::4])
    assert [each.agent for each in (empty, sentence, junk)] == list(CONSTANTS)
    assert set(empty.shares.values()) == {0}
    assert 0.05 < sentence.shares["strict prompts"] < 0.2
    assert 0.25 < junk.shares["strict prompts"] < 0.4
    assert 0.4 < junk.shares["strict instructions"] < 0.6


@pytest.mark.slow
@pytest.mark.usefixtures("checkers")
def test_constants_on_all_prompts(prompts: list[Prompt]) -> None:
    _, sentence, junk = bounds(prompts)
    rounded = [[round(share, 3) for share in each.shares.values()] for each in (sentence, junk)]
    assert rounded == [[0.115, 0.228, 0.115, 0.228], [0.32, 0.492, 0.322, 0.493]]


@pytest.mark.usefixtures("checkers")
def test_faults_of_the_pipeline_have_no_verdict(prompts: list[Prompt]) -> None:
    first, second, third = prompts[:3]
    answers = {
        first.id: Answer(error="connection: refused"),
        second.id: Answer(too_long=True),
        third.id: Answer("[a] [b]"),
    }
    found = scored(prompts[:3], "model", answers)
    assert found.errors == 1
    assert found.followed.keys() == {second.id, third.id}
    assert not any(found.followed[second.id].strict)
    assert suite(prompts[:3]).judge(answers).keys() == {second.id, third.id}


@pytest.mark.slow
@pytest.mark.usefixtures("checkers")
def test_a_model_is_served_asked_and_checked(prompts: list[Prompt], tmp_path: Path) -> None:
    target = Target(make_model(tmp_path), None)
    first = measure(prompts[:6], target, tmp_path / "out", 4, 24)
    assert len(first.followed) == 6
    assert first.protocol["max_tokens"] == 24
    assert measure(prompts[:6], target, tmp_path / "out", 4, 24) == first


@pytest.mark.usefixtures("checkers")
def test_the_command_writes_what_it_shows(data: Path, tmp_path: Path) -> None:
    options = ["--data", str(data), "--limit", "12", "--out", str(tmp_path)]
    ran = CliRunner().invoke(command, ["ifeval", *options])
    assert ran.exit_code == 0, ran.output
    (path,) = (tmp_path / "bounds").glob("ifeval-*.json")
    agents = json.loads(path.read_text())["agents"]
    assert list(agents) == list(CONSTANTS)
    name, verdicts = read_verdicts(path, "junk")
    assert (name, len(verdicts)) == ("junk", 12)
    assert agents["junk"]["strict prompts"] == pytest.approx(sum(verdicts.values()) / 12)
    assert all("did not follow" in reason for reason in agents["junk"]["wrong"].values())
