"""The tokenizer: lossless, safe with special tokens, equal to transformers, clear on bad files."""

from __future__ import annotations

import json
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as HfTokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from selenite.chat.k2_vocabulary import SPECIAL_TOKENS
from selenite.chat.tokenizer import Tokenizer
from selenite.errors import TokenizerError

# Texts in which special tokens, whole and cut, are as likely as ordinary characters.
texts = st.lists(
    st.one_of(
        st.text(max_size=8),
        st.sampled_from([*SPECIAL_TOKENS, "<|im_", "end|>", "[", "  \n", "12345"]),
    ),
    max_size=12,
).map("".join)


@given(text=texts)
@settings(max_examples=200, deadline=None)
def test_decode_inverts_encode_and_text_never_becomes_a_special_token(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert not set(ids) & set(tokenizer.special_tokens.values())
    assert tokenizer.token_bytes()[ids].sum() == len(text.encode())
    assert tokenizer.encode_batch([text, text]) == [ids, ids]


def test_special_tokens_are_read_when_asked_for(tokenizer):
    name = "<|im_end|>"
    assert tokenizer.encode(f"a{name}", allow_special=True)[-1] == tokenizer.special_id(name)
    assert tokenizer.decode([tokenizer.special_id(name)]) == name
    assert tokenizer.token_bytes()[tokenizer.special_id(name)] == 0


def test_ids_are_dense_and_special_tokens_last(tokenizer):
    assert tokenizer.vocab_size == 600
    first = 600 - len(SPECIAL_TOKENS)
    assert [tokenizer.special_id(name) for name in SPECIAL_TOKENS] == list(range(first, 600))
    assert (tokenizer.bos_id, tokenizer.eos_id) == (first, first + 1)


def test_words_digits_and_scripts_are_cut_as_kimi_cuts_them():
    # With one text repeated, BPE merges every pre-token whole: the tokens show the cuts.
    text = "camelCaseWord it's 12345 (x+1)\n\n  if 你好hello"
    tokenizer = Tokenizer.train([text] * 2, 600)
    pieces = [tokenizer.decode([index]) for index in tokenizer.encode(text)]
    expected = "camel|Case|Word| it's| |123|45| (|x|+|1|)\n\n| | if| |你好|hello"
    assert pieces == expected.split("|")


def test_save_and_load_keep_everything(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        loaded = Tokenizer.load(path)
        assert loaded.fingerprint() == tokenizer.fingerprint()
        assert loaded.chat_template == tokenizer.chat_template
        assert loaded.special_tokens == tokenizer.special_tokens
        assert loaded.encode("x = 1 # é") == tokenizer.encode("x = 1 # é")


def test_prompts_begin_as_the_vocabularys_own_files_say(tokenizer, tmp_path):
    assert tokenizer.prompt_ids("def") == [tokenizer.bos_id, *tokenizer.encode("def")]
    tokenizer.save(tmp_path)
    assert Tokenizer.load(tmp_path).prompt_ids("def") == tokenizer.prompt_ids("def")
    file = tmp_path / "tokenizer_config.json"
    config = json.loads(file.read_text())
    for named in (False, None):  # None: nothing is said, and tokenizer.json adds nothing
        file.write_text(json.dumps(config | {"add_bos_token": named}))
        assert Tokenizer.load(tmp_path).prompt_ids("def") == tokenizer.encode("def")
    adding = HfTokenizer.from_file(str(tmp_path / "tokenizer.json"))
    start = ("[BOS]", tokenizer.bos_id)
    adding.post_processor = TemplateProcessing(single="[BOS] $A", special_tokens=[start])
    adding.save(str(tmp_path / "tokenizer.json"))
    assert Tokenizer.load(tmp_path).prompt_ids("def") == tokenizer.prompt_ids("def")


def test_fingerprint_tells_vocabularies_apart(tokenizer):
    again = Tokenizer.train(["one text only, " * 9], 400)
    assert again.fingerprint() != tokenizer.fingerprint()


def test_auto_tokenizer_gives_the_same_ids(tokenizer, tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizer.save(tmp_path)
    other = transformers.AutoTokenizer.from_pretrained(tmp_path)
    text = "def f(x):\r\n\treturn 12345 + x  # naïve 你好 🙂[BOS]<|im_end|>\n\n it's"
    assert other.encode(text, add_special_tokens=False) == tokenizer.encode(
        text, allow_special=True
    )
    assert (other.bos_token_id, other.eos_token_id) == (tokenizer.bos_id, tokenizer.eos_id)
    assert other.pad_token_id == tokenizer.pad_id
    assert other.decode(tokenizer.encode(text)) == text
    turns = [{"role": "user", "content": "hi"}]
    rendered = other.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert rendered == (
        "<|im_user|>user<|im_middle|>hi<|im_end|><|im_assistant|>assistant<|im_middle|>"
    )


def test_a_vocabulary_of_another_family_loads(tmp_path):
    """No byte level, a normaliser, no start token: bytes are counted as decoded."""
    model = HfTokenizer(models.WordLevel({"one": 0, "two": 1, "?": 2}, unk_token="?"))
    model.normalizer = normalizers.Lowercase()
    model.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    model.decoder = decoders.Fuse()
    model.add_special_tokens(["<end>"])
    model.save(str(tmp_path / "tokenizer.json"))
    config = {"eos_token": {"content": "<end>"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.encode("ONE two <end>") == [0, 1, 2]
    assert (tokenizer.eos_id, tokenizer.bos_id, tokenizer.pad_id) == (3, 3, None)
    assert tokenizer.token_bytes().tolist() == [3, 3, 1, 0]


def test_a_vocabulary_without_end_token_says_so(tmp_path):
    model = HfTokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    model.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(TokenizerError, match="no eos_token; name it in tokenizer_config"):
        _ = Tokenizer.load(tmp_path).eos_id


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", b'{"model": ', r"tokenizer\.json: not a tokenizer"),
        ("tokenizer.json", b'{"model": {"type": "Nope"}}', r"tokenizer\.json: not a tokenizer"),
        ("tokenizer.json", b"\xff\xfe", r"tokenizer\.json: not UTF-8"),
        ("tokenizer_config.json", b"{", r"tokenizer_config\.json: not JSON"),
        ("tokenizer_config.json", b"[]", r"tokenizer_config\.json: holds no JSON object"),
        ("tokenizer_config.json", b'{"eos_token": "<no>"}', "eos_token='<no>' is not a special"),
        ("tokenizer_config.json", b'{"eos_token": ["<no>"]}', "eos_token=.* not the name"),
    ],
)
def test_a_broken_file_is_named(tokenizer, tmp_path, name, content, message):
    tokenizer.save(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TokenizerError, match=message):
        Tokenizer.load(tmp_path)


def test_a_missing_tokenizer_is_named(tmp_path):
    with pytest.raises(TokenizerError, match="no tokenizer there"):
        Tokenizer.load(tmp_path)
    with pytest.raises(TokenizerError, match=r"nowhere.json: no tokenizer there: no such file"):
        Tokenizer.load(tmp_path / "nowhere.json")


def test_a_vocabulary_that_is_too_small_is_refused():
    with pytest.raises(TokenizerError, match=r"vocab_size=256: .* choose 273 or more"):
        Tokenizer.train(["text"], 256)


def test_an_unknown_special_token_is_refused(tokenizer):
    with pytest.raises(TokenizerError, match="'<think>' is not a special token"):
        tokenizer.special_id("<think>")


def test_other_threads_run_while_a_text_is_encoded(tokenizer):
    """A server's clients all wait otherwise for the one who sends the longest text."""
    ended = threading.Event()
    thread = threading.Thread(target=lambda: (tokenizer.encode("ab cd" * 200_000), ended.set()))
    thread.start()
    count = 0
    while not ended.wait(0.001):
        count += 1
    thread.join()
    assert count > 20
