"""Vocabularies in Hugging Face's ``tokenizer.json``: trained here, or loaded from any folder.

One of the two back ends of ``Tokenizer`` (``tokenizer.py``), on the library ``tokenizers``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from selenite.chat.k2_vocabulary import PATTERN, SPECIAL_TOKENS
from selenite.errors import TokenizerError

_NUM_BYTES = 256


def _byte_characters() -> dict[str, int]:
    """GPT-2's way to write bytes as characters: those that print stand for themselves, the others
    for the next characters from 256 on."""
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(_NUM_BYTES) if byte not in printed]
    shifted = {chr(_NUM_BYTES + place): byte for place, byte in enumerate(others)}
    return {chr(byte): byte for byte in printed} | shifted


_BYTE_OF = _byte_characters()


class HfBackend:
    """A ``tokenizers.Tokenizer`` in two readings: special tokens as text, and as themselves.

    ``json_text`` is the content of a ``tokenizer.json``; ``origin`` names it in errors.
    Two copies, because the switch between the readings is mutable state of the library's object
    and encoding happens in several threads.
    """

    def __init__(self, json_text: str, origin: str) -> None:
        self._text_reading = _parse(json_text, origin)
        self._text_reading.encode_special_tokens = True
        self._special_reading = _parse(json_text, origin)
        added = self._special_reading.get_added_tokens_decoder()
        self.special_tokens = {
            token.content: int(index) for index, token in sorted(added.items()) if token.special
        }
        self.vocab_size = 1 + max(
            self._special_reading.get_vocab(with_added_tokens=True).values(), default=-1
        )

    def encode(self, text: str, allow_special: bool) -> list[int]:
        reading = self._special_reading if allow_special else self._text_reading
        # As a batch: other threads run meanwhile, which for a single text the library forbids.
        return reading.encode_batch_fast([text], add_special_tokens=False)[0].ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        encodings = self._text_reading.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Sequence[int]) -> str:
        return self._special_reading.decode(list(ids), skip_special_tokens=False)

    def vocabulary(self) -> list[bytes]:
        """The bytes that each id stands for; nothing for special tokens and holes."""
        entries = [b""] * self.vocab_size
        byte_level = isinstance(self._special_reading.decoder, decoders.ByteLevel)
        special = set(self.special_tokens.values())
        for token, index in self._special_reading.get_vocab(with_added_tokens=True).items():
            if index in special:
                continue
            # A byte-level token is written with one character for each of its bytes.
            if byte_level:
                entries[index] = bytes(_BYTE_OF[character] for character in token)
            else:
                entries[index] = self._special_reading.decode([index]).encode()
        return entries

    def adds_start(self) -> bool:
        """Whether the file's post-processor puts a token before a text."""
        return bool(self._text_reading.encode("", add_special_tokens=True).ids)

    def content(self) -> bytes:
        """What the fingerprint is taken of: the vocabulary, merges and rules in canonical JSON."""
        return json.dumps(json.loads(self._special_reading.to_str()), sort_keys=True).encode()

    def save(self, folder: Path) -> None:
        # The library's own save raises the bare class for a full disk.
        text = self._special_reading.to_str()
        (folder / "tokenizer.json").write_text(text, encoding="utf-8")

    def config_entries(self) -> dict[str, object]:
        """Lines of ``tokenizer_config.json`` that tell ``transformers`` how to load the folder."""
        return {"tokenizer_class": "PreTrainedTokenizerFast"}


def train_bpe(texts: Iterable[str], vocab_size: int) -> HfBackend:
    """A byte-level BPE with K2's pre-tokeniser; K2's special tokens take the last ids.

    ``vocab_size`` counts everything; small corpora may have fewer merges to give. Raises
    ``TokenizerError`` where it leaves no room for the 256 bytes and the special tokens.
    """
    smallest = _NUM_BYTES + len(SPECIAL_TOKENS)
    if vocab_size < smallest:
        raise TokenizerError(
            f"vocab_size={vocab_size}: a byte-level vocabulary needs {_NUM_BYTES} bytes and "
            f"{len(SPECIAL_TOKENS)} special tokens; choose {smallest} or more"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens(
        [AddedToken(name, special=True, normalized=False) for name in SPECIAL_TOKENS]
    )
    return HfBackend(tokenizer.to_str(), "the tokenizer just trained")


def _parse(json_text: str, origin: str) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_str(json_text)
    except Exception as error:
        if type(error) is not Exception:  # the library raises the bare class for a malformed file
            raise
        raise TokenizerError(
            f"{origin}: not a tokenizer.json that the library 'tokenizers' can read ({error}); "
            "save or download it again"
        ) from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
