"""The web page's files, who gets them, and the endpoints that it reads."""

from __future__ import annotations

import re
import time
from pathlib import Path

import httpx
import pytest

import selenite.serve.http
from selenite.serve.http.page_files import PATHS
from tests.fixtures.server import KEY, ServerProcess

PAGE = Path(selenite.serve.http.__file__).parent / "page"
SECRET = "a zebra that nobody else has named"


def test_every_file_is_served_with_headers_that_keep_it_here(http: httpx.Client) -> None:
    assert {"/", "/page/main.js", "/page/style.css"} <= PATHS
    assert len(PATHS) == len(list(PAGE.iterdir()))
    for path in PATHS:
        answer = http.get(path)
        assert answer.status_code == 200
        assert answer.content == (PAGE / (path.rpartition("/")[2] or "index.html")).read_bytes()
        policy = answer.headers["content-security-policy"].split("; ")
        assert policy[0] == "default-src 'self'"
        assert not any("unsafe" in part or "*" in part for part in policy)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert http.head(path).status_code == 200
    assert http.get("/").headers["content-type"] == "text/html; charset=utf-8"
    assert http.get("/page/none.js").status_code == 404


@pytest.mark.parametrize("file", sorted(PAGE.iterdir()), ids=lambda path: path.name)
def test_files_name_no_other_host_and_parse_no_markup(file: Path) -> None:
    text = file.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert "://" not in text
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b", text)
    assert not re.search(r"\sstyle=|\son[a-z]+=|<style|javascript:", text)  # the policy forbids it


def test_the_page_takes_the_key_as_a_password_and_nothing_else_does(server: ServerProcess) -> None:
    with httpx.Client(base_url=server.url) as client:
        for path in PATHS:
            refused = client.get(path)
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"].startswith("Basic ")
            assert client.get(path, auth=("anybody", KEY)).status_code == 200
            assert client.get(path, auth=("", KEY)).status_code == 200
            for wrong in (("anybody", "wrong"), (KEY, ""), ("", "")):
                assert client.get(path, auth=wrong).status_code == 401
        for wrong in ("Basic", "Basic ?", f"Basic {KEY}", f"Digest {KEY}", "Basic bm8tY29sb24="):
            assert client.get("/", headers={"Authorization": wrong}).status_code == 401
        # A browser sends passwords along with what other sites ask for.
        for path in ("/v1/models", "/stats", "/requests", "/metrics", "/page/none.js"):
            refused = client.get(path, auth=("anybody", KEY))
            assert refused.status_code == 401
            assert "www-authenticate" not in refused.headers


def test_stats_count(http: httpx.Client) -> None:
    before = http.get("/stats").json()
    assert all(isinstance(value, int | float) for value in before.values())
    prompt = list(range(5, 45))
    body = {"prompt_token_ids": prompt, "max_tokens": 7, "ignore_eos": True}
    for _ in range(2):
        assert http.post("/generate", json=body).status_code == 200
    after = http.get("/stats").json()
    more = {name: after[name] - before[name] for name in before}
    assert more["ended"] == 2
    assert more["prompt_tokens"] == 80
    assert more["generation_tokens"] == 14
    assert more["prefix_cache_queries"] == 80
    assert more["prefix_cache_hits"] >= 32
    assert more["uptime"] > 0
    assert after["open"] == after["running"] == after["waiting"] == after["pages_in_use"] == 0
    assert 0 < after["pages_cached"] <= after["pages"]


def test_requests_tell_times_and_no_text(http: httpx.Client) -> None:
    body = {
        "messages": [{"role": "user", "content": SECRET}],
        "max_tokens": 6,
        "n": 2,
        "seed": 5,  # one of whose texts would not be too short to be found by chance
        "cache_salt": "salt-of-the-zebra",
    }
    answer = http.post("/v1/chat/completions", json=body).json()
    listed = http.get("/requests")
    assert SECRET not in listed.text
    assert "zebra" not in listed.text
    assert all(len(choice["message"]["content"]) >= 4 for choice in answer["choices"])
    assert all(choice["message"]["content"] not in listed.text for choice in answer["choices"])
    own = [it for it in listed.json()["requests"] if answer["id"].endswith(it["id"])]
    assert {it["index"] for it in own} == {0, 1}
    for timeline in own:
        assert set(timeline) == {
            "id", "index", "model", "arrival", "first_scheduled", "first_token", "last_token",
            "ended", "prompt_tokens", "cached_tokens", "completion_tokens", "preemptions",
            "finish_reason",
        }  # fmt: skip
        steps = ("arrival", "first_scheduled", "first_token", "last_token", "ended")
        times = [timeline[step] for step in steps]
        assert times == sorted(times)
        assert 0 < times[0] < listed.json()["uptime"]
        assert timeline["model"] == "tiny"
        assert timeline["prompt_tokens"] == answer["usage"]["prompt_tokens"]
        assert timeline["finish_reason"] in ("stop", "length")
    written = sum(timeline["completion_tokens"] for timeline in own)
    assert written == answer["usage"]["completion_tokens"]


def test_requests_shows_what_is_open_and_what_was_left(http: httpx.Client) -> None:
    body = {"prompt_token_ids": [5, 6, 7], "max_tokens": 3000, "ignore_eos": True, "stream": True}
    with http.stream("POST", "/generate", json=body) as stream:
        pieces = stream.iter_bytes()  # kept: an iterator that is dropped closes the connection
        next(pieces)
        first = http.get("/requests").json()["requests"][0]
        assert first["finish_reason"] is None
        assert first["ended"] is None
        assert first["first_token"] is not None
    for _ in range(200):
        left = http.get("/requests").json()["requests"][0]
        if left["ended"] is not None:
            break
        time.sleep(0.02)
    assert left["id"] == first["id"]
    assert left["finish_reason"] == "abort"


def test_the_last_hundred_are_kept(http: httpx.Client) -> None:
    body = {"prompt": [[5, 6]] * 60, "max_tokens": 1}
    for _ in range(2):
        assert http.post("/v1/completions", json=body).status_code == 200
    kept = http.get("/requests").json()["requests"]
    assert len(kept) == 100
    arrivals = [timeline["arrival"] for timeline in kept]
    assert arrivals == sorted(arrivals, reverse=True)
