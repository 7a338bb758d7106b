"""Text to token ids and back: the only door between the two.

``Tokenizer`` wraps a vocabulary (Hugging Face ``tokenizer.json`` or Kimi's ``tiktoken.model``)
with the ids of its special tokens, its chat template and a fingerprint. Text that happens to
spell a special token stays text unless the caller asks otherwise.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from selenite.chat.hf_backend import HfBackend, train_bpe
from selenite.chat.k2_vocabulary import BOS, EOS, PAD, UNK
from selenite.chat.template import k2_template
from selenite.chat.tiktoken_backend import FILE_NAME as TIKTOKEN_FILE
from selenite.chat.tiktoken_backend import TiktokenBackend
from selenite.errors import TokenizerError

_HF_FILE = "tokenizer.json"
_CONFIG_FILE = "tokenizer_config.json"
_ROLES = ("bos_token", "eos_token", "pad_token", "unk_token")


class _Backend(Protocol):
    special_tokens: dict[str, int]
    vocab_size: int

    def encode(self, text: str, allow_special: bool) -> list[int]: ...
    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]: ...
    def decode(self, ids: Sequence[int]) -> str: ...
    def vocabulary(self) -> list[bytes]: ...
    def adds_start(self) -> bool: ...
    def content(self) -> bytes: ...
    def save(self, folder: Path) -> None: ...
    def config_entries(self) -> dict[str, object]: ...


class Tokenizer:
    """A vocabulary, its special tokens and its chat template.

    Made by ``train`` or ``load``. ``roles`` maps ``bos_token``, ``eos_token``, ``pad_token`` and
    ``unk_token`` to the names that this vocabulary has for them. ``adds_bos``: a model of this
    vocabulary was trained on documents that begin with the start token, so prompts of plain text
    do, too.
    """

    def __init__(
        self,
        backend: _Backend,
        roles: Mapping[str, str],
        chat_template: str | None,
        adds_bos: bool = False,
    ) -> None:
        for role, name in roles.items():
            if name not in backend.special_tokens:
                raise TokenizerError(
                    f"{role}={name!r} is not a special token of this vocabulary; mend "
                    f"{_CONFIG_FILE} (special tokens: {', '.join(backend.special_tokens)[:200]})"
                )
        self._backend = backend
        self._roles = dict(roles)
        self.chat_template = chat_template
        self.adds_bos = adds_bos

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> Tokenizer:
        """A byte-level BPE of at most ``vocab_size`` ids with Kimi K2's special tokens."""
        roles = dict(zip(_ROLES, (BOS, EOS, PAD, UNK), strict=True))
        return cls(train_bpe(texts, vocab_size), roles, k2_template(), adds_bos=True)

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        """Reads a folder with ``tokenizer.json`` or ``tiktoken.model``, or one of these files.

        Raises ``TokenizerError``, which names the file, when it is missing or malformed.
        """
        file = _vocabulary_file(Path(path))
        config = _read_config(file.parent)
        backend: _Backend
        if file.suffix == ".json":
            backend = HfBackend(_read_text(file), str(file))
            fallback = {}
        else:
            backend = TiktokenBackend(_read_bytes(file), _added_tokens(file, config), str(file))
            fallback = dict(zip(_ROLES, (BOS, EOS, PAD, UNK), strict=True))
        roles = {role: name for role in _ROLES if (name := _role_name(role, config.get(role)))}
        if not roles:  # no tokenizer_config.json, or one that names nothing
            roles = {r: name for r, name in fallback.items() if name in backend.special_tokens}
        adds_bos = config.get("add_bos_token")
        if not isinstance(adds_bos, bool):  # then what the vocabulary's own file does counts
            adds_bos = backend.adds_start()
        return cls(backend, roles, _read_template(file.parent, config), adds_bos)

    def save(self, folder: str | Path) -> None:
        """Writes the folder that ``load`` and ``transformers.AutoTokenizer`` read."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._backend.save(folder)
        config: dict[str, object] = {**self._backend.config_entries(), **self._roles}
        config["clean_up_tokenization_spaces"] = False
        config["add_bos_token"] = self.adds_bos
        if self.chat_template is not None:
            config["chat_template"] = self.chat_template
        text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
        (folder / _CONFIG_FILE).write_text(text, encoding="utf-8")

    def encode(self, text: str, allow_special: bool = False) -> list[int]:
        """Token ids of ``text``, with nothing added before or after.

        With ``allow_special`` the names of special tokens in the text become their ids: only for
        text that no outsider can write.
        """
        return self._backend.encode(text, allow_special)

    def prompt_ids(self, text: str) -> list[int]:
        """The ids of a text that a model is to continue: the start token first, where the
        vocabulary adds it."""
        return [*([self.bos_id] if self.adds_bos else []), *self.encode(text)]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """``encode`` of each text, special tokens as text; faster than one at a time."""
        return self._backend.encode_batch(texts)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ``ids``, special tokens by name; bytes that are no UTF-8 become U+FFFD."""
        return self._backend.decode(ids)

    def vocabulary(self) -> list[bytes]:
        """The bytes that each id stands for; nothing for special tokens and holes."""
        return self._backend.vocabulary()

    def token_bytes(self) -> np.ndarray:
        """UTF-8 bytes that each id stands for, int32 ``[V]``; special tokens stand for none."""
        return np.array([len(entry) for entry in self.vocabulary()], dtype=np.int32)

    def special_id(self, name: str) -> int:
        """The id of a special token; raises ``TokenizerError`` where there is none of this name."""
        if name not in self._backend.special_tokens:
            raise TokenizerError(
                f"{name!r} is not a special token of this vocabulary; load the tokenizer that "
                "belongs to the model or template in use"
            )
        return self._backend.special_tokens[name]

    @property
    def special_tokens(self) -> dict[str, int]:
        """Name to id."""
        return dict(self._backend.special_tokens)

    @property
    def roles(self) -> dict[str, str]:
        """``bos_token`` and so on to the name of the special token; templates read these."""
        return dict(self._roles)

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return self._backend.vocab_size

    @property
    def bos_id(self) -> int:
        """Starts a document. Where a vocabulary has none, its end token stands there too."""
        return self._role_id("bos_token") if "bos_token" in self._roles else self.eos_id

    @property
    def eos_id(self) -> int:
        """Ends a document."""
        return self._role_id("eos_token")

    @property
    def pad_id(self) -> int | None:
        """Fills rows for programs that need it; nothing here pads. None: there is none."""
        return self._role_id("pad_token") if "pad_token" in self._roles else None

    def fingerprint(self) -> str:
        """SHA-256 (hex) of all that decides ids: equal fingerprints, equal ids."""
        digest = hashlib.sha256(self._backend.content())
        digest.update(json.dumps(self._roles, sort_keys=True).encode())
        return digest.hexdigest()

    def _role_id(self, role: str) -> int:
        if role not in self._roles:
            raise TokenizerError(
                f"the vocabulary has no {role}; name it in {_CONFIG_FILE} beside the vocabulary"
            )
        return self.special_id(self._roles[role])


def _vocabulary_file(path: Path) -> Path:
    candidates = [path / _HF_FILE, path / TIKTOKEN_FILE] if path.is_dir() else [path]
    for file in candidates:
        if file.is_file():
            return file
    if not path.exists():
        raise TokenizerError(
            f"{path}: no tokenizer there: no such file or directory; give a directory of this "
            "machine (names on a hub are not looked up)"
        )
    raise TokenizerError(
        f"{path}: no tokenizer there; give a folder with {_HF_FILE} or {TIKTOKEN_FILE}, "
        "or one of these files"
    )


def _read_bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise TokenizerError(
            f"{file}: cannot be read ({error.strerror}); restore it or permit reading"
        ) from error


def _read_text(file: Path) -> str:
    try:
        return _read_bytes(file).decode("utf-8")
    except UnicodeDecodeError as error:
        raise TokenizerError(
            f"{file}: not UTF-8 (byte {error.start}); the file is damaged: save or download it "
            "again"
        ) from error


def _read_config(folder: Path) -> dict[str, Any]:
    file = folder / _CONFIG_FILE
    if not file.is_file():
        return {}
    try:
        config = json.loads(_read_text(file))
    except json.JSONDecodeError as error:
        raise TokenizerError(f"{file}: not JSON ({error}); save or download it again") from error
    if not isinstance(config, dict):
        raise TokenizerError(f"{file}: holds no JSON object; save or download it again")
    return config


def _role_name(role: str, entry: Any) -> str | None:
    """A special token in a config is its name, or an object with the name as ``content``."""
    name = entry.get("content") if isinstance(entry, dict) else entry
    if name is not None and not isinstance(name, str):
        raise TokenizerError(
            f"{role}={entry!r}: not the name of a special token; mend {_CONFIG_FILE}"
        )
    return name


def _added_tokens(file: Path, config: Mapping[str, Any]) -> dict[str, int]:
    added = config.get("added_tokens_decoder", {})
    try:
        return {str(entry["content"]): int(index) for index, entry in added.items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise TokenizerError(
            f"{file.with_name(_CONFIG_FILE)}: added_tokens_decoder must give each id an object "
            f'with "content" ({error!r}); download it again'
        ) from error


def _read_template(folder: Path, config: Mapping[str, Any]) -> str | None:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return _read_text(file)
    template = config.get("chat_template")
    if not isinstance(template, list):
        return template if isinstance(template, str) else None
    named = {e.get("name"): e.get("template") for e in template if isinstance(e, dict)}
    default = named.get("default")
    if not isinstance(default, str):
        raise TokenizerError(
            f"{folder / _CONFIG_FILE}: chat_template lists {list(named)} and no 'default'; write "
            "the one to use into chat_template.jinja beside it"
        )
    return default
