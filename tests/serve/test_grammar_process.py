"""Sources that take too long, or end the process, fail alone."""

from __future__ import annotations

import itertools
import json
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import xgrammar

from selenite.clock import ManualClock
from selenite.errors import ConfigError
from selenite.serve.grammar_process import GrammarProcess

VOCABULARY = [bytes([byte]) for byte in range(256)] + [b"\xfeend"]
INFO = xgrammar.TokenizerInfo(
    VOCABULARY, xgrammar.VocabType.RAW, vocab_size=len(VOCABULARY), stop_token_ids=[256]
)


@pytest.fixture(scope="module")
def process() -> Iterator[GrammarProcess]:
    started = GrammarProcess(INFO, seconds=2)
    yield started
    started.close()


def structural(content: dict[str, Any]) -> str:
    return json.dumps({"type": "structural_tag", "format": content})


def accepts(compiled: xgrammar.CompiledGrammar, text: bytes) -> bool:
    matcher = xgrammar.GrammarMatcher(compiled)
    return all(matcher.accept_token(token) for token in [*text, 256])


def test_a_grammar_crosses_the_pipe_whole(process: GrammarProcess):
    pattern = process.compile("regex", "a{2,3}b")
    assert accepts(pattern, b"aab")
    assert not accepts(pattern, b"ab")
    assert process.compile("regex", "a{2,3}b") is pattern
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    compiled = process.compile(
        "structural_tag", structural({"type": "json_schema", "json_schema": schema})
    )
    assert accepts(compiled, b'{"n": 12}')
    assert not accepts(compiled, b'{"n": "x"}')


def test_a_faulty_source_is_refused_with_its_reason(process: GrammarProcess):
    for _ in range(2):  # the second time from memory
        with pytest.raises(ConfigError, match=r"(?i)expect|paren"):
            process.compile("regex", "a(b")
    assert accepts(process.compile("regex", "ab"), b"ab")


def test_a_bomb_ends_its_process_and_nothing_else(process: GrammarProcess):
    words = [f"word{i}" * 20 for i in range(60_000)]
    bomb = structural({"type": "json_schema", "json_schema": {"enum": words}})
    for _ in range(2):  # the second time from memory
        with pytest.raises(ConfigError, match="takes more than 2 seconds or"):
            process.compile("structural_tag", bomb)
    assert accepts(process.compile("regex", "(ab)+"), b"abab")


def test_a_process_that_was_killed_is_started_again(process: GrammarProcess):
    process.compile("regex", "x")
    assert process._process is not None
    os.kill(process._process.pid, signal.SIGKILL)
    process._process.wait()
    assert accepts(process.compile("regex", "z+"), b"zz")


@pytest.mark.slow
def test_a_source_is_refused_whose_tokens_take_long_to_find():
    """It compiles at once; the masks would stop the engine, and all who wait for it."""
    words = [bytes(letters) for letters in itertools.product(b"abc d", repeat=5)]
    vocabulary = [*VOCABULARY[:256], *words, VOCABULARY[256]]
    end = len(vocabulary) - 1
    info = xgrammar.TokenizerInfo(
        vocabulary, xgrammar.VocabType.RAW, vocab_size=len(vocabulary), stop_token_ids=[end]
    )
    process = GrammarProcess(info, seconds=5)
    try:
        for pattern in ("((.?){300}){30}", "(( *)( *)( *)( *)[^b]*)*" * 40):
            with pytest.raises(ConfigError, match=r"for a single token|takes more than"):
                process.compile("regex", pattern)
        process.compile("regex", "[a-z ]+")
    finally:
        process.close()


def test_a_process_that_ends_over_a_source_is_not_the_sources_fault(process: GrammarProcess):
    process.compile("regex", "x")
    assert process._process is not None
    os.kill(process._process.pid, signal.SIGSTOP)
    threading.Timer(0.5, process._process.kill).start()
    assert accepts(process.compile("regex", "y+"), b"yy")


def test_a_process_that_was_stopped_is_ended_and_the_source_may_come_again():
    clock = ManualClock()
    process = GrammarProcess(INFO, seconds=1, clock=clock)
    try:
        process.compile("regex", "x")
        assert process._process is not None
        os.kill(process._process.pid, signal.SIGSTOP)
        schema = {"const": 1, "title": "x" * 2**20}  # more than the pipe holds
        long = structural({"type": "json_schema", "json_schema": schema})
        with pytest.raises(ConfigError, match="takes more than 1 seconds"):
            process.compile("structural_tag", long)
        assert accepts(process.compile("regex", "z"), b"z")
        with pytest.raises(ConfigError, match="takes more than 1 seconds"):  # from memory
            process.compile("structural_tag", long)
        clock.advance(61)
        process.compile("structural_tag", long)
    finally:
        process.close()


def test_what_is_remembered_is_not_as_long_as_the_sources(process: GrammarProcess):
    long = structural({"type": "json_schema", "json_schema": {"const": 1, "title": "x" * 2**20}})
    process.compile("structural_tag", long)
    with pytest.raises(ConfigError):
        process.compile("regex", "(" * 2**16)
    assert sum(len(key) for key in (*process._known, *process._failed)) < 2**14
    assert all(len(reason) < 2**12 for reason, _ in process._failed.values())
