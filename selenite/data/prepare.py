"""From sources to token shards: read, drop copies, split, train a tokenizer, tokenise, write.

``prepare`` finds the result again by a hash of the config and of the sources' files, so it works
once. The corpus is built under a temporary name and renamed when whole: an interruption leaves
nothing that could be mistaken for a corpus. ``corpus.py`` reads the result.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from selenite.atomic import describe_files
from selenite.chat.tokenizer import Tokenizer
from selenite.config import Config
from selenite.data.build_folder import build_folder
from selenite.data.corpus import (
    FORMAT,
    INDEX_DTYPE,
    META_FILE,
    SPLITS,
    TOKEN_BYTES_FILE,
    TOKENIZER_FOLDER,
    TokenCorpus,
)
from selenite.data.dedup import DedupConfig, DedupReport, deduplicate
from selenite.data.documents import Document, ReadReport, stable_fraction
from selenite.data.sources import PythonSource, Source
from selenite.data.split import SplitConfig, split
from selenite.errors import DataError

# Called with (stage, done, total). Stages: "read" (bytes of text), "dedup" (documents), "tokenizer"
# (one step), "tokenise" (documents, first of the training split, then of the held-out one).
Progress = Callable[[str, int, int], None]

_log = logging.getLogger(__name__)
_BATCH = 256  # documents that are tokenised at a time


class TokenizerConfig(Config):
    """The tokenizer of a corpus: loaded from ``path``, or trained on the training split."""

    path: str | None = None  # a folder or file that Tokenizer.load reads; None: train one
    vocab_size: int = Field(default=8192, ge=1)  # when training; special tokens included
    train_bytes: int = Field(default=8_000_000, ge=1)  # of text that training looks at


class DataConfig(Config):
    """A corpus: where its text comes from and how it is cut into tokens."""

    sources: tuple[Source, ...] = Field(default=(PythonSource(),), min_length=1)
    max_bytes: int | None = Field(default=20_000_000, ge=1)  # of text, shared among the sources
    dedup: DedupConfig | None = DedupConfig()
    split: SplitConfig = SplitConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()


def prepare(
    config: DataConfig,
    cache_dir: str | Path,
    progress: Progress | None = None,
    tokenizer: Tokenizer | None = None,
) -> TokenCorpus:
    """The corpus of ``config``, found under ``cache_dir`` or built there.

    ``tokenizer`` replaces the one that the config describes (as the parts of a mixture must share
    one). Raises ``DataError`` for a source that is missing, empty or malformed and for an altered
    corpus, ``TokenizerError`` for a tokenizer that cannot be used, ``StorageError`` for a full
    disk, ``MissingExtraError`` for an optional package.
    """
    if tokenizer is None and config.tokenizer.path is not None:
        tokenizer = Tokenizer.load(config.tokenizer.path)
    key = _cache_key(config, tokenizer)
    folder = Path(cache_dir) / f"corpus-{key[:16]}"
    if folder.is_dir():
        return TokenCorpus(folder)
    report = progress or _no_progress
    with build_folder(folder) as building:
        _build(config, tokenizer, key, building, report)
    return TokenCorpus(folder)


def _no_progress(stage: str, done: int, total: int) -> None:
    """The default of ``progress``."""


def _cache_key(config: DataConfig, tokenizer: Tokenizer | None) -> str:
    """Hash of all that decides the corpus: config, the sources' files, a given tokenizer."""
    chosen = (
        {"fingerprint": tokenizer.fingerprint()} if tokenizer else config.tokenizer.model_dump()
    )
    entry = {
        "format": FORMAT,
        "config": config.model_dump(mode="json", exclude={"tokenizer"}),
        "tokenizer": chosen,
        "files": [
            (file.key, file.num_bytes, file.mtime_ns)
            for source in config.sources
            for file in source.files()
        ],
    }
    return hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()


def _build(
    config: DataConfig, tokenizer: Tokenizer | None, key: str, folder: Path, progress: Progress
) -> None:
    read_report = ReadReport()
    documents = _read(config, read_report, progress)
    dedup_report = DedupReport(len(documents), 0, 0)
    if config.dedup is not None:
        documents, dedup_report = deduplicate(
            documents, config.dedup, lambda done, total: progress("dedup", done, total)
        )
    # In the order of a hash: the head of each split is then a fair sample of it, for the
    # tokenizer's training and for evaluations that stop early.
    documents.sort(key=lambda document: (stable_fraction(document.key, "order"), document.key))
    train, val = split(documents, config.split)
    if tokenizer is None:
        tokenizer = _train_tokenizer(train, config.tokenizer, progress)
    dtype = np.dtype("<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4")
    token_bytes_V = tokenizer.token_bytes()
    counts = {
        name: _write_shard(folder / name, part, tokenizer, token_bytes_V, dtype, progress)
        for name, part in zip(SPLITS, (train, val), strict=True)
    }
    tokenizer.save(folder / TOKENIZER_FOLDER)
    _save_array(folder / TOKEN_BYTES_FILE, token_bytes_V)
    meta = {
        "format": FORMAT,
        "key": key,
        "config": config.model_dump(mode="json"),
        "dtype": dtype.str,
        "tokenizer": {
            "fingerprint": tokenizer.fingerprint(),
            "vocab_size": tokenizer.vocab_size,
        },
        "counts": counts,
        "dedup": asdict(dedup_report),
        "read": asdict(read_report),
        "held_out_packages": sorted({d.package for d in val} - {d.package for d in train}),
        "files": describe_files(folder),
    }
    (folder / META_FILE).write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")


def _read(config: DataConfig, report: ReadReport, progress: Progress) -> list[Document]:
    """All documents of all sources; each source has an equal share of ``max_bytes``."""
    share = None if config.max_bytes is None else max(1, config.max_bytes // len(config.sources))
    documents: list[Document] = []
    num_bytes = 0
    for source in config.sources:
        for document in source.documents(share, report):
            documents.append(document)
            num_bytes += len(document.text.encode())
            if len(documents) % _BATCH == 0:
                progress("read", num_bytes, config.max_bytes or num_bytes)
    report.announce()
    if not documents:
        raise DataError(
            f"the corpus is empty: sources {[source.kind for source in config.sources]} gave no "
            f"document ({report.empty} empty, {report.generated} generated, "
            f"{len(report.invalid_utf8)} not UTF-8); name other files"
        )
    progress("read", num_bytes, num_bytes)
    return documents


def _train_tokenizer(
    documents: Sequence[Document], config: TokenizerConfig, progress: Progress
) -> Tokenizer:
    texts: list[str] = []
    num_bytes = 0
    for document in documents:
        if num_bytes >= config.train_bytes:
            break
        texts.append(document.text)
        num_bytes += len(document.text.encode())
    progress("tokenizer", 0, 1)
    tokenizer = Tokenizer.train(texts, config.vocab_size)
    progress("tokenizer", 1, 1)
    if tokenizer.vocab_size < config.vocab_size:
        _log.warning(
            "the text gave only %d of vocab_size=%d tokens", tokenizer.vocab_size, config.vocab_size
        )
    return tokenizer


def _write_shard(
    stem: Path,
    documents: Sequence[Document],
    tokenizer: Tokenizer,
    token_bytes_V: np.ndarray,
    dtype: np.dtype[Any],
    progress: Progress,
) -> dict[str, int]:
    """Writes ``stem.bin`` and ``stem.idx``; returns the counts for ``meta.json``."""
    index = np.zeros(len(documents), dtype=INDEX_DTYPE)
    start = 0
    with stem.with_suffix(".bin").open("wb") as file:
        for first in range(0, len(documents), _BATCH):
            texts = [document.text for document in documents[first : first + _BATCH]]
            for offset, ids in enumerate(tokenizer.encode_batch(texts)):
                tokens = np.array([tokenizer.bos_id, *ids, tokenizer.eos_id], dtype=dtype)
                num_bytes = len(texts[offset].encode())
                residual = num_bytes - int(token_bytes_V[tokens].sum())
                index[first + offset] = (start, len(tokens), num_bytes, residual)
                file.write(tokens.tobytes())  # tofile can lose bytes of a full disk in silence
                start += len(tokens)
            progress("tokenise", min(first + _BATCH, len(documents)), len(documents))
    written = stem.with_suffix(".bin").stat().st_size
    if written != start * dtype.itemsize:
        whole = start * dtype.itemsize
        raise OSError(errno.EIO, f"{stem.name}.bin has {written:,} of {whole:,} bytes")
    _save_array(stem.with_suffix(".idx"), index)
    return {
        "documents": len(documents),
        "tokens": start,
        "bytes": int(index["num_bytes"].sum()),
    }


def _save_array(path: Path, array: np.ndarray) -> None:
    """``np.save`` by way of Python's file, which raises the system's error for a full disk."""
    content = io.BytesIO()
    np.save(content, array)
    path.write_bytes(content.getbuffer())
