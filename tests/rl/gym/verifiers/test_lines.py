"""Two processes that talk by lines: order, ends, and what is no answer."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from selenite.rl.gym.verifiers.theirs import selenite_lines
from selenite.rl.gym.verifiers.theirs.selenite_lines import Asked, AskedError

SCRIPT = """
import asyncio, os, sys, threading
from selenite_lines import serve

waiting = {}

async def answer(request):
    op = request["op"]
    if op == "wait":
        waiting[request["name"]] = asyncio.Event()
        await waiting[request["name"]].wait()
        return {"name": request["name"]}
    if op == "free":
        waiting[request["name"]].set()
    if op == "die":
        print("last words", file=sys.stderr)
        os._exit(7)
    if op == "hang":
        threading.Event().wait()
    if op == "garbage":
        os.write(int(request["descriptor"]), b"no json\\n")
    if op == "raise":
        raise KeyError("it") from ValueError("that")
    os.system("echo from a child")
    print("on stdout")
    return {"pid": os.getpid()}

def make():
    print("nobody reads this")
    return answer

serve(make)
"""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    monkeypatch.setenv("PYTHONPATH", str(Path(selenite_lines.__file__).parent))
    return Asked([sys.executable, "-c", SCRIPT])


def test_answers_come_in_any_order_and_nothing_else_is_one(asked: Asked) -> None:
    names = [str(number) for number in range(20)]
    futures = {name: asked.begin("wait", name=name) for name in names}
    for name in reversed(names):
        assert not futures[name].done()
        asked.ask("free", name=name)
        assert futures[name].result(10) == {"name": name}
    assert asked.ask("anything") == {"pid": asked.pid}
    asked.close()


def test_an_exception_is_told_with_its_cause_and_ends_nothing(asked: Asked) -> None:
    with pytest.raises(AskedError, match="KeyError: 'it', because of ValueError: that"):
        asked.ask("raise")
    assert asked.is_alive
    asked.close()


def test_what_waits_for_a_process_that_ends_fails_with_its_last_words(asked: Asked) -> None:
    future = asked.begin("wait", name="a")
    for ask in (lambda: asked.ask("die"), lambda: future.result(10), lambda: asked.ask("anything")):
        with pytest.raises(AskedError, match=r"(?s)exit code 7.*last words"):
            ask()
    assert not asked.is_alive


def test_what_is_no_answer_ends_the_process(asked: Asked) -> None:
    for descriptor in range(3, 12):  # one of them is where answers go
        try:
            asked.ask("garbage", descriptor=descriptor, seconds=10)
        except AskedError as error:
            if "what is no answer: 'no json" in str(error):
                break
    assert not asked.is_alive


def test_one_that_hangs_ends_with_its_input(asked: Asked) -> None:
    future = asked.begin("hang")
    with pytest.raises(TimeoutError):
        asked.ask("anything", 0.5)
    asked.close()
    with pytest.raises(AskedError, match="it was closed"):
        future.result(10)
    with pytest.raises(ProcessLookupError):
        os.kill(asked.pid, 0)


def test_a_command_that_is_none_says_so() -> None:
    with pytest.raises(AskedError, match="/no/such/thing does not start"):
        Asked(["/no/such/thing"])
