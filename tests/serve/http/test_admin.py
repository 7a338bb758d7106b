"""Pausing, sleeping and other weights, on a server of their own."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from selenite.model.decode import decode
from selenite.model.hf_adapter import load_pretrained, save_pretrained
from selenite.serve.weight_update import directory_sha256
from selenite.types import SamplingParams
from tests.fixtures.server import ServerProcess
from tests.fixtures.tiny import k2_config, tiny_model

PROMPT = [5, 6, 7, 8, 9]
CONFIG = {"vocab_size": 600, "max_positions": 4096}


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Model directories: other weights, another model, and a damaged one."""
    folder = tmp_path_factory.mktemp("others")
    save_pretrained(tiny_model(k2_config(**CONFIG), seed=5), folder / "new")
    save_pretrained(tiny_model(k2_config(**CONFIG, num_layers=2)), folder / "smaller")
    shutil.copytree(folder / "new", folder / "damaged")
    file = folder / "damaged" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-100] ^= 1
    file.write_bytes(content)
    return {path.name: path for path in folder.iterdir()}


@pytest.fixture(scope="module")
def http(model: Path) -> Iterator[httpx.Client]:
    server = ServerProcess(model, "--admin")
    with server.client() as client:
        yield client
    server.stop()


def generate(http: httpx.Client, max_tokens: int = 6) -> dict[str, Any]:
    body = {"prompt_token_ids": PROMPT, "max_tokens": max_tokens, "temperature": 0}
    answer = http.post("/generate", json=body | {"ignore_eos": True})
    assert answer.status_code == 200, answer.text
    tokens: dict[str, Any] = answer.json()["choices"][0]["tokens"]
    return tokens


def expected(directory: Path) -> list[int]:
    greedy = SamplingParams(temperature=0, max_tokens=6)
    return decode(load_pretrained(directory), [PROMPT], [greedy])[0].token_ids


def test_weights_are_replaced_or_nothing_changes(
    http: httpx.Client, model: Path, others: dict[str, Path]
):
    before = generate(http)
    assert (before["token_ids"], before["weight_versions"]) == (expected(model), [0] * 6)
    assert http.get("/weights").json() == {"version": 0, "sha256": None}
    refused = {
        "not a model directory": {"path": str(others["new"].parent)},
        "different: num_layers": {"path": str(others["smaller"])},
        "checksum differs": {"path": str(others["damaged"])},
        "its SHA-256 is": {"path": str(others["new"]), "sha256": "0" * 64},
        "must be above 0": {"path": str(others["new"]), "version": 0},
    }
    for reason, body in refused.items():
        answer = http.post("/update_weights", json=body)
        assert answer.status_code == 400, answer.text
        assert reason in answer.json()["error"]["message"]
    assert generate(http) == before
    digest = directory_sha256(others["new"])
    body = {"path": str(others["new"]), "version": 12, "sha256": digest}
    answer = http.post("/update_weights", json=body)
    assert answer.json()["weights"] == {"version": 12, "sha256": digest}, answer.text
    after = generate(http)
    assert (after["token_ids"], after["weight_versions"]) == (expected(others["new"]), [12] * 6)
    assert after["token_ids"] != before["token_ids"]


@pytest.mark.parametrize("path", ["a" * 5000, "/dev/null", "\0", "."])
def test_a_path_that_cannot_be_read_is_the_clients_fault(http: httpx.Client, path: str):
    answer = http.post("/update_weights", json={"path": path})
    assert answer.status_code == 400, answer.text


@pytest.mark.parametrize("ending", ["resume", "wake_up"])
def test_a_paused_or_sleeping_server_goes_on_where_it_was(http: httpx.Client, ending: str):
    before = generate(http, 60)
    state = http.post("/sleep" if ending == "wake_up" else "/pause").json()
    assert state["is_paused"]
    results: list[dict[str, Any]] = []
    waiting = threading.Thread(target=lambda: results.append(generate(http, 60)))
    waiting.start()
    waiting.join(0.5)
    assert waiting.is_alive()
    assert not http.post(f"/{ending}").json()["is_paused"]
    waiting.join(30)
    assert results == [before]


def test_a_pause_can_end_what_runs(http: httpx.Client):
    answers: list[httpx.Response] = []
    body = {"prompt_token_ids": PROMPT, "max_tokens": 4000, "ignore_eos": True}
    running = threading.Thread(target=lambda: answers.append(http.post("/generate", json=body)))
    running.start()
    while http.get("/load").json()["running"] == 0:
        pass
    assert http.post("/pause", json={"mode": "abort"}).json()["is_paused"]
    running.join(30)
    assert answers[0].status_code == 503, answers[0].text
    assert "its operator ended what ran" in answers[0].json()["error"]["message"]
    http.post("/resume")
    assert len(generate(http)["token_ids"]) == 6


@pytest.mark.parametrize("header", ["Origin", "Sec-Fetch-Site"])
def test_a_page_in_a_browser_changes_nothing(http: httpx.Client, header: str):
    value = {"Origin": "https://elsewhere.org", "Sec-Fetch-Site": "cross-site"}[header]
    requests = [("POST", path) for path in ("/pause", "/resume", "/sleep", "/wake_up")]
    requests += [("POST", "/update_weights"), ("GET", "/weights")]
    for method, path in requests:
        body = {"path": "somewhere"} if path == "/update_weights" else {}
        answer = http.request(method, path, headers={header: value}, json=body)
        assert answer.status_code == 403, (path, answer.text)
        error = answer.json()["error"]
        assert (error["type"], error["code"]) == ("permission_error", "forbidden")
        assert f"{header}: this endpoint is for programs" in error["message"]
    assert len(generate(http)["token_ids"]) == 6  # nothing is paused


def test_without_the_option_there_is_no_such_endpoint(server: ServerProcess):
    with server.client() as http:
        for path in ("/pause", "/resume", "/sleep", "/wake_up", "/update_weights"):
            assert http.post(path, json={}).status_code == 404
