"""Fine-tuning on conversations, from a config to a model directory: ``selenite sft``.

    rows, text -> pieces -> micro-batches -> task -> loop -> model directory, report, summary

The run's directory then holds what ``train/pretrain.py`` says. The template that was taught is in
the tokenizer's files, so that whatever serves the model writes prompts as it learnt them.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from contextlib import closing

import torch

from selenite.atomic import sha256
from selenite.chat.profile import K2, ChatProfile, detect_profile
from selenite.chat.template import compact_template
from selenite.chat.tokenizer import Tokenizer
from selenite.clock import Clock
from selenite.data.chat_rows import ChatRow, read_chat_rows
from selenite.data.packing import MicroBatch
from selenite.data.piece_loader import PieceLoader, held_out_batches
from selenite.data.pieces import ChatStream, PieceStream, TextStream
from selenite.data.prepare import prepare
from selenite.data.rows import expand
from selenite.errors import DataError
from selenite.model.hf_adapter import check_tokenizer, load_pretrained
from selenite.model.lora import add_lora
from selenite.optim.build import build_groups
from selenite.optim.groups import describe
from selenite.runtime import measure_peak, seed_everything, torch_dtype
from selenite.train.curves import check_matplotlib
from selenite.train.initial_model import weight_hashes
from selenite.train.lock import exclusive
from selenite.train.loop import Outcome, Status, run_held
from selenite.train.progress import CorpusBar, make_display
from selenite.train.run import decide, finish, record_config
from selenite.train.sft_config import ChatPart, SftConfig, TextPart
from selenite.train.sft_task import SftData, SftTask
from selenite.train.summary import Summary

logger = logging.getLogger(__name__)


def sft(
    config: SftConfig, clock: Clock, peak_flops: float | None = None
) -> tuple[Outcome, Summary | None]:
    """Runs or resumes the run of ``config``; when it is finished, exports, reports and sums up.

    The summary is none if a signal stopped the run. ``peak_flops`` as in ``pretrain``. Raises the
    errors of ``train.loop.run``, and ``DataError`` for conversations that cannot be read.
    """
    check_matplotlib()
    train = config.train
    decisions = decide(train)
    for name, decision in decisions.items():
        logger.info("%s: %s (%s)", name, decision.value, decision.reason)
    device, dtype = decisions["device"].value, torch_dtype(decisions["dtype"].value)
    with exclusive(train.out_dir), closing(build_task(config, device, dtype)) as task:
        if peak_flops is None and device == "cpu":
            with torch.random.fork_rng():  # the measurement draws numbers; the run must not notice
                peak_flops = measure_peak(dtype, clock)
        logger.info("\n%s", describe(build_groups(task.model, config.optim)))
        outcome = run_held(
            task,
            train.num_steps,
            train,
            clock,
            make_display(clock),
            peak_flops,
            on_accepted=lambda: record_config(config, train.out_dir),
        )
        for line in task.usage():
            logger.info(line)
        if outcome.status is Status.STOPPED:
            return outcome, None
        adapted = train.init_from if config.lora else None
        return outcome, finish(
            task, config.optim, train.out_dir, outcome, peak_flops, decisions, adapted
        )


def build_task(config: SftConfig, device: str, dtype: torch.dtype) -> SftTask:
    """The task at its first step; every draw of the run follows from ``train.seed``."""
    train = config.train
    data = read_data(config)
    seed_everything(train.seed)
    model = load_pretrained(train.init_from, dtype)
    if config.lora is not None:
        model = add_lora(model, config.lora, train.seed)
    return SftTask(model.to(device), data, config, weight_hashes(train.init_from))


def read_data(config: SftConfig) -> SftData:
    """The parts of a config, tokenised as they are read."""
    train = config.train
    tokenizer, profile = _template(config)
    streams: list[PieceStream] = []
    hashes: list[str] = []
    held_out: dict[str, list[MicroBatch]] = {}
    shown: list[ChatRow] = []
    most = max(1, train.eval_tokens // len(config.parts))
    for number, part in enumerate(config.parts):
        seed = train.seed + number
        if isinstance(part, TextPart):
            with CorpusBar() as bar:
                corpus = prepare(part.data, train.data_cache, bar.show, tokenizer)
            streams.append(TextStream(corpus.train, part.window, seed))
            kept: PieceStream = TextStream(corpus.val, part.window, shuffle=False)
            count = corpus.val.num_tokens // part.window
            hashes.append(corpus.train.sha256)
        else:
            learnt, other = _split(read_chat_rows(part.paths), part)
            options = (tokenizer, profile, train.seq_len, seed, part.unused_tools)
            streams.append(ChatStream(learnt, *options))
            kept = ChatStream(other, *options, shuffle=False) if other else streams[-1]
            count = len(other)
            shown += other[: max(0, train.samples - len(shown))]
            hashes.append(_digest(part))
            logger.info("%s: %d conversations, %d held out", part.name, len(learnt), len(other))
        batches = held_out_batches(kept, count, train.micro_batch_tokens, most)
        if batches:
            held_out[part.name] = batches
    if not held_out:
        raise DataError(
            "no part has anything held out to evaluate on: raise held_out of one, or give more rows"
        )
    loader = PieceLoader(
        streams,
        [part.weight for part in config.parts],
        train.micro_batch_tokens,
        [part.name for part in config.parts],
    )
    identity = {
        "tokenizer": tokenizer.fingerprint(),
        "template": hashlib.sha256(profile.template(tokenizer).encode()).hexdigest(),
        "parts": hashes,
        "batch": [train.micro_batch_tokens, train.seq_len],
    }
    return SftData(tokenizer, profile, loader, held_out, shown, identity)


def _template(config: SftConfig) -> tuple[Tokenizer, ChatProfile]:
    """The tokenizer with the template that is taught, which it is saved with, and its profile."""
    directory = config.train.init_from
    tokenizer = Tokenizer.load(directory)
    check_tokenizer(directory, tokenizer)
    if config.train.template == "compact":
        is_k2 = detect_profile(tokenizer)[0].name.startswith(K2.name)
        tokenizer.chat_template = compact_template(is_k2)
    profile, why = detect_profile(tokenizer)
    logger.info("profile: %s (%s)", profile.name, why)
    profile.check_vocabulary(tokenizer)
    tokenizer.chat_template = profile.template(tokenizer)
    return tokenizer, detect_profile(tokenizer)[0]


def _split(rows: Sequence[ChatRow], part: ChatPart) -> tuple[list[ChatRow], list[ChatRow]]:
    """The rows that are learnt, and those that are held out, whatever else is in the file."""
    other = [row for row in rows if row.key < part.held_out]
    learnt = [row for row in rows if row.key >= part.held_out]
    if not learnt:
        raise DataError(f"part {part.name}: all conversations are held out; lower held_out")
    return learnt, other


def _digest(part: ChatPart) -> str:
    """Of the part's rows and of how they are read, for a checkpoint to agree with."""
    settings = part.model_dump(mode="json", exclude={"weight", "paths"})
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for file in expand(part.paths, "chat"):
        digest.update(sha256(file.file).encode())
    return digest.hexdigest()
