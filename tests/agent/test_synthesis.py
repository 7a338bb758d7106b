"""A corpus from the command line: reproducible byte for byte, resumable, shown and exported."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from selenite.agent.ontology.acceptance import admit, build, examine
from selenite.agent.synthesis.config import SynthesisConfig
from selenite.agent.synthesis.duplicates import find_duplicates
from selenite.agent.synthesis.pipeline import synthesize, trajectories
from selenite.agent.synthesis.shards import read_rows
from selenite.agent.tools.tool import signature
from selenite.chat.tokenizer import Tokenizer
from selenite.cli.main import app
from selenite.errors import ConfigError

SIZE = {"seed": 3, "domains": 12, "tasks": 240, "shard_tasks": 40}


def make(folder: Path, **changes: int) -> SynthesisConfig:
    return SynthesisConfig(out_dir=folder, **{**SIZE, **changes})


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    synthesize(make(folder, workers=1))
    return folder


def test_the_same_bytes_for_one_worker_and_for_four(corpus: Path, tmp_path: Path) -> None:
    synthesize(make(tmp_path, workers=4))
    assert digests(tmp_path) == digests(corpus)
    assert len(digests(corpus)) > 15


def test_another_seed_is_another_corpus(corpus: Path, tmp_path: Path) -> None:
    synthesize(make(tmp_path, seed=4, workers=1, tasks=40))
    ours, theirs = digests(corpus), digests(tmp_path)
    assert ours["shards/00000.jsonl.zst"] != theirs["shards/00000.jsonl.zst"]


def test_what_was_interrupted_goes_on(corpus: Path, tmp_path: Path) -> None:
    settings = [f"{name}={value}" for name, value in SIZE.items()]
    config = tmp_path / "corpus.toml"
    config.write_text(f'out_dir = "{tmp_path / "out"}"\n')
    command = [sys.executable, "-m", "selenite", "synth", "make", str(config), *settings]
    first = tmp_path / "out" / "shards" / "00001.json"
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        while not first.exists():
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
    assert not (tmp_path / "out" / "manifest.json").exists()
    age = first.stat().st_mtime_ns
    subprocess.run(command, check=True, capture_output=True)
    assert first.stat().st_mtime_ns == age  # what was there is not made again
    assert digests(tmp_path / "out") == digests(corpus)


def test_a_folder_with_another_corpus_is_refused(corpus: Path) -> None:
    with pytest.raises(ConfigError, match=r"other settings \(tasks\)"):
        synthesize(make(corpus, tasks=241))


def test_the_manifest_adds_up(corpus: Path) -> None:
    manifest = json.loads((corpus / "manifest.json").read_text())
    assert manifest["tasks"] == SIZE["tasks"] == sum(manifest["classes"].values())
    assert manifest["accepted"] + sum(manifest["rejected"].values()) == manifest["tasks"]
    rows = list(trajectories(corpus))
    assert len(rows) == manifest["trajectories"]
    assert manifest["accepted"] - sum(manifest["duplicates"].values()) == len(rows)
    for name, digest in manifest["sha256"].items():
        assert hashlib.sha256((corpus / name).read_bytes()).hexdigest() == digest
    for reasons in manifest["contrasts"].values():
        assert "" not in reasons  # a contrast that every judge let pass


def test_tools_counted_from_their_json_alone(corpus: Path) -> None:
    tools = list(read_rows(corpus / "tools.jsonl.zst"))
    repository = json.loads((corpus / "repository.json").read_text())
    assert len(tools) == repository["tools"]
    assert len({(tool["domain"], tool["name"]) for tool in tools}) == len(tools)
    assert len({signature(tool) for tool in tools}) == repository["signatures"]


def test_a_repository_takes_nothing_twice() -> None:
    examined = [examine(3, number) for number in range(6)]
    found = admit(3, examined)
    assert found.numbers
    again = admit(3, [*examined, *examined])
    assert again.numbers == found.numbers
    assert again.rejected["too much like another"] == len(found.numbers)
    assert build(3, 6, workers=2) == found


def test_duplicates_are_found(corpus: Path) -> None:
    rows = list(trajectories(corpus))[:20]
    signatures = {
        row["task"]["setting"]["domain"]: {e["tool"]: e["tool"] for r in rows for e in r["events"]}
        for row in rows
    }
    config = make(corpus)
    assert not find_duplicates(rows, signatures, config).ids
    row = next(row for row in rows if len(row["messages"]) > 6)
    nearly = json.loads(json.dumps(row))
    nearly["messages"][-1]["content"] += " Bye."
    copies = [{**row, "id": "exact"}, {**nearly, "id": "near"}]
    removed = find_duplicates([*rows, *copies], signatures, config)
    assert (removed.exact, removed.near, removed.structural) == (["exact"], ["near"], [])
    strict = config.model_copy(update={"same_structure": 1})
    assert "near" in find_duplicates([*rows, *copies], signatures, strict).structural


def run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(app, ["synth", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output


def test_show(corpus: Path, tmp_path: Path) -> None:
    row = next(iter(trajectories(corpus)))
    text = run("show", corpus, row["id"])
    assert row["task"]["template"] in text
    assert all(e["tool"] in text for e in row["events"])
    number = json.loads((corpus / "repository.json").read_text())["numbers"][0]
    tools = list(read_rows(corpus / "tools.jsonl.zst"))
    domain = next(t["domain"] for t in tools if t["domain"].endswith(f"{number:04d}"))
    assert domain in run("show", corpus, domain)
    contrast = next(iter(read_rows(corpus / "contrasts" / "00000.jsonl.zst")))
    assert contrast["defect"] in run("show", corpus, contrast["id"])
    page = tmp_path / "page.html"
    run("show", corpus, row["id"], "--html", page)
    html = page.read_text()
    assert html.startswith("<!DOCTYPE html>")
    assert "http" not in html.replace("http://www.w3.org", "")  # nothing is loaded
    for name in ("nothing", "3-999999", "commerce-9999"):
        result = CliRunner().invoke(app, ["synth", "show", str(corpus), name])
        assert isinstance(result.exception, ConfigError)


def test_export(corpus: Path, tmp_path: Path) -> None:
    rows = list(trajectories(corpus))
    run("export", corpus, tmp_path / "all.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert len(lines) == len(rows)
    silent = [m for line in lines for m in line["messages"] if m.get("weight") == 0]
    assert len(silent) == sum(len(row["untrained"]) for row in rows) > 0

    datasets = pytest.importorskip("datasets", reason="the extra 'datasets' is not installed")
    run("export", corpus, tmp_path / "all.parquet", "--form", "parquet")
    table = datasets.Dataset.from_parquet(str(tmp_path / "all.parquet"), cache_dir=str(tmp_path))
    assert table["id"][:] == [row["id"] for row in rows]
    assert json.loads(table[0]["tools"]) == rows[0]["tools"]
    assert [m["role"] for m in table[0]["messages"]] == [m["role"] for m in rows[0]["messages"]]

    Tokenizer.train([json.dumps(row) for row in rows[:20]], 500).save(tmp_path / "tokenizer")
    run(
        "export",
        corpus,
        tmp_path / "ids.jsonl",
        "--form",
        "tokens",
        "--split",
        "train",
        "--tokenizer",
        tmp_path / "tokenizer",
    )
    ids = [json.loads(line) for line in (tmp_path / "ids.jsonl").read_text().splitlines()]
    assert len(ids) == sum(row["split"] == "train" for row in rows)
    assert all(len(row["input_ids"]) == len(row["loss_mask"]) for row in ids)
    trained = sum(sum(row["loss_mask"]) for row in ids)
    assert 0.02 < trained / sum(len(row["input_ids"]) for row in ids) < 0.5


def test_splits_hold_out_whole_categories_styles_and_templates(corpus: Path) -> None:
    from selenite.agent.synthesis.splits import HELD_OUT_TEMPLATES

    rows = list(trajectories(corpus))
    assert {row["split"] for row in rows} >= {"train", "template"}
    training = [row for row in rows if row["split"] == "train"]
    assert not HELD_OUT_TEMPLATES & {row["task"]["template"] for row in training}
    domains = {row["task"]["setting"]["domain"] for row in training}
    assert not domains & {
        row["task"]["setting"]["domain"]
        for row in rows
        if row["split"] in ("domain", "category", "style")
    }
