"""Sources that take too long, or end the process, fail alone."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
import xgrammar

from selenite.errors import ConfigError
from selenite.serve.grammar_process import GrammarProcess

VOCABULARY = [bytes([byte]) for byte in range(256)] + [b"\xfeend"]


@pytest.fixture(scope="module")
def process() -> Iterator[GrammarProcess]:
    info = xgrammar.TokenizerInfo(
        VOCABULARY, xgrammar.VocabType.RAW, vocab_size=len(VOCABULARY), stop_token_ids=[256]
    )
    started = GrammarProcess(info, seconds=2)
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
