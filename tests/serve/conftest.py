"""A small tokenizer with Kimi K2's special tokens and template."""

from __future__ import annotations

import pytest

from selenite.chat.tokenizer import Tokenizer
from tests.fixtures.server import TEXTS


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXTS, 600)
