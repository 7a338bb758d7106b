"""A corpus from the command line: reproducible byte for byte, resumable, shown and exported."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from html import unescape
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from selenite.agent import workers
from selenite.agent.ontology.acceptance import admit, build, examine
from selenite.agent.rows import read_rows, write_rows
from selenite.agent.synthesis import pipeline, shards
from selenite.agent.synthesis.config import SynthesisConfig, sources_digest
from selenite.agent.synthesis.duplicates import find_duplicates
from selenite.agent.synthesis.export import export
from selenite.agent.synthesis.pipeline import synthesize, trajectories
from selenite.agent.synthesis.shards import known_shard, read_json
from selenite.agent.synthesis.splits import SPLITS
from selenite.agent.tasks.author import make_task
from selenite.agent.tasks.task import Task
from selenite.agent.tools.tool import signature
from selenite.chat.tokenizer import Tokenizer
from selenite.cli.main import app
from selenite.errors import ConfigError, DataError, StorageError
from tests.test_atomic import files_end_at

SIZE = {"seed": 3, "domains": 8, "tasks": 240, "shard_tasks": 40}


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


@pytest.fixture
def copy(corpus: Path, tmp_path: Path) -> Path:
    return shutil.copytree(corpus, tmp_path / "copy")


@pytest.mark.parametrize("change", [{"more": 1}, {"seed": None}], ids=["more", "less"])
def test_a_setting_more_or_less_is_named(copy: Path, change: dict[str, int | None]) -> None:
    path = copy / "config.json"
    known = json.loads(path.read_text()) | change
    path.write_text(json.dumps({name: v for name, v in known.items() if v is not None}))
    with pytest.raises(ConfigError, match=rf"other settings \({next(iter(change))}\)"):
        synthesize(make(copy))


@pytest.mark.parametrize("is_finished", [True, False])
def test_a_corpus_of_other_sources_is_refused(
    copy: Path, is_finished: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_finished:
        (copy / "manifest.json").unlink()
    before = digests(copy)
    monkeypatch.setattr(pipeline, "sources_digest", lambda: "0" * 64)
    with pytest.raises(ConfigError, match=r"another version of selenite's sources .* choose"):
        synthesize(make(copy))
    assert digests(copy) == before


def test_what_the_digest_of_the_sources_is_of(corpus: Path, tmp_path: Path) -> None:
    for name in ("config.json", "manifest.json"):
        assert len(json.loads((corpus / name).read_text())["sources"]) == 64
    package = tmp_path / "selenite"
    for part in ("agent", "chat", "data"):
        shutil.copytree(Path(pipeline.__file__).parents[2] / part, package / part)
    agent = package / "agent"
    known = sources_digest(package)
    (agent / "mcp" / "more.py").write_text("")
    (agent / "values" / "notes.txt").write_text("")
    assert sources_digest(package) == known
    found = {known}
    names = (
        "../chat/openai_form.py",
        "randomness.py",
        "models/request.py",
        "roles/prompts.toml",
        "values/words.toml",
        "ontology/acceptance.py",
        "tools/tool.py",
        "world/world.py",
        "tasks/author.py",
        "tasks/templates/single.py",
        "users/speech.toml",
        "episodes/agents.toml",
        "judges/replay.py",
        "synthesis/shards.py",
        "synthesis/splits.py",
        "synthesis/duplicates.py",
        "synthesis/pairs.py",
        "functions/pools.toml",
        "../data/documents.py",
    )
    for name in names:
        with (agent / name).open("a") as file:
            file.write("# changed")
        found.add(sources_digest(package))
    (agent / "values" / "words.toml").rename(agent / "values" / "other.toml")
    assert len(found | {sources_digest(package)}) == len(names) + 2


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


SPOIL = (shorten, Path.unlink)


def alter(path: Path) -> None:
    """Still a file that can be read."""
    path.write_text(path.read_text() + "\n")


@pytest.mark.parametrize(
    ("name", "spoil", "is_finished"),
    [
        *(("shards/00002.jsonl.zst", spoil, is_it) for spoil in SPOIL for is_it in (True, False)),
        ("contrasts/00002.jsonl.zst", shorten, True),
        ("contrasts/00002.jsonl.zst", Path.unlink, False),
        ("shards/00002.json", Path.unlink, True),
        ("shards/00002.json", shorten, False),
        ("tools.jsonl.zst", Path.unlink, True),
        ("tools.jsonl.zst", shorten, False),
    ],
)
def test_what_was_altered_is_made_again(
    corpus: Path, copy: Path, name: str, spoil: Callable[[Path], None], is_finished: bool
) -> None:
    if not is_finished:
        (copy / "manifest.json").unlink()
    spoil(copy / name)
    stages = set[str]()
    manifest = synthesize(make(copy), lambda progress: stages.add(progress.stage))
    assert digests(copy) == digests(corpus)
    assert manifest == json.loads((corpus / "manifest.json").read_text())
    assert ("repository" in stages) == name.startswith("tools")


@pytest.mark.parametrize("name", ["repository.json", "duplicates.json", "shards/00001.json"])
def test_a_finished_corpus_is_verified(corpus: Path, copy: Path, name: str) -> None:
    alter(copy / name)
    synthesize(make(copy))
    assert digests(copy) == digests(corpus)


def test_duplicates_are_found_again_when_a_shard_was_made(corpus: Path, copy: Path) -> None:
    (copy / "manifest.json").unlink()
    (copy / "duplicates.json").write_text('{"exact": ["3-1"], "structural": [], "near": []}')
    shorten(copy / "shards" / "00000.jsonl.zst")
    synthesize(make(copy))
    assert digests(copy) == digests(corpus)


BROKEN = ("", '{"seed": 3', "[]", '{"tasks": "many"}', "\0")


@pytest.mark.parametrize("name", ["manifest.json", "duplicates.json", "repository.json"])
def test_a_broken_file_is_named(corpus: Path, copy: Path, name: str) -> None:
    (copy / "manifest.json").unlink()
    for content in BROKEN:
        (copy / name).write_text(content)
        with pytest.raises(DataError, match=rf"{name}: broken .* remove it"):
            synthesize(make(copy))
    (copy / name).unlink()
    synthesize(make(copy))
    assert digests(copy) == digests(corpus)


@pytest.mark.parametrize("content", [None, "", "[]"])
def test_without_its_settings_a_corpus_is_refused(copy: Path, content: str | None) -> None:
    path = copy / "config.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(DataError, match=r"config.json.* nothing says .* choose another out_dir"):
        synthesize(make(copy))


def test_a_tally_that_is_none(corpus: Path, copy: Path) -> None:
    path = copy / "shards" / "00000.json"
    tally = json.loads(path.read_text())
    for change in ({"more": 1}, {"tasks": "40"}, {"sha256": {}}):
        path.write_text(json.dumps(tally | change))
        assert known_shard(make(copy), "", 0) is None
    for content in BROKEN:
        path.write_text(content)
        assert known_shard(make(copy), "", 0) is None
    path.write_text(json.dumps(tally))
    assert known_shard(make(copy), "", 0) == known_shard(make(corpus), "", 0) is not None


def test_no_more_workers_than_jobs_and_cores(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[int]()

    class Pool(workers.ProcessPoolExecutor):
        def __init__(self, max_workers: int, **options: Any) -> None:
            asked.append(max_workers)
            super().__init__(min(max_workers, 2), **options)

    monkeypatch.setattr(workers, "ProcessPoolExecutor", Pool)
    for cores, changes in ((64, {}), (3, {}), (None, {}), (64, {"domains": 40})):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        folder = shutil.copytree(corpus, tmp_path / str(len(asked)))
        (folder / "manifest.json").unlink()
        (folder / "config.json").unlink()
        config = make(folder, workers=100_000, **changes)
        (folder / "config.json").write_text(
            json.dumps(config.decisive() | {"sources": sources_digest()})
        )
        synthesize(config)
    assert asked == [6, 3, 1, 10]


def test_rows_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "a" / "rows.jsonl.zst"
    rows = [{"text": "one\u2028two\x85three\x0b\x1c\r\nfour"}, {"text": ""}]
    write_rows(path, rows)
    assert list(read_rows(path)) == rows
    whole = path.read_bytes()
    with files_end_at(10), pytest.raises(StorageError, match=r"rows.jsonl.zst: cannot be written"):
        write_rows(path, rows[:1])
    assert path.read_bytes() == whole
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("text", [b'{"id": 1}\n{"id"', b"[1]\n", b"\xff\n", None])
def test_broken_rows_are_named(tmp_path: Path, text: bytes | None) -> None:
    zstandard = pytest.importorskip("zstandard")
    path = tmp_path / "rows.jsonl.zst"
    path.write_bytes(b"none" if text is None else zstandard.compress(text))
    with pytest.raises(DataError, match=r"rows.jsonl.zst: broken .* remove it"):
        list(read_rows(path))
    with pytest.raises(DataError, match=r"none.json is missing"):
        read_json(tmp_path / "none.json", dict)


def test_a_task_is_made_once(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = list[int]()

    def counted(seed: int, number: int, *rest: Any) -> Task:
        made.append(number)
        return make_task(seed, number, *rest)

    monkeypatch.setattr(shards, "make_task", counted)
    numbers = json.loads((corpus / "repository.json").read_text())["numbers"]
    shards.make_shard(make(tmp_path), shards.Place(numbers, ""), 1, 1)
    assert made == [*range(40, 80)]
    assert digests(tmp_path).items() <= digests(corpus).items()


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
    shown = unescape(re.sub(r"<[^>]+>", "", html))
    assert all(event["tool"] in shown for event in row["events"])
    assert row["messages"][-1]["content"][:40] in " ".join(re.sub(r"[│\s]+", " ", shown).split())
    for name in ("nothing", "3-999999", "commerce-9999", f"foo-{number:04d}"):
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


def export_fails(*arguments: str | Path) -> BaseException | None:
    return CliRunner().invoke(app, ["synth", "export", *map(str, arguments)]).exception


def test_an_export_that_cannot_be_is_refused(copy: Path, tmp_path: Path) -> None:
    file = tmp_path / "out.jsonl"
    wrong = export_fails(copy, file, "--split", "trian")
    assert isinstance(wrong, ConfigError)
    assert "train, category" in str(wrong)
    for folder in (copy, copy / "config.json" / "below"):
        assert isinstance(export_fails(copy, folder), StorageError)
    shorten(copy / "shards" / "00001.jsonl.zst")
    assert isinstance(export_fails(copy, file), DataError)
    (copy / "shards" / "00001.jsonl.zst").unlink()
    missing = export_fails(copy, file)
    assert isinstance(missing, DataError)
    assert "00001.jsonl.zst is missing" in str(missing)
    assert list(tmp_path.iterdir()) == [copy]


def test_export_into_a_pipe(corpus: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE) as reader:
        export(islice(trajectories(corpus), 2), pipe, "chat")
        assert reader.stdout is not None
        assert len(reader.stdout.read().splitlines()) == 2


def test_splits_hold_out_whole_categories_styles_and_templates(corpus: Path) -> None:
    from selenite.agent.synthesis.splits import HELD_OUT_TEMPLATES

    rows = list(trajectories(corpus))
    assert set(SPLITS) >= {row["split"] for row in rows} >= {"train", "template"}
    assert sum(len(list(trajectories(corpus, split))) for split in SPLITS) == len(rows)
    training = [row for row in rows if row["split"] == "train"]
    assert not HELD_OUT_TEMPLATES & {row["task"]["template"] for row in training}
    domains = {row["task"]["setting"]["domain"] for row in training}
    assert not domains & {
        row["task"]["setting"]["domain"]
        for row in rows
        if row["split"] in ("domain", "category", "style")
    }
