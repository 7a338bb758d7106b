"""A small tokenizer trained on prose, code and several scripts."""

from __future__ import annotations

import inspect
import json

import pytest

from selenite.chat.tokenizer import Tokenizer

PROSE = [
    "The quick brown fox jumps over the lazy dog, 1234567 times; it isn't tired yet.\r\n",
    "Größe, naïve café, здравствуй мир, 你好世界 hello, مرحبا, 🙂🙃 emoji\n\n\tand tabs",
]


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([*PROSE, inspect.getsource(json), inspect.getsource(inspect)], 600)
