"""Models as back ends, over HTTP: whatever they do, each rephrasing is kept or counted."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from selenite.agent.models.totals import read_ledger
from selenite.agent.rephrasing.by_model import cleaned
from selenite.agent.rephrasing.original import Original
from selenite.agent.rephrasing.passage import Passage
from selenite.agent.rephrasing.pipeline import rephrase
from selenite.agent.rephrasing.rules.rewriter import Rules
from selenite.agent.rephrasing.styles import choose
from selenite.agent.rows import read_rows
from selenite.clock import ManualClock
from selenite.errors import EndpointError
from tests.agent.models.stub import answer
from tests.agent.rephrasing.texts import article, corpus, settings
from tests.fixtures.scripted_server import Answer, ScriptedServer, json_answer, scripted_server

PASSAGE = re.compile(r"<passage>\n(.*)\n</passage>", re.DOTALL)
SEEN = re.compile(r"<written>\n(.*)\n</written>", re.DOTALL)
OUTAGE = json_answer({"error": "down"}, 503)


def told(text: str) -> str:
    """What a good model would answer: here, the rules."""
    style, perspective = choose(0, 0, 0)
    rewritten = Rules().rewrite(
        Passage(text, Original(text), "", "x", style, perspective, 0, (0, 0, 0)), []
    )
    return rewritten if isinstance(rewritten, str) else text


def passage_of(body: dict[str, Any]) -> str:
    found = PASSAGE.search(body["messages"][1]["content"])
    assert found is not None
    return found[1]


def good(body: dict[str, Any]) -> Answer:
    return answer(told(passage_of(body)))


@contextmanager
def model(reply: Callable[[dict[str, Any]], Answer]) -> Iterator[ScriptedServer]:
    lock = threading.Lock()

    def script(path: str, body: Any) -> Answer:
        with lock:
            return reply(body)

    with scripted_server(script) as server:
        yield server


def backend(server: ScriptedServer, **more: Any) -> dict[str, Any]:
    return {"kind": "model", "base_url": server.url, "model": "m", "timeout": 5.0, **more}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpus(tmp_path_factory.mktemp("source"), map(article, range(12)))


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpus(tmp_path_factory.mktemp("few"), map(article, range(4)))


def run(out: Path, source: Path, server: ScriptedServer, **changes: Any) -> dict[str, Any]:
    fields = {"backends": [backend(server)], "rounds": 1, "shard_documents": 4, "most_kept": 0.0}
    fields |= {"fidelity": {"most_copied": 1.0}, **changes}
    manifest = rephrase(settings(out, source, **fields), ManualClock())
    read_ledger(out / "ledger.jsonl").check_integrity()
    return manifest


def test_a_good_model_is_asked_chunk_by_chunk_with_what_it_wrote(
    source: Path, tmp_path: Path
) -> None:
    with model(good) as server:
        manifest = run(tmp_path, source, server, chunk_chars=600, context_chars=300)
        bodies = [body for _, body in server.requests]
    assert manifest["kept"] == 12
    assert manifest["backends"] == {"m": 12}
    assert manifest["chunks"] == manifest["models"]["calls"] == len(bodies) >= 3 * 12
    assert manifest["models"]["tokens_out"] == 20 * len(bodies)
    rows = [row for path in (tmp_path / "shards").glob("*.zst") for row in read_rows(path)]
    whole = " ".join(" ".join(row["text"].split()) for row in rows)
    seen = [SEEN.search(body["messages"][1]["content"]) for body in bodies]
    assert sum(match is None for match in seen) == 12  # the first chunk of each
    for match in seen:
        if match is not None:
            assert len(match[1]) <= 300
            assert " ".join(match[1].split()) in whole
    systems = Counter(body["messages"][0]["content"] for body in bodies)
    assert len(systems) > 8  # styles and perspectives
    assert len({body["seed"] for body in bodies}) == len(bodies)


BAD: dict[str, tuple[Callable[[dict[str, Any]], Answer], str]] = {
    "a copy": (lambda body: answer(passage_of(body)), "copy"),
    "cut": (lambda body: answer(passage_of(body)[:300], "length"), "truncated"),
    "something else": (lambda body: answer("The weather is fine today. " * 40), "unrelated"),
    "a number": (
        lambda body: answer(told(passage_of(body)) + " That is 123456 in all."),
        "new_numbers",
    ),
    "no digits": (lambda body: answer(re.sub(r"\d", "", told(passage_of(body)))), "lost_code"),
    "a refusal": (lambda body: answer(None, refusal="I cannot."), "declined"),
    "a filter": (lambda body: answer("half", "content_filter"), "declined"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_a_model_does_wrong_is_told_to_it_and_counted(
    name: str, few: Path, tmp_path: Path
) -> None:
    bad, reason = BAD[name]
    with model(bad) as server:
        manifest = run(tmp_path, few, server, fidelity={"most_copied": 0.95})
        bodies = [body for _, body in server.requests]
    assert manifest["kept"] == 0
    assert manifest["dropped"] == {reason: 4}
    tries = 1 if reason == "declined" else 3
    assert manifest["faults"] == {reason: tries * 4}
    assert len(bodies) == tries * 4
    again = [body["messages"] for body in bodies if len(body["messages"]) > 2]
    assert len(again) == (0 if reason in ("declined", "truncated") else 2 * 4)
    for messages in again:
        assert messages[2]["role"] == "assistant"
        assert messages[3]["content"].startswith("This cannot be used: ")


def test_a_model_that_mends_what_it_is_told(few: Path, tmp_path: Path) -> None:
    def reply(body: dict[str, Any]) -> Answer:
        is_first = len(body["messages"]) == 2
        return answer(passage_of(body)) if is_first else good(body)

    with model(reply) as server:
        manifest = run(tmp_path, few, server, fidelity={"most_copied": 0.95})
    assert manifest["kept"] == 4
    assert manifest["faults"]["copy"] == manifest["chunks"]


def test_chunks_stay_where_that_is_configured(source: Path, tmp_path: Path) -> None:
    def reply(body: dict[str, Any]) -> Answer:
        return answer(passage_of(body)) if "catalogue is read" in passage_of(body) else good(body)

    with model(reply) as server:
        limits = {"fidelity": {"most_copied": 0.95}, "chunk_chars": 600}
        manifest = run(tmp_path, source, server, most_kept=0.6, **limits)
    assert manifest["kept"] == 12
    assert manifest["stayed"] == {"copy": 12}


def test_an_outage_writes_nothing_and_the_next_call_goes_on(source: Path, tmp_path: Path) -> None:
    is_up = True

    def reply(body: dict[str, Any]) -> Answer:
        nonlocal is_up
        is_up = is_up and "catalogue_6" not in passage_of(body)
        return good(body) if is_up else OUTAGE

    with model(reply) as server:
        with pytest.raises(EndpointError, match=r"server_error.*run the same command again"):
            run(tmp_path, source, server)
        done = sorted(path.name for path in (tmp_path / "shards").glob("*.json"))
        assert done == ["00000.json"]
        paid = read_ledger(tmp_path / "ledger.jsonl").succeeded

    with model(good) as server:
        manifest = run(tmp_path, source, server)
        assert manifest["kept"] == 12
        assert len(server.requests) == manifest["chunks"] - paid  # nothing is asked twice
    assert read_ledger(tmp_path / "ledger.jsonl").succeeded > paid


def test_single_failures_are_dropped_and_counted(source: Path, tmp_path: Path) -> None:
    def reply(body: dict[str, Any]) -> Answer:
        return OUTAGE if "catalogue_5" in passage_of(body) else good(body)

    with model(reply) as server:
        manifest = run(tmp_path, source, server, workers=3, most_kept=0.5, most_failed=0.3)
    assert manifest["dropped"] == {"server_error": 1}
    assert manifest["kept"] == 11
    assert manifest["stayed"] == {}  # an outage is no reason to keep a chunk
    assert manifest["models"]["failed"] == {"server_error": 1}


def test_a_judge_may_only_object(source: Path, tmp_path: Path) -> None:
    asked: list[str] = []

    def judge(body: dict[str, Any]) -> Answer:
        text = body["messages"][1]["content"]
        asked.append(text)
        if "catalogue_2" in text:
            return answer("I would rather not say.")
        verdict = {
            "difference": "the roof" if "catalogue_1." in text else "",
            "is_faithful": "catalogue_1." not in text,
        }
        return answer(json.dumps(verdict))

    def writer(body: dict[str, Any]) -> Answer:
        return answer(passage_of(body)) if "catalogue_3" in passage_of(body) else good(body)

    with model(writer) as server, model(judge) as other:
        manifest = run(
            tmp_path,
            source,
            server,
            judge={"base_url": other.url, "model": "j", "json_mode": "prompt"},
            fidelity={"most_copied": 0.95},
            chunk_chars=4000,
            most_failed=1.0,
        )
    assert manifest["dropped"] == {"copy": 1, "judge_not_json": 1, "unfaithful": 1}
    assert manifest["kept"] == 9
    assert not any("catalogue_3" in text for text in asked)  # what code rejects is not judged


def test_a_mixture_with_the_rules(source: Path, tmp_path: Path) -> None:
    with model(good) as server:
        parts = [{"kind": "rules", "weight": 1.0}, backend(server, weight=1.0)]
        manifest = run(tmp_path, source, server, backends=parts, workers=4)
    assert set(manifest["backends"]) == {"rules", "m"}
    assert manifest["kept"] + sum(manifest["dropped"].values()) == 12


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        ("  A text. \n", "A text."),
        ("<think>\nhm\n</think>\n\nA text.", "A text."),
        ("<passage>\nA text.\n</passage>", "A text."),
        ("<rewrite>A text.", "A text."),
        ("```markdown\nA text.\n```", "A text."),
        ("A text:\n```\ncode\n```", "A text:\n```\ncode\n```"),
        ("```\na\n```\nand\n```\nb\n```", "```\na\n```\nand\n```\nb\n```"),
    ],
)
def test_what_stands_around_a_reply_is_taken_away(reply: str, text: str) -> None:
    assert cleaned(reply, "A source.") == text


def test_a_source_that_is_code_keeps_its_fence() -> None:
    assert cleaned("```\na\n```", "```\na\n```") == "```\na\n```"
