"""Kimi's own vocabulary file, ``tiktoken.model``: base64 tokens with their ranks, one a line.

The other back end of ``Tokenizer`` (``tokenizer.py``), on the library ``tiktoken``. The special
tokens stand in ``tokenizer_config.json`` beside it, or else where Kimi K2 has them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from selenite.chat.k2_vocabulary import NUM_RESERVED, PATTERN, SPECIAL_OFFSETS
from selenite.errors import MissingExtraError, TokenizerError

FILE_NAME = "tiktoken.model"


class TiktokenBackend:
    """A rank file with K2's pre-tokeniser; ``special_tokens`` maps each name to its id.

    ``model_bytes`` is the content of the file; ``origin`` names it in errors.
    """

    def __init__(
        self, model_bytes: bytes, special_tokens: Mapping[str, int] | None, origin: str
    ) -> None:
        try:
            import tiktoken
        except ImportError as error:
            raise MissingExtraError("tiktoken", "train", f"reading {origin}") from error
        self._model_bytes = model_bytes
        ranks = _parse_ranks(model_bytes, origin)
        self.special_tokens = _special_tokens(len(ranks), special_tokens or {})
        _check_fit(ranks, self.special_tokens, origin)
        self._ranks = ranks
        self._encoding = tiktoken.Encoding(
            "kimi", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens=self.special_tokens
        )
        self.vocab_size = 1 + max(self.special_tokens.values())

    def encode(self, text: str, allow_special: bool) -> list[int]:
        if allow_special:
            return self._encoding.encode(text, allowed_special="all")
        return self._encoding.encode_ordinary(text)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return self._encoding.encode_ordinary_batch(list(texts), num_threads=1)

    def decode(self, ids: Sequence[int]) -> str:
        return self._encoding.decode(list(ids), errors="replace")

    def vocabulary(self) -> list[bytes]:
        """The bytes that each id stands for; nothing for special tokens and holes."""
        entries = [b""] * self.vocab_size
        for token, rank in self._ranks.items():
            entries[rank] = token
        return entries

    def adds_start(self) -> bool:
        """Nothing is put before a text."""
        return False

    def content(self) -> bytes:
        """What the fingerprint is taken of: the ranks and the special tokens."""
        specials = json.dumps(self.special_tokens, sort_keys=True).encode()
        return hashlib.sha256(self._model_bytes).digest() + specials

    def save(self, folder: Path) -> None:
        (folder / FILE_NAME).write_bytes(self._model_bytes)

    def config_entries(self) -> dict[str, object]:
        """Lines of ``tokenizer_config.json``: the ids of the special tokens."""
        added = {
            str(index): {"content": name, "special": True}
            for name, index in sorted(self.special_tokens.items(), key=lambda item: item[1])
        }
        return {"tokenizer_class": "TikTokenTokenizer", "added_tokens_decoder": added}


def _special_tokens(num_merged: int, given: Mapping[str, int]) -> dict[str, int]:
    """All reserved places by name: the given names, or K2's, the rest as reserved tokens."""
    named = {name: num_merged + offset for name, offset in SPECIAL_OFFSETS.items()}
    named = dict(given) or named
    by_id = {index: name for name, index in named.items()}
    first = min(by_id)
    for index in range(first, first + NUM_RESERVED):
        by_id.setdefault(index, f"<|reserved_token_{index}|>")
    return {name: index for index, name in sorted(by_id.items())}


def _check_fit(ranks: Mapping[bytes, int], special_tokens: Mapping[str, int], origin: str) -> None:
    clash = set(special_tokens.values()) & set(ranks.values())
    if clash:
        raise TokenizerError(
            f"{origin}: ids {sorted(clash)[:5]} are both merged and special tokens; the file and "
            "the tokenizer_config.json beside it belong to different models"
        )
    first = min(special_tokens.values())
    if first != len(ranks):
        raise TokenizerError(
            f"{origin}: {len(ranks)} merged tokens, but the special tokens in "
            f"tokenizer_config.json begin at {first}; the file was cut short or belongs to "
            "another model: download it again"
        )


def _parse_ranks(model_bytes: bytes, origin: str) -> dict[bytes, int]:
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(model_bytes.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise TokenizerError(
                f"{origin}, line {number}: {line[:40]!r} is not a base64 token and its rank; "
                "the file is damaged or not a tiktoken vocabulary: download it again"
            ) from error
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if missing or set(ranks.values()) != set(range(len(ranks))):
        fault = f"byte {missing[0]} has no token" if missing else "ranks are not 0, 1, 2, ..."
        raise TokenizerError(
            f"{origin}: {fault}, so the vocabulary is incomplete (cut short?): download it again"
        )
    return ranks
