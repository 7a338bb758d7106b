"""How a benchmark and an engine in another interpreter talk: a line of JSON each way for each job.

This file runs under every peer's Python and imports nothing of ours.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

_answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # whatever an engine prints is no answer

Write = Callable[[Sequence[Sequence[int]], int], Sequence[Sequence[int]]]
"""Greedy completions, token ids of prompts and of completions, each exactly as long as asked."""


def say(**fields: Any) -> None:
    """Writes a line for the benchmark."""
    print(json.dumps(fields), file=_answers, flush=True)


def answer(write: Write) -> None:
    """Does the jobs that come in until there are no more.

    A job: ``{"prompts": [[ids]], "max_tokens": n}``. Its answer: ``{"seconds": s, "tokens":
    [[ids]]}``. The first line out says that the engine is ready.
    """
    say(ready=True)
    for line in sys.stdin:
        job = json.loads(line)
        start = time.perf_counter()
        tokens = write(job["prompts"], job["max_tokens"])
        seconds = time.perf_counter() - start
        assert all(len(own) == job["max_tokens"] for own in tokens), [len(own) for own in tokens]
        say(seconds=seconds, tokens=tokens)
