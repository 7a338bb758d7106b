"""Preparation end to end on small corpora: exact counts, the cache, and every injected fault."""

from __future__ import annotations

import json
import os
import random
import resource
from contextlib import contextmanager

import numpy as np
import pytest

from selenite.chat.tokenizer import Tokenizer
from selenite.data import prepare as prepare_module
from selenite.data.corpus import TokenCorpus
from selenite.data.documents import Document
from selenite.data.loader import evaluation_batches
from selenite.data.prepare import DataConfig, TokenizerConfig, prepare
from selenite.errors import DataError, StorageError, TokenizerError

ONE_IN_FOUR = {"file_fraction": 0.25}


@pytest.fixture
def texts(tmp_path):
    """Two packages of small files in several scripts; returns text by path."""
    generator = random.Random(0)
    words = ["alpha", "βῆτα", "return", "12345", "naïve", "你好", "\n", "[EOS]", "<|im_end|>"]
    written = {}
    for number in range(30):
        path = f"{'first' if number % 2 else 'second'}/{number}.txt"
        written[path] = " ".join(generator.choice(words) for _ in range(80))
        file = tmp_path / "text" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(written[path].encode())
    return written


@pytest.fixture
def config(tmp_path, texts):
    return _config(tmp_path)


def _config(tmp_path, **changes) -> DataConfig:
    entry = {
        "sources": [{"kind": "folder", "path": str(tmp_path / "text")}],
        "tokenizer": {"vocab_size": 320},
        "split": {"file_fraction": 0.2},
    }
    return DataConfig.model_validate({**entry, **changes})


def _documents(corpus, shard) -> list[list[int]]:
    return [
        shard.tokens[record["start"] : record["start"] + record["length"]].tolist()
        for record in shard.index
    ]


def test_every_text_is_there_once_between_its_marks(config, tmp_path, texts):
    corpus = prepare(config, tmp_path / "cache")
    tokenizer = corpus.tokenizer
    seen = []
    for shard in (corpus.train, corpus.val):
        assert shard.num_documents > 0
        for record, ids in zip(shard.index, _documents(corpus, shard), strict=True):
            assert (ids[0], ids[-1]) == (tokenizer.bos_id, tokenizer.eos_id)
            assert not set(ids[1:-1]) & set(tokenizer.special_tokens.values())
            text = tokenizer.decode(ids[1:-1])
            assert record["num_bytes"] == len(text.encode())
            assert record["residual"] == 0
            seen.append(text)
    assert sorted(seen) == sorted(texts.values())
    counts = corpus.meta["counts"]
    assert counts["train"]["tokens"] == corpus.train.num_tokens
    assert counts["train"]["bytes"] + counts["val"]["bytes"] == sum(
        len(text.encode()) for text in texts.values()
    )


def test_bytes_are_exact_under_a_tokenizer_that_normalises(config, tmp_path):
    """The same held-out bytes whatever the tokenizer: bits per byte can be compared."""
    corpus = prepare(config, tmp_path / "cache")
    entry = json.loads((corpus.tokenizer_path / "tokenizer.json").read_text())
    entry["normalizer"] = {"type": "NFD"}  # ï becomes two characters, three bytes
    other = tmp_path / "other"
    corpus.tokenizer.save(other)
    (other / "tokenizer.json").write_text(json.dumps(entry))
    changed = _config(tmp_path, tokenizer={"path": str(other)})
    decomposed = prepare(changed, tmp_path / "cache")
    assert (decomposed.val.index["residual"] < 0).any()
    assert decomposed.val.num_tokens != corpus.val.num_tokens
    read = [
        sum(batch.num_bytes for batch in evaluation_batches(c.val, 64, 16))
        for c in (corpus, decomposed)
    ]
    assert read == [corpus.val.num_bytes] * 2


def test_the_second_time_it_is_found(config, tmp_path):
    stages = []
    first = prepare(config, tmp_path / "cache", lambda stage, done, total: stages.append(stage))
    assert list(dict.fromkeys(stages)) == ["read", "dedup", "tokenizer", "tokenise"]
    stages.clear()
    again = prepare(config, tmp_path / "cache", lambda stage, done, total: stages.append(stage))
    assert stages == []
    assert again.path == first.path


def test_the_same_text_gives_the_same_shards_elsewhere(config, tmp_path):
    first = prepare(config, tmp_path / "cache")
    second = prepare(config, tmp_path / "other cache")
    assert first.train.sha256 == second.train.sha256
    assert first.tokenizer_fingerprint == second.tokenizer_fingerprint


def test_a_changed_source_or_config_is_another_corpus(config, tmp_path):
    first = prepare(config, tmp_path / "cache")
    changed = _config(tmp_path, tokenizer={"vocab_size": 300})
    assert prepare(changed, tmp_path / "cache").path != first.path
    (tmp_path / "text" / "new.txt").write_text("a new text")
    assert prepare(config, tmp_path / "cache").path != first.path


def test_max_bytes_limits_the_corpus(tmp_path, texts):
    corpus = prepare(_config(tmp_path, max_bytes=5000), tmp_path / "cache")
    total = corpus.train.num_bytes + corpus.val.num_bytes
    longest = max(len(text.encode()) for text in texts.values())
    assert 5000 - longest < total <= 5000


def test_named_packages_are_held_out(tmp_path, texts):
    split = {"holdout": ["first"], "file_fraction": 0}
    corpus = prepare(_config(tmp_path, split=split), tmp_path / "cache")
    held_out = {corpus.tokenizer.decode(ids[1:-1]) for ids in _documents(corpus, corpus.val)}
    assert held_out == {text for path, text in texts.items() if path.startswith("first/")}
    assert corpus.meta["held_out_packages"] == ["first"]


def test_large_vocabularies_take_four_bytes(config, tmp_path):
    """A vocabulary with an id beyond 65535."""
    tokenizer = prepare(config, tmp_path / "cache").tokenizer
    tokenizer.save(tmp_path / "large")
    file = tmp_path / "large" / "tokenizer.json"
    entry = json.loads(file.read_text())
    entry["model"]["vocab"]["unused"] = 70_000
    file.write_text(json.dumps(entry))
    large = _config(tmp_path, tokenizer={"path": str(tmp_path / "large")})
    corpus = prepare(large, tmp_path / "cache")
    assert corpus.vocab_size == 70_001
    assert corpus.train.tokens.dtype == np.uint32
    assert corpus.train.tokens.max() < 320


@pytest.mark.parametrize("stage", ["read", "dedup", "tokenizer", "tokenise"])
def test_an_interruption_leaves_nothing_half(config, tmp_path, stage):
    def interrupt(at, done, total):
        if at == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(config, tmp_path / "cache", interrupt)
    assert list((tmp_path / "cache").iterdir()) == []
    assert prepare(config, tmp_path / "cache").train.num_documents > 0


def test_left_overs_of_a_killed_process_are_removed(config, tmp_path):
    """A child is killed with SIGKILL in the middle of writing; the next one cleans up."""
    child = os.fork()
    if child == 0:
        prepare(
            config,
            tmp_path / "cache",
            lambda stage, *_: stage == "dedup" and os.kill(os.getpid(), 9),
        )
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == 9
    (left,) = (tmp_path / "cache").iterdir()
    assert left.name.startswith(".building-")
    corpus = prepare(config, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == [corpus.path]


@contextmanager
def files_end_at(num_bytes):
    """Lets the kernel refuse writes beyond ``num_bytes`` of a file, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("largest", ["train.bin", "train.idx", "token_bytes.npy", "tokenizer.json"])
def test_a_refusing_disk_is_told_and_leaves_nothing(tmp_path, largest):
    """The file that is refused lacks its last byte only: the writer must see that too."""
    many, wide = (largest == "train.idx"), (largest == "token_bytes.npy")
    (tmp_path / "text").mkdir()
    for number in range(2000 if many else 4):
        words = " ".join(str(number + n) for n in range(2000 if largest == "train.bin" else 1))
        (tmp_path / "text" / f"{number}.txt").write_text(f"{number} {words}")
    tokenizer = Tokenizer.train(["text"], 273)
    tokenizer.save(tmp_path / "tokenizer")
    if wide:  # an id far beyond the others
        file = tmp_path / "tokenizer" / "tokenizer.json"
        entry = json.loads(file.read_text())
        entry["model"]["vocab"]["unused"] = 20_000
        file.write_text(json.dumps(entry))
    config = _config(
        tmp_path, tokenizer={"path": str(tmp_path / "tokenizer")}, dedup=None, split=ONE_IN_FOUR
    )
    sizes = {
        file.name: file.stat().st_size
        for file in prepare(config, tmp_path / "whole").path.rglob("*")
        if file.is_file()
    }
    assert max(sizes, key=sizes.__getitem__) == largest
    with (
        files_end_at(sizes[largest] - 1),
        pytest.raises(StorageError, match=r"cannot write \(File too large.*cache"),
    ):
        prepare(config, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_training_text_of_the_tokenizer_is_measured_in_bytes():
    texts = ["é" * 100, "abcabc" * 100]  # 200 bytes, then 600
    documents = [Document(text, "folder", "p", str(n)) for n, text in enumerate(texts)]

    def tokens_of_abc(train_bytes):
        config = TokenizerConfig(vocab_size=300, train_bytes=train_bytes)
        tokenizer = prepare_module._train_tokenizer(documents, config, lambda *_: None)
        return len(tokenizer.encode("abc"))

    assert tokens_of_abc(200) == 3  # the second text was not looked at
    assert tokens_of_abc(201) == 1


def test_a_cache_that_cannot_be_made_is_named(config, tmp_path):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(StorageError, match="another cache folder"):
        prepare(config, tmp_path / "cache")


@pytest.mark.parametrize("name", ["train.bin", "val.bin", "train.idx", "token_bytes.npy"])
@pytest.mark.parametrize("fault", ["truncated", "flipped", "missing"])
def test_a_damaged_shard_is_named_with_a_remedy(config, tmp_path, name, fault):
    file = prepare(config, tmp_path / "cache").path / name
    raw = bytearray(file.read_bytes())
    if fault == "missing":
        file.unlink()
    else:
        raw[len(raw) // 2] ^= 1
        file.write_bytes(raw if fault == "flipped" else raw[:-2])
    message = {"truncated": "has .* bytes, not", "flipped": "was altered", "missing": "is missing"}
    with pytest.raises(DataError, match=rf"{name}.*{message[fault]}.*delete the folder"):
        prepare(config, tmp_path / "cache")


@pytest.mark.parametrize(
    "content", [b"{", b"[]", b'{"format": 99}', b"\xff", b'{"format": 1, "dtype": "<u2"}']
)
def test_a_damaged_meta_file_is_named(config, tmp_path, content):
    path = prepare(config, tmp_path / "cache").path
    (path / "meta.json").write_bytes(content)
    with pytest.raises(DataError, match=r"meta.json: .*delete the folder"):
        TokenCorpus(path)


@pytest.mark.parametrize("key", ["dtype", "tokenizer", "files", "files/val.idx/size"])
def test_a_meta_file_without_a_key_is_named(config, tmp_path, key):
    path = prepare(config, tmp_path / "cache").path
    meta = json.loads((path / "meta.json").read_text())
    *above, last = key.split("/")
    node = meta
    for name in above:
        node = node[name]
    del node[last]
    (path / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(DataError, match=rf"meta.json: .*{last}: Field required.*delete the folder"):
        TokenCorpus(path)


def test_a_folder_that_is_no_corpus_is_named(tmp_path):
    with pytest.raises(DataError, match="no prepared corpus there"):
        TokenCorpus(tmp_path)


def test_another_tokenizer_is_refused(config, tmp_path):
    corpus = prepare(config, tmp_path / "cache")
    corpus.check_tokenizer(corpus.tokenizer)
    with pytest.raises(TokenizerError, match=r"was tokenised with .* use the one in"):
        corpus.check_tokenizer(Tokenizer.train(["another text"], 300))


def test_an_empty_corpus_is_told(tmp_path):
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "blank.txt").write_text("\n\n")
    with pytest.raises(DataError, match=r"the corpus is empty: .*1 empty"):
        prepare(_config(tmp_path), tmp_path / "cache")


def test_a_missing_tokenizer_is_told_before_any_work(tmp_path, texts):
    config = _config(tmp_path, tokenizer={"path": str(tmp_path / "nowhere")})
    with pytest.raises(TokenizerError, match="nowhere: no tokenizer there"):
        prepare(config, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
