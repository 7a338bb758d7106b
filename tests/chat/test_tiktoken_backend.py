"""Kimi's tiktoken vocabulary file: equal to the BPE it was written from, clear on damage."""

from __future__ import annotations

import base64
import json
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selenite.chat.k2_vocabulary import SPECIAL_TOKENS
from selenite.chat.tokenizer import Tokenizer
from selenite.errors import MissingExtraError, TokenizerError


@pytest.fixture(scope="session")
def rank_file(tokenizer, tmp_path_factory):
    """The trained vocabulary's merged tokens as base64 lines with their ranks."""
    folder = tmp_path_factory.mktemp("kimi")
    tokenizer.save(folder / "hf")
    vocabulary = json.loads((folder / "hf" / "tokenizer.json").read_text())["model"]
    assert len(vocabulary["vocab"]) == 256 + len(vocabulary["merges"])  # one id for each merge
    byte_of = _bytes_of_alphabet()
    lines = [
        base64.b64encode(bytes(byte_of[char] for char in token)) + b" %d" % rank
        for token, rank in sorted(vocabulary["vocab"].items(), key=lambda item: item[1])
    ]
    file = folder / "tiktoken.model"
    file.write_bytes(b"\n".join(lines) + b"\n")
    return file


def _bytes_of_alphabet() -> dict[str, int]:
    """GPT-2's spelling of bytes: printable ones as themselves, the rest from U+0100 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printable]
    spelled = {chr(byte): byte for byte in printable}
    return spelled | {chr(256 + place): byte for place, byte in enumerate(rest)}


@given(
    text=st.text(
        alphabet=st.characters(max_codepoint=0x2FFF, exclude_categories=["Cs"]), max_size=60
    )
    | st.text(alphabet="aB '\n\t1你=_(", max_size=60)
)
@settings(max_examples=100, deadline=None)
def test_ids_equal_those_of_the_bpe_it_was_written_from(tokenizer, rank_file, text):
    kimi = _load_once(rank_file)
    assert kimi.encode(text) == tokenizer.encode(text)
    assert kimi.decode(kimi.encode(text)) == text


_loaded: dict[str, Tokenizer] = {}


def _load_once(file) -> Tokenizer:
    return _loaded.setdefault(str(file), Tokenizer.load(file))


def test_special_tokens_stand_where_kimi_has_them(rank_file):
    kimi = Tokenizer.load(rank_file)
    first = kimi.bos_id
    assert first == 600 - len(SPECIAL_TOKENS)
    assert kimi.vocab_size == first + 256
    # From Kimi K2's published tokenizer_config.json, where [BOS] is 163584.
    published = {"[EOS]": 163585, "<|im_end|>": 163586, "<|im_middle|>": 163601, "[PAD]": 163839}
    for name, index in published.items():
        assert kimi.special_id(name) - first == index - 163584
    assert kimi.encode("[EOS]", allow_special=True) == [kimi.eos_id]
    assert not set(kimi.encode("[EOS]<|im_end|>")) & set(kimi.special_tokens.values())
    assert kimi.encode_batch(["a b", "[EOS]"]) == [kimi.encode("a b"), kimi.encode("[EOS]")]
    assert kimi.token_bytes()[kimi.encode("naïve 你")].sum() == len("naïve 你".encode())


def test_save_and_load_keep_everything(rank_file, tmp_path):
    kimi = Tokenizer.load(rank_file)
    kimi.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert loaded.fingerprint() == kimi.fingerprint()
    assert loaded.special_tokens == kimi.special_tokens


def test_special_tokens_come_from_the_config_beside_it(rank_file, tmp_path):
    (tmp_path / "tiktoken.model").write_bytes(rank_file.read_bytes())
    added = {"583": {"content": "<start>"}, "584": {"content": "<stop>"}}
    config = {"added_tokens_decoder": added, "bos_token": "<start>", "eos_token": "<stop>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    kimi = Tokenizer.load(tmp_path)
    assert (kimi.bos_id, kimi.eos_id) == (583, 584)
    config["added_tokens_decoder"]["5"] = {"content": "<clash>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(TokenizerError, match=r"ids \[5, .*are both merged and special"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    "added", [{"583": {"special": True}}, {"a": {"content": "<x>"}}, [], {"583": 1}]
)
def test_added_tokens_of_another_shape_are_named(rank_file, tmp_path, added):
    (tmp_path / "tiktoken.model").write_bytes(rank_file.read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": added}))
    with pytest.raises(TokenizerError, match=r"tokenizer_config\.json: added_tokens_decoder must"):
        Tokenizer.load(tmp_path)


def test_a_file_cut_at_a_line_end_does_not_fit_its_config(rank_file, tmp_path):
    Tokenizer.load(rank_file).save(tmp_path)
    lines = rank_file.read_bytes().splitlines(keepends=True)
    (tmp_path / "tiktoken.model").write_bytes(b"".join(lines[:-7]))
    with pytest.raises(TokenizerError, match=r"576 merged tokens, but .* begin at 583"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: raw[:700], ""),
        (lambda raw: raw.replace(b" 300\n", b" 3000\n"), "ranks are not 0, 1, 2"),
        (lambda raw: raw.replace(b" 300\n", b" x\n"), "line 301: .* is not a base64 token"),
        (lambda raw: b"version https://git-lfs.github.com/spec/v1\n", "line 1: "),
        (lambda raw: b"", "byte 0 has no token"),
    ],
)
def test_a_damaged_file_is_named(rank_file, tmp_path, damage, message):
    file = tmp_path / "tiktoken.model"
    file.write_bytes(damage(rank_file.read_bytes()))
    with pytest.raises(TokenizerError, match=rf"tiktoken\.model.*{message}"):
        Tokenizer.load(file)


def test_without_tiktoken_the_extra_is_named(rank_file, monkeypatch):
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'selenite\[train\]'"):
        Tokenizer.load(rank_file)
