"""Prompts have the asked length by the tokenizer that serves them, and are the same for a seed."""

from __future__ import annotations

import pytest

from selenite.chat.tokenizer import Tokenizer
from selenite.client.endpoint import Endpoint
from selenite.errors import ConfigError
from selenite.eval.bench import prompts
from selenite.eval.bench.prompts import PromptMaker, of_range, of_server, of_tokenizer
from selenite.eval.bench.workload import fixed
from tests.fixtures.scripted_server import json_answer, scripted_server


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([prompts._WORDS] * 5, 700)


def test_text_has_the_tokens(tokenizer: Tokenizer) -> None:
    maker = PromptMaker(of_tokenizer(tokenizer, needs_text=True, source="a test"), seed=0)
    for request in fixed(5, 33, 1, prefix_len=20):
        text = maker.text(request)
        assert tokenizer.encode(text) == maker.ids(request)
        assert len(maker.ids(request)) == 53


def test_the_seed_decides(tokenizer: Tokenizer) -> None:
    vocabulary = of_tokenizer(tokenizer, needs_text=False, source="a test")
    first, second = fixed(2, 40, 1, prefix_len=8)
    maker = PromptMaker(vocabulary, seed=0)
    assert maker.ids(first) == PromptMaker(vocabulary, seed=0).ids(first)
    assert maker.ids(first) != PromptMaker(vocabulary, seed=1).ids(first)
    assert maker.ids(first)[:8] == maker.ids(second)[:8]
    assert maker.ids(first)[8:] != maker.ids(second)[8:]
    assert not set(vocabulary.ids) & set(tokenizer.special_tokens.values())


def test_a_tokenizer_without_words(tokenizer: Tokenizer) -> None:
    digits = Tokenizer.train(["0123456789"] * 5, 280)
    with pytest.raises(ConfigError, match="--vocab-size"):
        of_tokenizer(digits, needs_text=True, source="a test")


@pytest.mark.parametrize("field", ["prompt", "content"])
def test_the_servers_tokenizer_in_vllms_form_and_llama_cpps(tokenizer: Tokenizer, field) -> None:
    """A first word of its own kind, as sentencepiece has it, changes no count."""

    def script(path: str, body: dict) -> object:
        assert path == "/tokenize"
        if field not in body:
            return json_answer({"tokens": []})
        return json_answer({"tokens": [1, *tokenizer.encode(body[field])]})

    with scripted_server(script) as server:
        endpoint = Endpoint.parse(server.url)
        words = of_server(endpoint, "a model", needs_text=True)
        ids = of_server(endpoint, "a model", needs_text=False)
    local = of_tokenizer(tokenizer, needs_text=True, source="a test")
    assert words is not None
    assert (words.ids, words.texts) == (local.ids, local.texts)
    assert ids is not None
    assert set(ids.ids) == set(tokenizer.encode(prompts._WORDS))


def test_a_server_without_tokenize() -> None:
    with scripted_server(lambda path, body: json_answer({}, 404)) as server:
        assert of_server(Endpoint.parse(server.url), "a model", False) is None


def test_ids_of_a_range() -> None:
    assert of_range(1000).ids == tuple(range(256, 1000))
    assert of_range(96).ids == tuple(range(48, 96))
    with pytest.raises(ConfigError, match="--vocab-size 1"):
        of_range(1)
