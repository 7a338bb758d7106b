"""Pre-training from a config to a model directory: ``selenite pretrain``.

    data -> corpus -> task -> loop -> checkpoint -> model directory, report, summary

The run's directory then holds config.toml, metrics.jsonl, checkpoints/, tensorboard/, report.html,
curves.png, summary.json, and the model in the Hugging Face layout.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from selenite import config as config_files
from selenite.clock import Clock
from selenite.data.corpus import TokenCorpus
from selenite.data.loader import Loader, LoaderConfig
from selenite.data.mixture import MixtureConfig, prepare_mixture
from selenite.data.prepare import prepare
from selenite.errors import ConfigError
from selenite.model.accounting import count_parameters, training_flops_per_token
from selenite.model.hf_adapter import save_pretrained
from selenite.model.init import init_weights
from selenite.model.transformer import Transformer
from selenite.optim.build import build_groups
from selenite.optim.groups import describe
from selenite.optim.schedule import Schedule
from selenite.runtime import (
    Decision,
    apply_threads,
    choose_device,
    choose_dtype,
    describe_machine,
    enable_batch_invariant,
    measure_peak,
    seed_everything,
    torch_dtype,
)
from selenite.train.curves import check_matplotlib
from selenite.train.derived import derived_numbers
from selenite.train.loop import Outcome, Status, run
from selenite.train.memory import is_out_of_memory, out_of_memory, process_bytes
from selenite.train.pretrain_config import PretrainConfig, TrainConfig
from selenite.train.pretrain_task import PretrainTask
from selenite.train.progress import CorpusBar, make_display
from selenite.train.report import logit_text, write_report
from selenite.train.summary import SUMMARY, Summary, read_metrics, summarize, write_atomically

__all__ = ["PretrainConfig", "TrainConfig", "finished_summary", "pretrain"]

logger = logging.getLogger(__name__)

CONFIG = "config.toml"
CORPORA = "corpora.json"


def pretrain(config: PretrainConfig, clock: Clock, peak_flops: float | None = None) -> Outcome:
    """Runs or resumes the run of ``config``; when it is finished, exports and reports.

    ``peak_flops`` is what MFU is counted against, in FLOP/s; none: measured here.
    Raises the errors of ``data.prepare`` and ``train.loop.run``, ``ConfigError`` for data that
    does not fit the model, and ``OutOfMemoryError``.
    """
    check_matplotlib()
    if config.train.batch_invariant:
        enable_batch_invariant()
    process = process_bytes()
    decisions = {
        "threads": apply_threads(),
        "device": choose_device(config.train.device),
    }
    decisions["dtype"] = choose_dtype(config.train.dtype, decisions["device"].value)
    for name, decision in decisions.items():
        logger.info("%s: %s (%s)", name, decision.value, decision.reason)
    try:
        with ExitStack() as stack:
            return _pretrain(config, clock, peak_flops, decisions, stack)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise out_of_memory(config, process, error) from error


def _pretrain(
    config: PretrainConfig,
    clock: Clock,
    peak_flops: float | None,
    decisions: dict[str, Decision],
    stack: ExitStack,
) -> Outcome:
    train = config.train
    corpora = _corpora(config)
    device, dtype = decisions["device"].value, torch_dtype(decisions["dtype"].value)
    task = build_task(config, corpora, device, dtype)
    stack.callback(task.close)
    if peak_flops is None:
        with torch.random.fork_rng():  # the measurement draws numbers; the run must not notice
            peak_flops = measure_peak(dtype, clock)
    for line in derived_numbers(config, corpora, peak_flops):
        logger.info(line)
    logger.info("\n%s", describe(build_groups(task.model, config.optim)))
    _write_config(config)
    outcome = run(task, train.num_steps, train, clock, make_display(clock), peak_flops)
    if outcome.status is not Status.STOPPED:
        _finish(config, task, outcome, peak_flops, decisions)
    return outcome


def build_task(
    config: PretrainConfig, corpora: Sequence[TokenCorpus], device: str, dtype: torch.dtype
) -> PretrainTask:
    """The task at its first step; every draw of the run follows from ``train.seed``."""
    train = config.train
    seed_everything(train.seed)
    model = init_weights(Transformer(config.model, dtype), train.seed).to(device)
    loader = Loader(
        [corpus.train for corpus in corpora],
        LoaderConfig(
            tokens_per_microbatch=train.micro_batch_tokens, seq_len=train.seq_len, seed=train.seed
        ),
        weights=config.data.weights if isinstance(config.data, MixtureConfig) else None,
    )
    flops_per_token = training_flops_per_token(config.model, train.seq_len)
    schedule = Schedule(config.schedule, train.num_steps)
    return PretrainTask(model, corpora, loader, config.optim, schedule, train, flops_per_token)


def finished_summary(config: PretrainConfig) -> Summary | None:
    """The summary of the run of ``config`` if it is finished already, else none.

    A run whose config now asks for another number of steps is not finished.
    """
    path = config.train.out_dir / SUMMARY
    if config.train.resume != "latest" or not path.exists():
        return None
    summary = Summary.model_validate_json(path.read_text(encoding="utf-8"))
    return summary if summary.steps == config.train.num_steps else None


def _corpora(config: PretrainConfig) -> list[TokenCorpus]:
    """The run's corpora: those that it began with if its data config is the same, else prepared.

    Installed packages change (the default source); a run that goes on keeps its text.
    """
    record = config.train.out_dir / CORPORA
    data = config.data.model_dump(mode="json")
    if record.exists():
        begun = json.loads(record.read_text(encoding="utf-8"))
        if begun["data"] == data and all(Path(path).is_dir() for path in begun["paths"]):
            return _fitting([TokenCorpus(path) for path in begun["paths"]], config)
    cache = config.train.data_cache
    with CorpusBar() as bar:
        if isinstance(config.data, MixtureConfig):
            corpora = prepare_mixture(config.data, cache, bar.show)
        else:
            corpora = [prepare(config.data, cache, bar.show)]
    config.train.out_dir.mkdir(parents=True, exist_ok=True)
    paths = [str(corpus.path.resolve()) for corpus in corpora]
    write_atomically(record, json.dumps({"data": data, "paths": paths}, indent=1) + "\n")
    return _fitting(corpora, config)


def _fitting(corpora: list[TokenCorpus], config: PretrainConfig) -> list[TokenCorpus]:
    vocab_size = corpora[0].vocab_size
    if vocab_size > config.model.vocab_size:
        raise ConfigError(
            f"the tokenizer of the data has {vocab_size} tokens, but model.vocab_size="
            f"{config.model.vocab_size}; set model.vocab_size={vocab_size} or more"
        )
    return corpora


def _write_config(config: PretrainConfig) -> None:
    """Leaves the resolved config beside the run, and says what differs from the last time."""
    path = config.train.out_dir / CONFIG
    if path.exists():
        before = config_files.load(PretrainConfig, path)
        if before != config:
            logger.info("settings changed since this run began; the old ones were in %s", path)
    config_files.dump(config, path)


def _finish(
    config: PretrainConfig,
    task: PretrainTask,
    outcome: Outcome,
    peak_flops: float,
    decisions: dict[str, Decision],
) -> None:
    """Exports the model, then the report, then the summary, which says that all is there."""
    out_dir = config.train.out_dir
    _export(task, out_dir)
    rows = read_metrics(out_dir)
    count = count_parameters(config.model)
    facts = {
        "name": out_dir.name,
        "parameters": count.total,
        "active_parameters": count.active,
        "logit_statistic": config.optim.qk_clip_statistic,
        "tau": config.optim.qk_clip_tau,
        "machine": describe_machine(),
        "decisions": {name: f"{d.value} ({d.reason})" for name, d in decisions.items()},
    }
    summary = summarize(rows, outcome, peak_flops, facts)
    write_report(out_dir, summary, rows, (out_dir / CONFIG).read_text(encoding="utf-8"))
    write_atomically(out_dir / SUMMARY, summary.model_dump_json(indent=1) + "\n")


def _export(task: PretrainTask, out_dir: Path) -> None:
    """The model directory: written aside, then moved in, so that no file is ever half there."""
    aside = out_dir / ".export"
    shutil.rmtree(aside, ignore_errors=True)
    tokenizer = task.tokenizer
    save_pretrained(task.model, aside, tokenizer.bos_id, tokenizer.eos_id)
    tokenizer.save(aside)
    for path in sorted(aside.iterdir()):
        path.replace(out_dir / path.name)
    aside.rmdir()


def summary_lines(summary: Summary, out_dir: Path) -> Sequence[str]:
    """What a person reads at the end of a run."""
    before, after = summary.val_bits_per_byte_before, summary.val_bits_per_byte_after
    lines = [
        f"held-out bits per byte: {before:.3f} before, {after:.3f} after training on "
        f"{summary.tokens:,} tokens",
        f"loss spikes: {summary.spikes}; steps in which QK-Clip acted: "
        f"{summary.steps_with_clipping}; largest attention logit: {logit_text(summary)}",
        f"speed: {summary.tokens_per_second:,.0f} tokens per second, {summary.mfu:.1%} of the "
        "measured matrix-product peak",
    ]
    lines += [f"sample: {sample.prompt!r} -> {sample.after!r}" for sample in summary.samples]
    lines.append(f"report: {out_dir / 'report.html'}")
    lines.append(f"model:  {out_dir}")
    return lines
