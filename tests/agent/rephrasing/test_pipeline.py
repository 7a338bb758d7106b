"""Rephrasings of a corpus: the same bytes whoever makes them, resumable, read by ``data``."""

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

from selenite.agent.rephrasing.config import RephrasingConfig
from selenite.agent.rephrasing.pipeline import rephrase
from selenite.agent.rows import read_rows
from selenite.cli.main import app
from selenite.clock import ManualClock
from selenite.config import load
from selenite.data.dedup import DedupConfig, deduplicate
from selenite.data.documents import ReadReport
from selenite.data.prepare import DataConfig, prepare
from selenite.data.sources import FolderSource, JsonlSource
from selenite.data.split import SplitConfig, split
from selenite.errors import ConfigError, DataError
from tests.agent.rephrasing.texts import CODE, GERMAN, SHORT, article, corpus, settings

ROOT = Path(__file__).resolve().parents[3]
NUMBER = 24


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def rows_of(out: Path) -> list[dict]:
    return [row for path in sorted((out / "shards").glob("*.zst")) for row in read_rows(path)]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    others = [GERMAN * 2, CODE, SHORT, article(0), "A line\u2028with a sign\x85in it. " * 20]
    return corpus(tmp_path_factory.mktemp("source"), [*map(article, range(NUMBER)), *others])


@pytest.fixture(scope="module")
def made(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made")
    rephrase(settings(out, source), ManualClock())
    return out


def test_the_same_bytes_for_one_worker_and_for_four(
    source: Path, made: Path, tmp_path: Path
) -> None:
    rephrase(settings(tmp_path, source, workers=4), ManualClock())
    ours, theirs = digests(tmp_path), digests(made)
    assert ours == theirs
    assert len(ours) == 3 + 3 * 4


def test_what_was_killed_goes_on(source: Path, made: Path, tmp_path: Path) -> None:
    out, config = tmp_path / "out", tmp_path / "rephrase.toml"
    config.write_text(
        f'out_dir = "{out}"\nseed = 3\nsplit = "none"\nmost_kept = 0.25\nshard_documents = 8\n'
        f'workers = 1\n[[sources]]\nkind = "jsonl"\npaths = ["{source}"]\n'
    )
    command = [sys.executable, "-m", "selenite", "rephrase", str(config)]
    first = out / "shards" / "00000.json"
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        while not first.exists():
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
    assert not (out / "manifest.json").exists()
    age = first.stat().st_mtime_ns
    subprocess.run(command, check=True, capture_output=True)
    assert first.stat().st_mtime_ns == age  # what was there is not made again
    torn = [path for path in out.rglob(".*") if path.name.endswith(".part")]
    for path in torn:
        path.unlink()  # the kill came between two files
    assert digests(out) == digests(made)


def test_the_manifest_adds_up(made: Path) -> None:
    manifest = json.loads((made / "manifest.json").read_text())
    read, dropped = manifest["read"], manifest["dropped"]
    assert read["documents"] == NUMBER + 4
    assert read["copies"] == 1
    assert manifest["rephrasings"] == 2 * read["documents"]
    assert manifest["kept"] + sum(dropped.values()) == manifest["rephrasings"]
    assert (dropped["not_english"], dropped["little_prose"], dropped["too_little_text"]) == (
        2,
        2,
        2,
    )
    rows = rows_of(made)
    assert len(rows) == manifest["kept"] > 0.8 * 2 * NUMBER
    assert sum(len(row["text"]) for row in rows) == manifest["chars_out"]
    assert sum(row["stayed"] for row in rows) == sum(manifest["stayed"].values())
    assert len(manifest["styles"]) >= 8
    assert len(manifest["perspectives"]) >= 6
    assert manifest["backends"] == {"rules": len(rows)}
    for name, digest in manifest["sha256"].items():
        assert hashlib.sha256((made / name).read_bytes()).hexdigest() == digest


def test_rounds_differ(made: Path) -> None:
    texts: dict[str, list[dict]] = {}
    for row in rows_of(made):
        texts.setdefault(row["source"], []).append(row)
    pairs = [pair for pair in texts.values() if len(pair) == 2]
    assert len(pairs) > 0.7 * NUMBER
    for first, second in pairs:
        assert first["text"] != second["text"]
        assert first["style"] != second["style"]
        assert first["perspective"] != second["perspective"]


def test_data_reads_it(source: Path, made: Path, tmp_path: Path) -> None:
    told = JsonlSource(paths=(str(made / "shards" / "*.jsonl.zst"),))
    report = ReadReport()
    documents = list(told.documents(None, report))
    assert [document.text for document in documents] == [row["text"] for row in rows_of(made)]
    assert report == ReadReport()

    sources = (JsonlSource(paths=(str(source),)), told)
    all_documents = [d for one in sources for d in one.documents(None, ReadReport())]
    kept, _ = deduplicate(all_documents, DedupConfig())
    told_keys = {document.key for document in documents}
    assert told_keys <= {document.key for document in kept}  # none is a near copy to data
    config = DataConfig(
        sources=sources, split=SplitConfig(file_fraction=0.05), tokenizer={"vocab_size": 400}
    )
    tokens = prepare(config, tmp_path)
    assert tokens.train.num_documents + tokens.val.num_documents == len(kept)


def test_what_data_holds_out_is_not_rephrased(source: Path, tmp_path: Path) -> None:
    held = SplitConfig(file_fraction=0.2)
    config = settings(tmp_path, source, split=held, rounds=1, shard_documents=100)
    manifest = rephrase(config, ManualClock())
    documents = list(config.sources[0].documents(None, ReadReport()))
    unique = list({document.text: document for document in reversed(documents)}.values())[::-1]
    _, held_out = split(unique, held)
    assert manifest["dropped"]["held_out"] == manifest["read"]["held_out"] == len(held_out) > 3
    assert not {document.key for document in held_out} & {
        row["source"] for row in rows_of(tmp_path)
    }


def test_a_chunk_may_stay_only_where_that_is_allowed(source: Path, tmp_path: Path) -> None:
    strict = {"fidelity": {"most_copied": 0.5}, "rounds": 1, "shard_documents": 100, "tries": 1}
    none = rephrase(settings(tmp_path / "a", source, most_kept=0.0, **strict), ManualClock())
    some = rephrase(settings(tmp_path / "b", source, most_kept=0.7, **strict), ManualClock())
    assert none["kept"] < some["kept"]
    assert none["stayed"] == {}
    assert some["stayed"]["copy"] == sum(row["stayed"] for row in rows_of(tmp_path / "b")) > 0
    assert none["dropped"]["copy"] > some["dropped"].get("copy", 0)


def test_a_finished_folder_is_left_alone_and_another_corpus_refused(
    source: Path, made: Path
) -> None:
    before = digests(made)
    rephrase(settings(made, source, workers=3), ManualClock())
    assert digests(made) == before
    with pytest.raises(ConfigError, match=r"other settings \(rounds\)"):
        rephrase(settings(made, source, rounds=1), ManualClock())


def test_sources_without_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        rephrase(settings(tmp_path / "a", tmp_path / "nothing.jsonl"), ManualClock())
    empty = tmp_path / "empty.jsonl"
    empty.write_text('{"text": " "}\n')
    with pytest.raises(DataError, match="have no document"):
        rephrase(settings(tmp_path / "b", empty), ManualClock())


def test_a_shard_of_nothing_is_read_too(tmp_path: Path) -> None:
    rephrase(settings(tmp_path / "out", corpus(tmp_path, [CODE])), ManualClock())
    told = JsonlSource(paths=(str(tmp_path / "out" / "shards" / "*.jsonl.zst"),))
    assert list(told.documents(None, ReadReport())) == []


def test_the_command_and_its_shipped_config(tmp_path: Path) -> None:
    shipped = load(RephrasingConfig, ROOT / "configs" / "rephrase.toml")
    assert isinstance(shipped.sources[0], FolderSource)
    assert not shipped.uses_models
    text = corpus(tmp_path, map(article, range(4)))
    arguments = [
        "rephrase",
        str(ROOT / "configs" / "rephrase.toml"),
        f"out_dir={tmp_path / 'out'}",
        f'sources=[{{kind="jsonl", paths=["{text}"]}}]',
        "rounds=1",
    ]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "of 4 rephrasings" in result.output
    assert len(rows_of(tmp_path / "out")) >= 2
