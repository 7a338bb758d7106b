"""What dies or hangs, around a domain's process."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from selenite.eval.tau2 import process
from selenite.eval.tau2.process import Process

SCRIPTS = Path(process.__file__).parent
FAKE = """
import os
import official

class Fake:
    def play(self, task, solo):
        if task == "asks":
            official._say(official._turns, {"ask": "agent", "messages": []})
            official._turns.readline()
        if task == "dies when asked":
            official._say(official._turns, {"ask": "agent", "messages": []})
            os._exit(1)
        if task == "dies in mid-line":
            official._turns.write('{"ask": "ag')
            official._turns.flush()
            os._exit(1)
        files = (os.path.realpath(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd"))
        return {"sockets": sum("socket:" in file for file in files)}

episodes = official.Episodes(Fake())
"""


def run(body: str) -> list[str]:
    """Lines printed by a script about episodes of a domain that is none."""
    command = [sys.executable, "-c", FAKE + body]
    environment = {"PYTHONPATH": str(SCRIPTS), "PATH": "/usr/bin:/bin"}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def test_an_episode_that_died_ends_alone() -> None:
    printed = run("""
print(episodes.open(1, "dies when asked", False))
os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
print(episodes.reply(1, {"text": "Hello.", "calls": None}))
print(episodes.open(2, "dies in mid-line", False))
print(episodes.open(3, "asks", False))
print(episodes.reply(3, {"text": "Hello.", "calls": None}))
""")
    asked = "{'ask': 'agent', 'messages': []}"
    lost = "{{'lost': 'episode {}: its process ended'}}"
    assert printed == [asked, lost.format(1), lost.format(2), asked, "{'sockets': 1}"]


def test_an_episode_has_no_descriptor_of_another() -> None:
    printed = run("""
for number in (1, 2, 3):
    episodes.open(number, "asks", False)
print(episodes.open(4, "", False))
""")
    assert printed == ["{'sockets': 1}"]


def test_who_closes_does_not_wait_for_a_process_that_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process, "_END_SECONDS", 0.01)
    free = threading.Event()
    hanging = threading.Thread(target=free.wait, args=(20,), daemon=True)
    hanging.start()
    Process(hanging, []).close()
    assert hanging.is_alive()
    free.set()
