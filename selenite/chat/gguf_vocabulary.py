"""The vocabulary in a GGUF file as a ``Tokenizer``.

The file has tokens, merges, special tokens and the chat template, and names the rule by which text
is cut before merging; the rules themselves are llama.cpp's and the original tokenizer's, so each
name that is known here stands in ``_CUTTING``. The metadata comes from ``model/gguf.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from selenite.chat import tokenizer as chat_tokenizer
from selenite.chat.hf_backend import HfBackend
from selenite.errors import TokenizerError

_CONTROL, _USER_DEFINED = 3, 4  # values of tokenizer.ggml.token_type
_ROLES = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "pad_token": "padding_token_id",
    "unk_token": "unknown_token_id",
}


def _gpt2() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def _digits_apart() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _gpt2()])


_CUTTING: dict[str, Callable[[], pre_tokenizers.PreTokenizer]] = {
    "gpt-2": _gpt2,
    "smollm": _digits_apart,
}


def tokenizer_from_gguf(metadata: Mapping[str, Any], origin: str) -> chat_tokenizer.Tokenizer:
    """The tokenizer of a file's metadata; ``origin`` names the file in errors.

    Raises ``TokenizerError`` for another kind of vocabulary, an unknown cutting rule, or a
    missing key.
    """

    def value(key: str) -> Any:
        full = f"tokenizer.ggml.{key}"
        if full not in metadata:
            raise TokenizerError(
                f"{origin}: the key {full} is missing; convert it from another file"
            )
        return metadata[full]

    kind, cutting = value("model"), value("pre")
    if kind != "gpt2" or cutting not in _CUTTING:
        raise TokenizerError(
            f"{origin}: a vocabulary of kind {kind!r} cut by {cutting!r}; byte-level ones ('gpt2') "
            f"cut by {', '.join(map(repr, _CUTTING))} are read. Convert the original checkpoint"
        )
    tokens, types = value("tokens"), value("token_type")
    merges = [tuple(merge.split(" ", 1)) for merge in value("merges")]
    library = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    library.pre_tokenizer = _CUTTING[cutting]()
    library.decoder = decoders.ByteLevel()
    added = [
        AddedToken(token, special=kind == _CONTROL, normalized=False)
        for token, kind in zip(tokens, types, strict=True)
        if kind in (_CONTROL, _USER_DEFINED)
    ]
    library.add_tokens(added)
    roles = {
        role: tokens[index]
        for role, key in _ROLES.items()
        if (index := metadata.get(f"tokenizer.ggml.{key}")) is not None
    }
    template = metadata.get("tokenizer.chat_template")
    adds_bos = bool(metadata.get("tokenizer.ggml.add_bos_token", False))
    return chat_tokenizer.Tokenizer(HfBackend(library.to_str(), origin), roles, template, adds_bos)
