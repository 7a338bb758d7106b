"""Tokenised text on disk: what ``prepare.py`` writes and the loader reads.

    corpus-<hash>/
      meta.json         counts, config, fingerprints, SHA-256 of every file below
      tokenizer/        the tokenizer, as Tokenizer.save writes it
      token_bytes.npy   UTF-8 bytes that each token id stands for
      train.bin, val.bin    token ids, uint16 or uint32, documents end to end: [BOS] text [EOS]
      train.idx, val.idx    one record a document (INDEX_DTYPE), numpy's .npy format

The files are read-only once written: the folder gets its name only when it is whole.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ValidationError, field_validator

from selenite.atomic import sha256
from selenite.chat.tokenizer import Tokenizer
from selenite.data.documents import reading
from selenite.errors import DataError, TokenizerError

FORMAT = 1  # of the folder; raise it when a reader of the old one would go wrong
META_FILE = "meta.json"
TOKEN_BYTES_FILE = "token_bytes.npy"
TOKENIZER_FOLDER = "tokenizer"
SPLITS = ("train", "val")
# `start` and `length` count tokens, BOS and EOS included; `num_bytes` is the document's UTF-8
# length; `residual` is what of it the table of token bytes does not explain (a tokenizer that
# normalises text), so that bytes by document are exact under every tokenizer.
INDEX_DTYPE = np.dtype(
    [("start", "<i8"), ("length", "<i8"), ("num_bytes", "<i8"), ("residual", "<i8")]
)
_HASH_ALWAYS_BELOW = 1 << 30  # bytes: hashing takes about a second; larger corpora: verify()


class _FileEntry(BaseModel):
    size: int
    sha256: str


class _TokenizerEntry(BaseModel):
    fingerprint: str
    vocab_size: int


class _Meta(BaseModel):
    """What is read of ``meta.json``; the rest of it is for people."""

    dtype: Literal["<u2", "<u4"]
    tokenizer: _TokenizerEntry
    files: dict[str, _FileEntry]

    @field_validator("files")
    @classmethod
    def _check_files(cls, files: dict[str, _FileEntry]) -> dict[str, _FileEntry]:
        needed = [TOKEN_BYTES_FILE, *(f"{name}.{end}" for name in SPLITS for end in ("bin", "idx"))]
        missing = [name for name in needed if name not in files]
        if missing:
            raise ValueError(f"{missing} are not listed")
        return files


@dataclass(frozen=True)
class TokenShard:
    """The documents of one split. Arrays are read-only."""

    name: str
    tokens: np.ndarray  # uint16 or uint32, memory-mapped
    index: np.ndarray  # INDEX_DTYPE, one record a document
    token_bytes_V: np.ndarray  # int32, by token id
    sha256: str  # of the tokens: identifies the shard in a loader's state

    @property
    def num_documents(self) -> int:
        return len(self.index)

    @property
    def num_tokens(self) -> int:
        return len(self.tokens)

    @property
    def num_bytes(self) -> int:
        """UTF-8 bytes of all documents."""
        return int(self.index["num_bytes"].sum())


class TokenCorpus:
    """A corpus folder, opened: ``train`` and ``val`` shards, and the tokenizer that made them."""

    def __init__(self, path: str | Path) -> None:
        """Opens and checks the folder.

        Sizes are always checked, contents by SHA-256 up to 1 GiB in all. Raises ``DataError``
        naming the file that is missing or altered.
        """
        self.path = Path(path)
        self.meta = _read_meta(self.path)
        self._check_sizes()
        if sum(entry["size"] for entry in self.meta["files"].values()) <= _HASH_ALWAYS_BELOW:
            self.verify()
        token_bytes_V = np.load(self.path / TOKEN_BYTES_FILE)
        self.train, self.val = (self._open_shard(name, token_bytes_V) for name in SPLITS)

    @property
    def vocab_size(self) -> int:
        return int(self.meta["tokenizer"]["vocab_size"])

    @property
    def tokenizer_fingerprint(self) -> str:
        return str(self.meta["tokenizer"]["fingerprint"])

    @property
    def tokenizer_path(self) -> Path:
        return self.path / TOKENIZER_FOLDER

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Loaded at first use; raises ``TokenizerError`` where it is not the corpus' own."""
        tokenizer = Tokenizer.load(self.tokenizer_path)
        self.check_tokenizer(tokenizer)
        return tokenizer

    def check_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Raises ``TokenizerError`` unless ``tokenizer`` gives the ids that the corpus holds."""
        if tokenizer.fingerprint() != self.tokenizer_fingerprint:
            raise TokenizerError(
                f"{self.path} was tokenised with {self.tokenizer_fingerprint[:12]} "
                f"({self.vocab_size} ids), this tokenizer is {tokenizer.fingerprint()[:12]} "
                f"({tokenizer.vocab_size} ids); use the one in {self.tokenizer_path}, or prepare "
                "the data again with data.tokenizer.path set to this one"
            )

    def verify(self) -> None:
        """Hashes every file; raises ``DataError`` naming the first that was altered."""
        for name, entry in self.meta["files"].items():
            with reading(self.path / name):
                digest = sha256(self.path / name)
            if digest != entry["sha256"]:
                raise DataError(
                    f"{self.path / name}: its content was altered since it was written (SHA-256 "
                    f"differs); delete the folder {self.path} and run again to build it anew"
                )

    def _check_sizes(self) -> None:
        for name, entry in self.meta["files"].items():
            file = self.path / name
            size = file.stat().st_size if file.is_file() else None
            if size != entry["size"]:
                fault = "is missing" if size is None else f"has {size} bytes, not {entry['size']}"
                raise DataError(
                    f"{file}: {fault}; delete the folder {self.path} and run again to build it anew"
                )

    def _open_shard(self, name: str, token_bytes_V: np.ndarray) -> TokenShard:
        dtype = np.dtype(self.meta["dtype"])
        tokens = np.memmap(self.path / f"{name}.bin", dtype=dtype, mode="r")
        with (self.path / f"{name}.idx").open("rb") as file:
            index = np.load(file)
        sha256 = self.meta["files"][f"{name}.bin"]["sha256"]
        return TokenShard(name, tokens, index, token_bytes_V, sha256)


def _read_meta(folder: Path) -> dict[str, Any]:
    file = folder / META_FILE
    if not file.exists():
        raise DataError(
            f"{folder}: no prepared corpus there ({META_FILE} is missing); prepare the data first"
        )
    try:
        with reading(file):
            meta = json.loads(file.read_bytes())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(
            f"{file}: damaged ({error}); delete the folder {folder} and run again to build it anew"
        ) from error
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise DataError(
            f"{file}: not of format {FORMAT}; delete the folder {folder} and run again to build "
            "it anew"
        )
    try:
        _Meta.model_validate(meta)
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(
            f"{file}: damaged ({'.'.join(map(str, first['loc']))}: {first['msg']}); delete the "
            f"folder {folder} and run again to build it anew"
        ) from error
    return meta
