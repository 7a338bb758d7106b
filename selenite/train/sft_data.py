"""What a fine-tuning run learns from and is evaluated on, out of its config.

A part is rows or text. Rows are held out by a hash of what they say, and evaluated on with the same
few tools at every call and in every run, so that losses of runs can be compared.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selenite import atomic
from selenite.chat.profile import K2, ChatProfile, detect_profile
from selenite.chat.template import Rendering, compact_template
from selenite.chat.template_check import check_template
from selenite.chat.tokenizer import Tokenizer
from selenite.data.chat_rows import ChatRow, read_chat_rows
from selenite.data.chat_stream import ChatStream
from selenite.data.corpus import TokenCorpus
from selenite.data.packing import MicroBatch
from selenite.data.piece_loader import PieceLoader, held_out_batches
from selenite.data.pieces import PieceStream, TextStream
from selenite.data.prepare import prepare
from selenite.data.rows import expand
from selenite.errors import ConfigError, DataError, StorageError
from selenite.model.hf_adapter import check_tokenizer
from selenite.train.progress import CorpusBar
from selenite.train.sft_config import ChatPart, SftConfig, TextPart
from selenite.types import ToolSpec

logger = logging.getLogger(__name__)

CORPORA = "corpora.json"
_HELD_OUT_TOOLS = 4  # beside the needed ones, in rows that are evaluated on
_MARKERS = ("<|im_start|>", "<|im_end|>")  # of ChatML


@dataclass(frozen=True)
class Prompt:
    """The beginning of a held-out conversation, up to the first turn that would be learnt."""

    ids: tuple[int, ...]
    text: str  # of the turn before


@dataclass(frozen=True)
class SftData:
    """All of it, tokenised as it is read."""

    tokenizer: Tokenizer  # with the template that is taught
    profile: ChatProfile
    loader: PieceLoader
    held_out: Mapping[str, Sequence[MicroBatch]]  # by part
    shown: Sequence[Prompt]
    identity: Mapping[str, Any]  # what a checkpoint must agree with
    corpora: Mapping[str, Any]  # by part of text: its config, and where its tokens lie


@dataclass
class _Parts:
    """What is gathered, part by part."""

    streams: list[PieceStream] = field(default_factory=list)
    held_out: dict[str, tuple[PieceStream, int]] = field(default_factory=dict)  # and its pieces
    identity: dict[str, Any] = field(default_factory=dict)
    corpora: dict[str, Any] = field(default_factory=dict)
    shown: list[Prompt] = field(default_factory=list)


def read_data(config: SftConfig, may_hold_out_nothing: bool = False) -> SftData:
    """What a run reads: rows to learn, and unless it may do without, rows to evaluate on.

    Raises ``ConfigError`` for a template that the model cannot have, ``DataError`` for rows that
    cannot be read or learnt from."""
    train = config.train
    tokenizer, profile = _template(config)
    parts = _Parts()
    for number, part in enumerate(config.parts):
        if isinstance(part, TextPart):
            _add_text(parts, part, config, tokenizer, train.seed + number)
        else:
            _add_rows(parts, part, config, tokenizer, profile, train.seed + number)
    most = max(1, train.eval_tokens // max(1, len(parts.held_out)))
    held_out = {
        name: held_out_batches(stream, count, train.micro_batch_tokens, most)
        for name, (stream, count) in parts.held_out.items()
    }
    held_out = {name: batches for name, batches in held_out.items() if batches}
    if not (held_out or may_hold_out_nothing):
        raise DataError(
            "no part has anything held out to evaluate on: raise held_out of one, or give more rows"
        )
    loader = PieceLoader(
        parts.streams,
        [part.weight for part in config.parts],
        train.micro_batch_tokens,
        [part.name for part in config.parts],
    )
    template = hashlib.sha256(profile.template(tokenizer).encode()).hexdigest()
    identity = {"tokenizer": tokenizer.fingerprint(), "template": template, **parts.identity}
    return SftData(tokenizer, profile, loader, held_out, parts.shown, identity, parts.corpora)


def record_corpora(out_dir: Path, corpora: Mapping[str, Any]) -> None:
    """Leaves beside the run where its text lies: packages change, a run that goes on keeps it."""
    if corpora:
        atomic.write_text(out_dir / CORPORA, json.dumps(corpora, indent=1) + "\n")


def _template(config: SftConfig) -> tuple[Tokenizer, ChatProfile]:
    """The tokenizer with the template that is taught, which it is saved with, and its profile."""
    directory = config.train.init_from
    tokenizer = Tokenizer.load(directory)
    check_tokenizer(directory, tokenizer)
    if config.train.template == "compact":
        is_k2 = detect_profile(tokenizer)[0].name.startswith(K2.name)
        lacking = [] if is_k2 else [m for m in _MARKERS if m not in tokenizer.special_tokens]
        if lacking:
            raise ConfigError(
                f"train.template=compact: {directory} is neither of K2's family nor of ChatML's "
                f"(its vocabulary has no {lacking[0]}); use template=own"
            )
        tokenizer.chat_template = compact_template(is_k2)
    tokenizer.chat_template = detect_profile(tokenizer)[0].template(tokenizer)
    profile, why = detect_profile(tokenizer)
    logger.info("profile: %s (%s)", profile.name, why)
    profile.check_vocabulary(tokenizer)
    for finding in check_template(tokenizer, profile):
        logger.warning("the template: %s", finding)
    return tokenizer, profile


def _add_text(
    parts: _Parts, part: TextPart, config: SftConfig, tokenizer: Tokenizer, seed: int
) -> None:
    corpus = _corpus(part, config, tokenizer)
    settings = part.data.model_dump(mode="json")
    parts.corpora[part.name] = {"data": settings, "path": str(corpus.path.resolve())}
    parts.streams.append(TextStream(corpus.train, part.window, seed))
    held_out = TextStream(corpus.val, part.window, shuffle=False) if corpus.val.num_tokens else None
    if held_out is not None:
        parts.held_out[part.name] = held_out, corpus.val.num_tokens // part.window
    parts.identity[f"part {part.name}"] = {"text": corpus.train.sha256, "window": part.window}


def _corpus(part: TextPart, config: SftConfig, tokenizer: Tokenizer) -> TokenCorpus:
    """The text that the run began with if its config is the same, else prepared."""
    record = config.train.out_dir / CORPORA
    if record.exists():
        try:
            begun = json.loads(record.read_bytes()).get(part.name, {})
            is_same = begun.get("data") == part.data.model_dump(mode="json")
            if is_same and Path(begun["path"]).is_dir():
                return TokenCorpus(Path(begun["path"]))
        except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
            raise StorageError(
                f"{record}: not the record of a run's text; delete it to prepare the text again"
            ) from error
    with CorpusBar() as bar:
        return prepare(part.data, config.train.data_cache, bar.show, tokenizer)


def _add_rows(
    parts: _Parts,
    part: ChatPart,
    config: SftConfig,
    tokenizer: Tokenizer,
    profile: ChatProfile,
    seed: int,
) -> None:
    train = config.train
    rows = read_chat_rows(part.paths)
    if profile.calls is None:
        with_tools = next((row for row in rows if row.tools), None)
        if with_tools is not None:
            raise DataError(
                f"{with_tools.place}: a row with tools, and the template of {train.init_from} has "
                "no format of calls; set train.template=compact, or give rows without tools"
            )
    if part.together > 1:
        _check_groups(rows, part)
    learnt = [row for row in rows if row.key >= part.held_out]
    other = sorted((row for row in rows if row.key < part.held_out), key=lambda row: row.key)
    if not learnt:
        raise DataError(f"part {part.name}: all conversations are held out; lower held_out")
    logger.info("%s: %d conversations, %d held out", part.name, len(learnt), len(other))
    parts.streams.append(
        ChatStream(
            learnt,
            tokenizer,
            profile,
            train.seq_len,
            seed,
            part.unused_tools,
            together=part.together,
            piece_tokens=train.micro_batch_tokens,
        )
    )
    if other:
        tools = None if part.unused_tools is None else _HELD_OUT_TOOLS
        kept = ChatStream(other, tokenizer, profile, train.seq_len, 0, tools, shuffle=False)
        parts.held_out[part.name] = kept, len(other)
    for row in other:
        prompt = _prompt(row, tokenizer, profile, train.seq_len - train.sample_tokens)
        if prompt is not None and len(parts.shown) < train.samples:
            parts.shown.append(prompt)
    parts.identity[f"part {part.name}"] = {
        "rows": [atomic.sha256(file.file) for file in expand(part.paths, "chat")],
        **part.model_dump(mode="json", include={"held_out", "unused_tools", "together"}),
        "seq_len": train.seq_len,
        **({"piece_tokens": train.micro_batch_tokens} if part.together > 1 else {}),
    }


def _check_groups(rows: Sequence[ChatRow], part: ChatPart) -> None:
    """Rows of a group have each other's tools: of one name there is one."""
    known = dict[tuple[str, str], ToolSpec]()
    for row in rows:
        for tool in row.tools if row.group else ():
            if known.setdefault((row.group, tool.name), tool) != tool:
                raise DataError(
                    f"{row.place}: {tool.name} is another tool in an earlier row of group "
                    f"{row.group!r}; rename one, or give the rows groups of their own"
                )
    if not known:
        logger.warning(
            "part %s: together=%d, and no row has a group: each is read alone",
            part.name,
            part.together,
        )


def _prompt(row: ChatRow, tokenizer: Tokenizer, profile: ChatProfile, most: int) -> Prompt | None:
    """Where the assistant's first learnt turn begins; None: too long, or nothing comes before."""
    turns = enumerate(row.messages)
    learnt = (i for i, m in turns if m.role == "assistant" and i not in row.untrained)
    first = next(learnt)
    if first == 0:
        return None
    rendering = Rendering(tokenizer, profile.template(tokenizer), row.messages, row.tools)
    ids = rendering.encode(rendering.text(first, add_generation_prompt=True))
    return Prompt(tuple(ids), row.messages[first - 1].content) if len(ids) <= most else None
