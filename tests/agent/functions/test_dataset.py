"""All that a recipe learns from: made once, read back, and refused when it differs."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from selenite.agent.episodes.defects import Defect
from selenite.agent.functions.concept import pools
from selenite.agent.functions.group import SIZE
from selenite.agent.functions.plain_chat import PlainChatConfig, chat_rows, draw_prompt
from selenite.agent.synthesis.dataset import DatasetConfig, make_dataset
from selenite.agent.synthesis.pairs import REASONS
from selenite.config import validate
from selenite.data.chat_rows import read_chat_rows
from selenite.errors import ConfigError
from tests.fixtures.server import make_model


def config_of(folder: Path, **changes: int) -> DatasetConfig:
    worlds = {"out_dir": folder / "worlds", "seed": 7, "domains": 4, "tasks": 60, "workers": 1}
    table = {"out_dir": folder / "data", "functions": 30, "groups": 2, "pairs": 6}
    table["functions_held_out"] = 5
    return validate(DatasetConfig, {**table, "worlds": {**worlds, "contrasts": 1.0}, **changes}, "")


def test_a_data_set_is_made_once_and_read_back(tmp_path: Path) -> None:
    manifest = make_dataset(config_of(tmp_path))
    files = sorted((tmp_path / "data").iterdir())
    before = {path: path.read_bytes() for path in files}
    assert {path.name for path in files} == {
        "functions.jsonl", "groups.jsonl", "functions-held-out.jsonl", "agentic.jsonl",
        "pairs.jsonl", "dataset.json",
    }  # fmt: skip
    for name, count in manifest["counts"].items():
        rows = read_chat_rows([str(tmp_path / "data" / f"{name}.jsonl")])
        assert len(rows) == count > 0
    assert manifest["counts"]["pairs"] == 6
    assert manifest["counts"]["groups"] == 2 * SIZE
    assert make_dataset(config_of(tmp_path)) == manifest
    (tmp_path / "data" / "pairs.jsonl").unlink()
    make_dataset(config_of(tmp_path))
    assert {path: path.read_bytes() for path in files} == before
    with pytest.raises(ConfigError, match="a data set of other settings or sources"):
        make_dataset(config_of(tmp_path, functions=31))


def test_a_pair_says_which_and_why(tmp_path: Path) -> None:
    make_dataset(config_of(tmp_path))
    lines = (tmp_path / "data" / "pairs.jsonl").read_text().splitlines()
    for line in lines:
        _, question, verdict = (m["content"] for m in json.loads(line)["messages"])
        best, _, reason = verdict.partition(". ")
        assert best in ("A", "B")
        assert reason[2:-1] in REASONS.values()
        assert question.count("Conversation A:") == question.count("Conversation B:") == 1
        one, other = question.split("Conversation A:\n")[1].split("\n\nConversation B:\n")
        assert one != other.split("\n\nWhich is better?")[0]
    assert set(REASONS) == set(Defect)


def test_rows_have_what_they_need_and_may_have_each_others_tools(tmp_path: Path) -> None:
    make_dataset(config_of(tmp_path))
    rows = read_chat_rows([str(tmp_path / "data" / "agentic.jsonl")])
    assert any(row.untrained for row in rows) or len(rows) < 20
    for row in rows:
        assert row.needed <= {tool.name for tool in row.tools}
    groups = {row.group for row in rows}
    assert "" in groups  # rows about a tool that is missing
    assert 2 <= len(groups - {""}) <= 4
    for group in groups - {""}:
        own = [row for row in rows if row.group == group]
        known = {tool.name: tool for row in own for tool in row.tools}
        assert all(known[tool.name] == tool for row in own for tool in row.tools)


def test_prompts_of_plain_chat_are_whole() -> None:
    rng = random.Random(0)
    prompts = {draw_prompt(rng) for _ in range(400)}
    assert len(prompts) > 250
    assert not any("{" in prompt or "}" in prompt for prompt in prompts)
    assert all(len(words) > 6 for words in pools().values())


def test_plain_chat_is_the_models_own_and_asked_for_once(tmp_path: Path) -> None:
    model = make_model(tmp_path)
    config = PlainChatConfig(model=model, count=8, max_tokens=500, temperature=1.0, with_tools=0.5)
    first = list(chat_rows(config, 3, tmp_path / "answers"))
    answers = sorted((tmp_path / "answers").rglob("*"))
    assert list(chat_rows(config, 3, tmp_path / "answers")) == first
    assert sorted((tmp_path / "answers").rglob("*")) == answers
    assert first  # of random weights each token ends a reply with one in six hundred
    for row in first:
        user, reply = row["messages"]
        assert user["role"] == "user"
        assert reply["content"].strip()
        assert "tool_calls" not in reply
