"""Soak: mixed traffic at twice a server's capacity, much of it rude, for ten minutes.

    python -m experiments.soak [--minutes 10]

A real ``selenite serve`` with SmolLM2-135M-Instruct has twice as many clients as requests may be
open: streams, whole answers, tools and JSON schemas, embeddings; clients that go away in between,
that send malformed bodies, prompts that do not fit, grammars that do not compile, and that read
slowly. Requests read everything, blocks or chosen tokens, draft, or have their slots merged.
Every answer must be one that its request deserves, every accepted request must end, and when all
have ended no page may be in use. Row: serve.soak.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import psutil

from benchmarks.results import record
from selenite.clock import SystemClock
from tests.fixtures.server import free_port
from tests.fixtures.smollm2 import smollm2

RUNNING = 8
MOST_OPEN = 5 * RUNNING  # four times as many may wait as run
CLIENTS = 2 * MOST_OPEN
TEXT = "the sea a stone and light over old water under every hill that we saw once or never"
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
MODES = (
    {"mode": "full"},
    {"mode": "moba", "block_size": 32, "top_k": 2},
    {"mode": "tidal", "budget": 48, "correct_every": 24},
    {"mode": "tidal", "budget": 48, "drafts": 4},
    {"mode": "keepkv", "budget": 0.3, "every": 16},
    {"mode": "keepkv", "budget": 48, "every": 16, "refresh_every": 48},
    {"mode": "keepkv", "budget": 64, "every": 16, "reading": {"mode": "tidal", "budget": 32}},
)
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": SCHEMA}}


@dataclass
class Tally:
    """What came of the requests."""

    outcomes: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)  # by mode
    faults: list[str] = field(default_factory=list)

    def add(self, kind: str, outcome: str) -> None:
        self.outcomes[f"{kind}: {outcome}"] += 1

    def close(self) -> None:
        """A mode in which no reply ended is a fault."""
        for mode in map(json.dumps, MODES):
            if not self.ended[mode]:
                self.faults.append(f"no reply ended in {mode}")


@dataclass(frozen=True)
class Traffic:
    """A client that sends one request after another, each of a random kind."""

    http: httpx.AsyncClient
    rng: random.Random
    tally: Tally

    async def run(self, until: Callable[[], bool]) -> None:
        kinds: dict[str, tuple[int, Callable[[], Awaitable[str]]]] = {
            "stream": (6, self.stream),
            "whole": (4, self.whole),
            "tools": (2, self.tools),
            "schema": (2, self.schema),
            "embedding": (1, self.embedding),
            "goes away": (4, self.goes_away),
            "reads slowly": (1, self.reads_slowly),
            "malformed": (2, self.malformed),
            "too long": (2, self.too_long),
            "broken grammar": (2, self.broken_grammar),
        }
        weights = [weight for weight, _ in kinds.values()]
        while not until():
            [kind] = self.rng.choices(list(kinds), weights)
            await asyncio.sleep(self.rng.random() / 2)
            try:
                outcome = await kinds[kind][1]()
                self.tally.add(kind, outcome)
                if outcome == "429":
                    await asyncio.sleep(1)  # what Retry-After says
            except (httpx.HTTPError, AssertionError, ValueError, KeyError) as error:
                self.tally.add(kind, "FAULT")
                self.tally.faults.append(f"{kind}: {type(error).__name__}: {error}")

    def text(self, most: int) -> str:
        return " ".join(self.rng.choices(TEXT.split(), k=self.rng.randrange(1, most)))

    def chat(self, **fields: Any) -> dict[str, Any]:
        messages = [{"role": "user", "content": self.text(200)}]
        mode = self.rng.choice(MODES)
        most = self.rng.randrange(1, 96)
        return {"messages": messages, "max_tokens": most, "attention": mode, **fields}

    async def stream(self) -> str:
        body = self.chat(stream=True)
        async with self.http.stream("POST", CHAT, json=body) as answer:
            if answer.status_code != 200:
                return await refused(answer)
            lines = [line async for line in answer.aiter_lines() if line.startswith("data: ")]
        assert lines[-1] == "data: [DONE]", lines[-1:]
        last = json.loads(lines[-2].removeprefix("data: "))
        assert last["choices"][0]["finish_reason"] in ("stop", "length"), last
        self.tally.ended[json.dumps(body["attention"])] += 1
        return "ended"

    async def whole(self) -> str:
        body = {"prompt": self.text(300), "max_tokens": 64, "n": self.rng.randrange(1, 4)}
        body |= {"temperature": 1.0, "attention": self.rng.choice(MODES)}
        answer = await self.http.post(COMPLETIONS, json=body)
        if answer.status_code != 200:
            return await refused(answer)
        choices = answer.json()["choices"]
        assert len(choices) == body["n"]
        assert all(choice["finish_reason"] in ("stop", "length") for choice in choices), choices
        self.tally.ended[json.dumps(body["attention"])] += 1
        return "ended"

    async def tools(self) -> str:
        body = self.chat(tools=[TOOL], tool_choice=self.rng.choice(["auto", "required"]))
        answer = await self.http.post(CHAT, json=body)
        return await ended(answer)

    async def schema(self) -> str:
        form = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA}}
        answer = await self.http.post(CHAT, json=self.chat(response_format=form))
        if answer.status_code == 200 and answer.json()["choices"][0]["finish_reason"] == "stop":
            person = json.loads(answer.json()["choices"][0]["message"]["content"])
            assert set(person) == {"name", "age"}, person
        return await ended(answer)

    async def embedding(self) -> str:
        answer = await self.http.post("/v1/embeddings", json={"input": self.text(100)})
        return await ended(answer)

    async def goes_away(self) -> str:
        body = self.chat(stream=True) | {"max_tokens": 400}
        async with self.http.stream("POST", CHAT, json=body) as answer:
            if answer.status_code != 200:
                return await refused(answer)
            left = self.rng.randrange(1, 30)
            async for line in answer.aiter_lines():
                left -= line.startswith("data: ")
                if left <= 0:
                    return "gone"
        return "ended before"

    async def reads_slowly(self) -> str:
        body = self.chat(stream=True)
        async with self.http.stream("POST", CHAT, json=body) as answer:
            if answer.status_code != 200:
                return await refused(answer)
            last = ""
            async for line in answer.aiter_lines():
                last = line or last
                await asyncio.sleep(0.05)
        assert last == "data: [DONE]", last
        return "ended"

    async def malformed(self) -> str:
        good = json.dumps(self.chat()).encode()
        cut = self.rng.randrange(1, len(good))
        body = self.rng.choice(
            [good[:cut], b"\xff" + good, b"[" * 5000, b"", b"null", good.replace(b'"', b"'")]
        )
        path = self.rng.choice([CHAT, COMPLETIONS, "/v1/responses", "/v1/embeddings", "/generate"])
        answer = await self.http.post(path, content=body)
        return must_be(answer, 400, 422)

    async def too_long(self) -> str:
        ids = [1] * self.rng.choice([9_000, 50_000])
        return must_be(
            await self.http.post(COMPLETIONS, json={"prompt": ids, "max_tokens": 1}), 400
        )

    async def broken_grammar(self) -> str:
        regex = self.rng.choice(["((", "[z-a]", "(?P<", "a{5,2}"])
        body = self.chat(structured_outputs={"regex": regex})
        return must_be(await self.http.post(CHAT, json=body), 400)


async def ended(answer: httpx.Response) -> str:
    """Of an answer that is not streamed."""
    return "ended" if answer.status_code == 200 else await refused(answer)


async def refused(answer: httpx.Response) -> str:
    """A good request may only be told to come back later."""
    await answer.aread()
    assert answer.status_code == 429, (answer.status_code, answer.text[:300])
    assert "retry-after" in answer.headers, dict(answer.headers)
    return "429"


def must_be(answer: httpx.Response, *statuses: int) -> str:
    """A bad request is refused for what it is; a full queue may be seen first."""
    assert answer.status_code in (*statuses, 429), (answer.status_code, answer.text[:300])
    return str(answer.status_code)


async def soak(url: str, minutes: float, tally: Tally) -> None:
    """All clients until the time is over, and then the checks."""
    clock = SystemClock()
    end = clock.now() + 60 * minutes
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=300, limits=limits) as http:
        clients = [Traffic(http, random.Random(i), tally) for i in range(CLIENTS)]
        await asyncio.gather(*(client.run(lambda: clock.now() > end) for client in clients))
        for _ in range(100):
            load = (await http.get("/load")).json()
            if not (load["running"] or load["waiting"] or load["pages_in_use"]):
                break
            await asyncio.sleep(0.1)
        else:
            tally.faults.append(f"left over when all had ended: {load}")
        tally.close()
        health = await http.get("/health")
        if health.status_code != 200:
            tally.faults.append(f"/health: {health.status_code}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="other: no row")
    arguments = parser.parse_args()
    tally, port = Tally(), free_port()
    command = [sys.executable, "-m", "selenite", "serve", str(smollm2()), "--port", str(port)]
    # A cache that a third of the running requests can fill: some are preempted.
    command += ["--max-num-seqs", str(RUNNING), "--kv-cache-tokens", "8192"]
    with tempfile.NamedTemporaryFile("r") as log, open(log.name, "w") as written:
        server = subprocess.Popen(command, stdout=written, stderr=written)
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until_healthy(url, server)
            before = psutil.Process(server.pid).memory_info().rss
            asyncio.run(soak(url, arguments.minutes, tally))
            grown = (psutil.Process(server.pid).memory_info().rss - before) / 2**20
        finally:
            server.terminate()
            code = server.wait(60)
        if code != 0:
            tally.faults.append(f"the server's exit code is {code}")
        tally.faults += [f"log: {line}" for line in log if "Traceback" in line or "ERROR" in line]
    for outcome, count in sorted(tally.outcomes.items()):
        print(f"{count:7d}  {outcome}")
    print(f"memory grew by {grown:.0f} MiB; faults: {len(tally.faults)}")
    print("\n".join(tally.faults[:20]))
    total = sum(tally.outcomes.values())
    if arguments.minutes == parser.get_default("minutes"):
        ended_well = sum(n for outcome, n in tally.outcomes.items() if outcome.endswith("ended"))
        record(
            "serve.soak",
            f"Ten minutes of mixed and rude traffic at twice capacity ({CLIENTS} clients, "
            f"{RUNNING} running): answers, pages, ends and log lines that are not as they must be",
            len(tally.faults),
            "faults",
            low=0,
            high=0,
            runs=total,
            target="== 0",
            reference=None,
            command="python -m experiments.soak",
            note=f"{total} requests, {ended_well} of them ended with their answer; memory grew by "
            f"{grown:.0f} MiB",
        )


def wait_until_healthy(url: str, server: subprocess.Popen[bytes]) -> None:
    """Returns when requests are taken."""
    clock = SystemClock()
    end = clock.now() + 120
    while clock.now() < end and server.poll() is None:
        try:
            if httpx.get(f"{url}/health").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise RuntimeError("the server did not start")


if __name__ == "__main__":
    main()
