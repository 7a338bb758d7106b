"""The diversity report: each measure against an answer known beforehand, and whole reports."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from selenite.agent.rows import write_rows
from selenite.agent.synthesis.calibration import calibrate
from selenite.agent.synthesis.config import SynthesisConfig
from selenite.agent.synthesis.diversity import describe, read_tools, write_report
from selenite.agent.synthesis.diversity_measures import (
    distinct,
    entropy,
    features,
    grams,
    leaves,
    self_bleu,
    words_of,
)
from selenite.agent.synthesis.pipeline import synthesize, trajectories
from selenite.agent.synthesis.tool_embedding import TfIdf, embed
from selenite.agent.synthesis.tool_embedding import words_of as tool_words
from selenite.agent.synthesis.tool_map import balanced_mixing, draw_map, mixing, nearest
from selenite.cli.main import app
from selenite.errors import ConfigError, DataError


def test_entropy_in_closed_form() -> None:
    assert entropy([5] * 8) == pytest.approx(3)
    assert entropy([2, 1, 1]) == pytest.approx(1.5)
    assert entropy([7, 0]) == entropy([]) == 0
    shares = [0.9, 0.1]
    assert entropy([9, 1]) == pytest.approx(-sum(p * math.log2(p) for p in shares))


def test_distinct_by_hand() -> None:
    texts = [words_of("a b a b"), words_of("A B, c")]
    assert distinct(texts, 1) == pytest.approx(3 / 7)  # a, b, c
    assert distinct(texts, 2) == pytest.approx(3 / 5)  # ab, ba, bc of ab, ba, ab, ab, bc
    assert distinct(texts, 5) == 0


def test_words() -> None:
    assert words_of("It's 12.50 for O'Neill_2!") == ["it's", "12", "50", "for", "o'neill", "2"]


def plain_bleu(text: Sequence[str], others: Sequence[Sequence[str]]) -> float:
    """BLEU-4 with smoothing method 1, written down as in the papers."""
    total = 0.0
    for n in range(1, 5):
        own = Counter(grams(text, n))
        known = [Counter(grams(other, n)) for other in others]
        hits = sum(min(c, max(each[gram] for each in known)) for gram, c in own.items())
        if hits == 0 and n == 1:
            return 0
        total += math.log((hits or 0.1) / max(1, own.total())) / 4
    nearest = min((abs(len(other) - len(text)), len(other)) for other in others)[1]
    return min(1, math.exp(1 - nearest / len(text))) * math.exp(total)


def test_self_bleu() -> None:
    same = words_of("please send me the report of today")
    assert self_bleu([same, same]) == pytest.approx(1)
    assert self_bleu([["a", "b", "c", "d"], ["e", "f", "g", "h"]]) == 0
    assert self_bleu([same]) == self_bleu([]) == 0
    rng = random.Random(1)
    texts = [rng.choices("abcde", k=rng.randint(1, 12)) for _ in range(40)]
    expected = sum(plain_bleu(t, texts[:i] + texts[i + 1 :]) for i, t in enumerate(texts)) / 40
    assert self_bleu(texts) == pytest.approx(expected)


def test_argument_values() -> None:
    arguments = {"a": ["x", 1, True], "b": {"c": 1.5, "d": None}}
    kinds = [kind for kind, _ in leaves(arguments)]
    assert kinds == ["string", "number", "boolean", "number", "null"]


def test_calibration_by_hand() -> None:
    manifest = {
        "tasks": 200,
        "rejected": {"rubric": 2},
        "contrasts": {
            "wrong_tool": {"rubric": 15, "replay": 4, "": 1},
            "early": {"": 3},
        },
        "models": {"roles": {"user": {}}},
    }
    found = calibrate(manifest)
    assert found["wrong_tool"] == {
        "played": 20,
        "rejected": 19,
        "recall": 0.95,
        "precision": pytest.approx(0.95 / 0.96, abs=1e-4),
        "judges": {"replay": 4, "rubric": 15},
    }
    assert found["early"]["recall"] == found["early"]["precision"] == 0
    assert calibrate({**manifest, "models": {"roles": {"agent": {}}}})["early"]["precision"] is None
    assert calibrate({**manifest, "rejected": {}})["wrong_tool"]["precision"] == 1
    assert calibrate({**manifest, "rejected": {}})["early"]["precision"] is None


@pytest.mark.parametrize(
    ("properties", "required", "expected"),
    [
        ({}, [], {"no argument"}),
        ({"a": {"type": "string"}}, ["a"], set()),
        ({"a": {"type": "string"}}, [], {"optional"}),
        ({"a": {"type": "string", "enum": ["x"]}}, ["a"], {"enum"}),
        ({"a": {"type": "array", "items": {"type": "string", "enum": ["x"]}}}, ["a"],
         {"array", "enum"}),
        ({"a": {"type": "object", "properties": {"b": {"type": "string"}}}}, ["a"],
         {"nested object", "optional"}),
        ({"a": {"type": "object", "properties": {}}}, ["a"], {"nested object"}),
    ],
)  # fmt: skip
def test_schema_features(
    properties: dict[str, Any], required: list[str], expected: set[str]
) -> None:
    assert features({"properties": properties, "required": required}) == expected


def tool(
    name: str, doc: str, domain: str = "commerce-0000", effect: str = "read"
) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {}, "required": []}
    returns = {"type": "object"}
    return {
        "name": name,
        "domain": domain,
        "effect": effect,
        "description": doc,
        "parameters": parameters,
        "returns": returns,
    }


def test_words_of_a_tool() -> None:
    described = tool("createOrder.HTTPCall", "Make it.")
    inner = {"type": "object", "properties": {"sub_part": {"description": "Deep down"}}}
    described["parameters"] = {"properties": {"item_list": {"type": "array", "items": inner}}}
    assert tool_words(described) == [
        *("create", "order", "http", "call", "make", "it", "item", "list"),
        *("sub", "part", "deep", "down"),
    ]


def dense(texts: Sequence[Sequence[str]]) -> np.ndarray[Any, Any]:
    """TF-IDF by its formula, word by word."""
    counts = [Counter(words) for words in texts]
    words = sorted({word for count in counts for word in count})
    words = [word for word in words if sum(word in count for count in counts) > 1]
    table = np.zeros((len(texts), len(words)))
    for row, count in enumerate(counts):
        for column, word in enumerate(words):
            if count[word]:
                common = sum(word in other for other in counts)
                idf = math.log((1 + len(texts)) / (1 + common)) + 1
                table[row, column] = (1 + math.log(count[word])) * idf
    norms = np.linalg.norm(table, axis=1, keepdims=True)
    return table / np.where(norms > 0, norms, 1)


def test_tf_idf_and_svd_against_dense_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selenite.agent.synthesis.tool_embedding._CHUNK", 7)
    rng = random.Random(2)
    vocabulary = [f"w{i}" for i in range(60)]
    texts = [rng.choices(vocabulary, range(60, 0, -1), k=rng.randint(0, 9)) for _ in range(80)]
    table, sparse = dense(texts), TfIdf(texts)
    right, left = np.eye(table.shape[1]), np.eye(len(texts))
    np.testing.assert_allclose(sparse.times(right), table, atol=1e-12)
    np.testing.assert_allclose(sparse.transposed_times(left), table.T, atol=1e-12)
    x = embed(texts, 60)  # as many dimensions as words: nothing is cut off
    np.testing.assert_allclose(x @ x.T, table @ table.T, atol=1e-9)


def test_few_dimensions_hold_the_topics() -> None:
    rng = random.Random(4)
    topics = [[f"{topic}{i}" for i in range(5)] for topic in "abcd"]
    texts = [rng.choices(topics[number % 4], k=8) for number in range(60)]
    x = embed(texts, 4)
    is_same = np.arange(60)[:, None] % 4 == np.arange(60) % 4
    assert (x @ x.T)[is_same] == pytest.approx(1)
    # What the rounds of iteration leave of the next directions.
    assert (x @ x.T)[~is_same] == pytest.approx(0, abs=1e-4)


def test_texts_without_common_words_are_points_at_zero() -> None:
    assert embed([["a"], ["b"]], 5).shape == (2, 0)
    assert not embed([["a"], ["b"], ["c", "a"]], 5)[1].any()


def on_circle(degrees: Sequence[float]) -> np.ndarray[Any, Any]:
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def test_nearest() -> None:
    assert nearest(on_circle([0, 1, 3, 90]), 1).ravel().tolist() == [1, 0, 1, 2]
    equal = nearest(np.ones((40, 1)), 10)  # itself never, of the others each about as often
    assert not (equal == np.arange(40)[:, None]).any()
    assert set(equal.ravel().tolist()) == set(range(40))
    many = np.random.default_rng(0).standard_normal((700, 3))  # more than are compared at once
    many /= np.linalg.norm(many, axis=1, keepdims=True)
    likeness = many @ many.T - 2 * np.eye(len(many))
    assert (nearest(many, 1).ravel() == likeness.argmax(axis=1)).all()


def test_mixing_of_two_clusters() -> None:
    apart = on_circle([0, 1, 2, 3, 180, 181, 182, 183])
    is_real = np.arange(8) < 4
    for each in (*mixing(apart, is_real, 3), *balanced_mixing(apart, is_real, 3)):
        assert each.rate == 0
        assert each.expected == pytest.approx(4 / 7)
    pairs = on_circle([0, 90, 180, 270, 1, 91, 181, 271])
    for each in mixing(pairs, is_real, 1):  # each tool is beside one of the other group
        assert each.rate == 1


def test_mixing_of_unequal_numbers() -> None:
    is_real = np.array([True, True, False, False, False, False])
    synthetic, real = mixing(on_circle([0, 1, 90, 91, 92, 93]), is_real, 2)
    assert (synthetic.expected, real.expected) == (2 / 5, 4 / 5)
    assert (synthetic.rate, real.rate) == (0, 1 / 2)
    points = np.random.default_rng(3).standard_normal((400, 4))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    is_real = np.arange(400) < 100
    for each in (*mixing(points, is_real), *balanced_mixing(points, is_real)):
        # As in a shuffled pile; the tolerance is three deviations of the mean over 100 tools.
        assert each.record()["ratio"] == pytest.approx(1, abs=0.2)


def test_the_map_of_two_vocabularies() -> None:
    tools = [tool(f"get_order_{i}", "returns one order by its number") for i in range(12)]
    files = [
        {"name": f"read_file_{i}", "description": "opens some path on disk"} for i in range(12)
    ]
    record, picture = draw_map(tools, files)
    assert record["all"]["synthetic"]["rate"] == record["all"]["real"]["rate"] == 0
    assert picture.points_S4.shape == (24, 4)
    assert Counter(picture.groups) == {"real": 12, "read": 12}
    same = [{"name": each["name"], "description": each["description"]} for each in tools]
    record, _ = draw_map(tools, same)
    assert record["closest"][0][2] == pytest.approx(1)
    for each in record["balanced"].values():  # copies: the two groups cannot be told apart
        assert each["ratio"] == pytest.approx(1, abs=0.3)
    assert "all" not in draw_map(tools, [])[0]


def row(
    id: str, cls: str, domain: int, turns: Sequence[str], calls: Sequence[tuple[str, Any]] = ()
) -> dict[str, Any]:
    messages = [{"role": "system", "content": "You help."}]
    for turn in turns:
        messages += [{"role": "user", "content": turn}, {"role": "assistant", "content": "Done."}]
    return {
        "id": id,
        "split": "train",
        "task": {"class": cls, "template": "fact", "setting": {"domain": domain}},
        "agent": 1,
        "persona": int(id),
        "messages": messages,
        "tools": [{"type": "function", "function": {"name": name}} for name in ("a", "b", "c")],
        "events": [{"tool": name, "arguments": given, "result": {}} for name, given in calls],
    }


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    rows = [
        row("0", "clean", 0, ["Please do it"], [("a", {"n": 1}), ("a", {"n": 1})]),
        row("1", "clean", 0, ["Please do that", "yes"], [("b", {"n": 2, "s": "x"})]),
        row("2", "no_tool", 1, ["Hello"], []),
        row("3", "clean", 1, ["Please do it"], [("gone", {})]),
    ]
    tools = [tool(name, "Does it.") for name in "abc"]
    tools += [tool("a", "Takes it off.", "travel-0001", "delete"), tool("d", "x", "legal-0007")]
    write_rows(tmp_path / "shards" / "00000.jsonl.zst", [*rows, row("4", "clean", 0, ["Again"])])
    write_rows(tmp_path / "tools.jsonl.zst", tools)
    (tmp_path / "duplicates.json").write_text('{"near": ["4"]}')
    return tmp_path


def test_a_tiny_corpus(tiny: Path) -> None:
    found = describe(tiny).record
    assert found["counts"] == {
        "trajectories": 4,
        "classes": 2,
        "templates": 1,
        "categories": 3,
        "domains": 3,
        "tools": 5,
        "tool_names": 4,
        "signatures": 2,
        "tools_offered": 6,
        "tools_called": 3,
        "agents": 1,
        "personas": 4,
        "calls": 4,
        "user_turns": 5,
    }
    assert found["categories"] == {"commerce": 2, "travel": 2}
    assert found["histograms"]["calls"] == {
        "mean": 1,
        "median": 1,
        "max": 2,
        "counts": {"0": 1, "1": 2, "2": 1},
    }
    assert found["histograms"]["user turns"]["counts"] == {"1": 3, "2": 1}
    assert found["histograms"]["distinct tools called"]["counts"] == {"0": 1, "1": 3}
    assert found["histograms"]["tools in context"]["counts"] == {"3": 4}
    tools = found["entropy"]["tools_called"]
    assert tools["bits"] == 1.5  # 2, 1 and 1 calls
    assert tools["evenness"] == round(1.5 / math.log2(5), 4)
    assert found["entropy"]["effects_called"]["counts"] == {"read": 3, "unknown": 1}
    assert found["entropy"]["first_words"]["top"] == [["please", 3], ["hello", 1]]
    assert found["top_openings"][0] == ["please do it", 2]
    assert found["user_turns"]["sampled"] == 5
    assert found["user_turns"]["distinct"]["1"] == round(6 / 11, 4)
    assert found["argument_values"] == {
        "all": {"values": 4, "different": 3, "types_per_token": 0.75},
        "number": {"values": 3, "different": 2, "types_per_token": 0.6667},
        "string": {"values": 1, "different": 1, "types_per_token": 1},
    }
    assert found["schemas"]["no argument"] == 1
    assert found["coverage"] == {
        "classes": ["clean", "no_tool"],
        "categories": ["commerce", "legal", "travel"],
        "cells": [[2, 0, 1], [0, 0, 1]],
        "least": 0,
        "least_cells": [["clean", "legal"], ["no_tool", "commerce"], ["no_tool", "legal"]],
        "empty_cells": 3,
    }


def test_the_report_of_a_tiny_corpus_is_one_page(tiny: Path, tmp_path: Path) -> None:
    real = tmp_path / "real.json"
    real.write_text(json.dumps([{"type": "function", "function": {"name": "read_<file>"}}]))
    write_report(tiny, real)
    first = [(tiny / name).read_bytes() for name in ("report.json", "report.html")]
    write_report(tiny, real)
    assert first == [(tiny / name).read_bytes() for name in ("report.json", "report.html")]
    page = first[1].decode()
    assert "read_&lt;file&gt;" in page
    assert page.count("<figure>") == 14
    for outside in ("http://", "https://", "<script", "@import", "<link"):
        assert outside not in page.replace("http://www.w3.org", "")  # names a language


@pytest.mark.parametrize("text", ["", "{}", "[1]", '[{"function": {}}]', '{"name": "a"}'])
def test_files_that_are_no_tools(tmp_path: Path, text: str) -> None:
    path = tmp_path / "real.json"
    path.write_text(text)
    if text == "{}":
        assert read_tools(path) == []
        return
    with pytest.raises(DataError, match="must be a JSON list of tools"):
        read_tools(path)


def test_folders_that_are_no_corpus(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="folder of a corpus"):
        describe(tmp_path)
    write_rows(tmp_path / "tools.jsonl.zst", [tool("a", "Does it.")])
    with pytest.raises(ConfigError, match="not finished"):
        describe(tmp_path)
    (tmp_path / "duplicates.json").write_text("{}")
    with pytest.raises(DataError, match="without trajectories"):
        describe(tmp_path)


@pytest.fixture(scope="module")
def real_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    synthesize(SynthesisConfig(out_dir=folder, seed=5, domains=6, tasks=80, workers=1))
    return folder


def test_a_real_corpus_from_the_command_line(real_corpus: Path) -> None:
    result = CliRunner().invoke(app, ["synth", "report", str(real_corpus)])
    assert result.exit_code == 0, result.output
    found = json.loads((real_corpus / "report.json").read_text())
    manifest = json.loads((real_corpus / "manifest.json").read_text())
    repository = json.loads((real_corpus / "repository.json").read_text())
    rows = list(trajectories(real_corpus))
    assert found["counts"]["trajectories"] == manifest["trajectories"] == len(rows)
    assert found["counts"]["tools"] == repository["tools"]
    assert found["counts"]["signatures"] == repository["signatures"]
    assert found["counts"]["calls"] == sum(len(row["events"]) for row in rows)
    assert sum(map(sum, found["coverage"]["cells"])) == len(rows)
    assert found["judges"].keys() == manifest["contrasts"].keys()
    assert all(0.9 < each["precision"] <= 1 for each in found["judges"].values())
    for histogram in found["histograms"].values():
        assert sum(histogram["counts"].values()) == len(rows)
    assert "unknown" not in found["entropy"]["effects_called"]["counts"]
    assert 0 < found["user_turns"]["self_bleu"] < 1
