"""Pre-training from a config to a model directory: ``selenite pretrain``.

    data -> corpus -> task -> loop -> checkpoint -> model directory, report, summary

The run's directory then holds config.toml, metrics.jsonl, checkpoints/, tensorboard/, report.html,
curves.png, summary.json, and the model in the Hugging Face layout; with LoRA adapter/ besides.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import torch

from selenite import atomic
from selenite.chat.tokenizer import Tokenizer
from selenite.clock import Clock
from selenite.data.corpus import TokenCorpus
from selenite.data.loader import Loader, LoaderConfig
from selenite.data.mixture import MixtureConfig, prepare_mixture
from selenite.data.prepare import prepare
from selenite.errors import ConfigError, StorageError
from selenite.optim.build import build_groups
from selenite.optim.groups import describe
from selenite.optim.schedule import Schedule
from selenite.runtime import (
    Decision,
    is_out_of_memory,
    measure_peak,
    seed_everything,
    torch_dtype,
)
from selenite.train.curves import check_matplotlib
from selenite.train.derived import derived_numbers
from selenite.train.initial_model import initial_model, weight_hashes
from selenite.train.lock import exclusive
from selenite.train.loop import Outcome, Status, run_held
from selenite.train.memory import out_of_memory, process_bytes
from selenite.train.pretrain_config import PretrainConfig, TrainConfig
from selenite.train.pretrain_task import PretrainTask
from selenite.train.progress import CorpusBar, make_display
from selenite.train.run import decide, finish, record_config
from selenite.train.summary import (
    Summary,
)

__all__ = ["PretrainConfig", "TrainConfig", "pretrain"]

logger = logging.getLogger(__name__)

CORPORA = "corpora.json"


def pretrain(
    config: PretrainConfig, clock: Clock, peak_flops: float | None = None
) -> tuple[Outcome, Summary | None]:
    """Runs or resumes the run of ``config``; when it is finished, exports, reports and sums up.

    The summary is none if a signal stopped the run. ``peak_flops`` is what MFU is counted against,
    in FLOP/s; none: measured here on the CPU, and no MFU on another device.
    Raises the errors of ``data.prepare`` and ``train.loop.run``, ``ConfigError`` for data that
    does not fit the model, and ``OutOfMemoryError``.
    """
    check_matplotlib()
    process = process_bytes()
    decisions = decide(config.train)
    for name, decision in decisions.items():
        logger.info("%s: %s (%s)", name, decision.value, decision.reason)
    with exclusive(config.train.out_dir):
        corpora = _corpora(config)
        try:
            return _pretrain(config, corpora, clock, peak_flops, decisions)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise out_of_memory(config, process, error) from error


def _pretrain(
    config: PretrainConfig,
    corpora: list[TokenCorpus],
    clock: Clock,
    peak_flops: float | None,
    decisions: dict[str, Decision],
) -> tuple[Outcome, Summary | None]:
    """``pretrain`` in a directory that this process holds, on data that are ready."""
    train = config.train
    device, dtype = decisions["device"].value, torch_dtype(decisions["dtype"].value)
    with closing(build_task(config, corpora, device, dtype)) as task:
        if peak_flops is None and device == "cpu":
            with torch.random.fork_rng():  # the measurement draws numbers; the run must not notice
                peak_flops = measure_peak(dtype, clock)
        for line in derived_numbers(config, corpora, peak_flops):
            logger.info(line)
        logger.info("\n%s", describe(build_groups(task.model, config.optim)))
        outcome = run_held(
            task,
            train.num_steps,
            train,
            clock,
            make_display(clock),
            peak_flops,
            on_accepted=lambda: _record(config, corpora),
        )
        if outcome.status is Status.STOPPED:
            return outcome, None
        adapted = train.init_from if config.lora else None
        summary = finish(task, config.optim, train.out_dir, outcome, peak_flops, decisions, adapted)
        return outcome, summary


def build_task(
    config: PretrainConfig, corpora: Sequence[TokenCorpus], device: str, dtype: torch.dtype
) -> PretrainTask:
    """The task at its first step; every draw of the run follows from ``train.seed``."""
    train = config.train
    seed_everything(train.seed)
    model = initial_model(config, dtype).to(device)
    if train.init_from is not None:
        corpora[0].check_tokenizer(Tokenizer.load(train.init_from))
    loader = Loader(
        [corpus.train for corpus in corpora],
        LoaderConfig(
            tokens_per_microbatch=train.micro_batch_tokens, seq_len=train.seq_len, seed=train.seed
        ),
        weights=config.data.weights if isinstance(config.data, MixtureConfig) else None,
    )
    schedule = Schedule(config.schedule, train.num_steps)
    return PretrainTask(
        model,
        corpora,
        loader,
        config.optim,
        schedule,
        train,
        config.lora,
        None if train.init_from is None else weight_hashes(train.init_from),
    )


def _corpora(config: PretrainConfig) -> list[TokenCorpus]:
    """The run's corpora: those that it began with if its data config is the same, else prepared.

    Installed packages change (the default source); a run that goes on keeps its text.
    """
    record = config.train.out_dir / CORPORA
    data = config.data.model_dump(mode="json")
    if record.exists():
        try:
            begun = json.loads(record.read_bytes())
            is_same, paths = begun["data"] == data, [Path(path) for path in begun["paths"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StorageError(
                f"{record}: not the record of a run's corpora; delete it to prepare the data again"
            ) from error
        if is_same and all(path.is_dir() for path in paths):
            return _fitting([TokenCorpus(path) for path in paths], config)
    cache = config.train.data_cache
    with CorpusBar() as bar:
        if isinstance(config.data, MixtureConfig):
            corpora = prepare_mixture(config.data, cache, bar.show)
        else:
            corpora = [prepare(config.data, cache, bar.show)]
    return _fitting(corpora, config)


def _fitting(corpora: list[TokenCorpus], config: PretrainConfig) -> list[TokenCorpus]:
    vocab_size = corpora[0].vocab_size
    if vocab_size > config.model.vocab_size:
        raise ConfigError(
            f"the tokenizer of the data has {vocab_size} tokens, but model.vocab_size="
            f"{config.model.vocab_size}; set model.vocab_size={vocab_size} or more"
        )
    # Here and not at the first sample, which may come after hours.
    train, tokenizer = config.train, corpora[0].tokenizer
    for prompt in train.prompts:
        length = 1 + len(tokenizer.encode(prompt))
        if length + train.sample_tokens > config.model.max_positions:
            raise ConfigError(
                f"train.prompts: {prompt[:40]!r} has {length} tokens; with train.sample_tokens="
                f"{train.sample_tokens} that exceeds model.max_positions="
                f"{config.model.max_positions}; shorten the prompt or lower sample_tokens"
            )
    return corpora


def _record(config: PretrainConfig, corpora: Sequence[TokenCorpus]) -> None:
    """Leaves corpora and resolved config beside the run; says what differs from the last time."""
    out_dir, data = config.train.out_dir, config.data.model_dump(mode="json")
    paths = [str(corpus.path.resolve()) for corpus in corpora]
    record = json.dumps({"data": data, "paths": paths}, indent=1) + "\n"
    atomic.write_text(out_dir / CORPORA, record)
    record_config(config, out_dir)
