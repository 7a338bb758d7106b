"""Pre-training from a config to a model directory: ``selenite pretrain``.

    data -> corpus -> task -> loop -> checkpoint -> model directory, report, summary

The run's directory then holds config.toml, metrics.jsonl, checkpoints/, tensorboard/, report.html,
curves.png, summary.json, and the model in the Hugging Face layout; with LoRA adapter/ besides.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import torch
from safetensors import SafetensorError

from selenite import atomic
from selenite import config as config_files
from selenite.chat.tokenizer import Tokenizer
from selenite.clock import Clock
from selenite.data.corpus import TokenCorpus
from selenite.data.loader import Loader, LoaderConfig
from selenite.data.mixture import MixtureConfig, prepare_mixture
from selenite.data.prepare import prepare
from selenite.errors import ConfigError, StorageError
from selenite.model.accounting import count_parameters
from selenite.model.hf_adapter import save_pretrained
from selenite.model.lora import merge_lora
from selenite.model.lora_files import save_lora
from selenite.ops import allocator
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
    is_out_of_memory,
    measure_peak,
    seed_everything,
    torch_dtype,
)
from selenite.train.checkpoint import differences
from selenite.train.curves import check_matplotlib
from selenite.train.derived import derived_numbers
from selenite.train.initial_model import initial_model, weight_hashes
from selenite.train.lock import exclusive
from selenite.train.loop import Outcome, Status, run_held
from selenite.train.memory import out_of_memory, process_bytes
from selenite.train.pretrain_config import PretrainConfig, TrainConfig
from selenite.train.pretrain_task import PretrainTask
from selenite.train.progress import CorpusBar, make_display
from selenite.train.report import logit_text, write_report
from selenite.train.summary import (
    SUMMARY,
    Summary,
    number_text,
    read_metrics,
    read_summary,
    summarize,
)

__all__ = ["PretrainConfig", "TrainConfig", "finished_summary", "pretrain"]

logger = logging.getLogger(__name__)

CONFIG = "config.toml"
CORPORA = "corpora.json"
ADAPTER = "adapter"


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
    if config.train.batch_invariant:
        enable_batch_invariant()
    process = process_bytes()
    decisions = {
        "threads": apply_threads(),
        "allocator": allocator.install(),
        "device": choose_device(config.train.device),
    }
    decisions["dtype"] = choose_dtype(config.train.dtype, decisions["device"].value)
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
        return outcome, _finish(config, task, outcome, peak_flops, decisions)


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


def finished_summary(config: PretrainConfig) -> Summary | None:
    """The summary of the run of ``config`` if it is finished already, else none.

    A run whose config now asks for another number of steps is not finished. Raises ``ConfigError``
    if it is, but with other settings: they would change nothing.
    """
    out_dir = config.train.out_dir
    summary = read_summary(out_dir) if config.train.resume == "latest" else None
    if summary is None or summary.steps != config.train.num_steps:
        return None
    before = config_files.load(PretrainConfig, out_dir / CONFIG).model_dump(mode="json")
    changed = list(differences("", before, config.model_dump(mode="json")))
    if changed:
        raise ConfigError(
            f"{out_dir} holds a finished run with other settings (then, now): "
            f"{'; '.join(changed)}. To train with these, choose another train.out_dir; to go on "
            "with them, raise train.steps"
        )
    return summary


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
    if (out_dir / CONFIG).exists():
        before = config_files.load(PretrainConfig, out_dir / CONFIG).model_dump(mode="json")
        for line in differences("", before, config.model_dump(mode="json")):
            logger.info("changed since the last time (then, now): %s", line)
    config_files.dump(config, out_dir / CONFIG)


def _finish(
    config: PretrainConfig,
    task: PretrainTask,
    outcome: Outcome,
    peak_flops: float | None,
    decisions: dict[str, Decision],
) -> Summary:
    """Exports the model, then the report, then the summary, which says that all is there."""
    out_dir = config.train.out_dir
    _export(task, out_dir, config.train.init_from if config.lora else None)
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
    atomic.write_text(out_dir / SUMMARY, summary.model_dump_json(indent=1) + "\n")
    return summary


def _export(task: PretrainTask, out_dir: Path, adapted: Path | None = None) -> None:
    """The model directory: written aside, then moved in, so that no file is ever half there.

    ``adapted`` is the model whose adapters were trained: they are written apart from it, since
    readers of a model directory apply an adapter that lies beside the weights, and then merged.
    """
    aside = out_dir / ".export"
    shutil.rmtree(aside, ignore_errors=True)
    tokenizer = task.tokenizer
    try:
        if adapted is not None:
            save_lora(task.model, aside / ADAPTER, str(adapted))
            merge_lora(task.model)
        save_pretrained(
            task.model,
            aside,
            tokenizer.bos_id,
            tokenizer.eos_id,
            tokenizer_sha256=tokenizer.fingerprint(),
        )
        tokenizer.save(aside)
        for path in sorted(path for path in aside.rglob("*") if path.is_file()):
            target = out_dir / path.relative_to(aside)
            target.parent.mkdir(exist_ok=True)
            path.replace(target)
        shutil.rmtree(aside)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise StorageError(
            f"{out_dir}: the model cannot be written ({error}); the last checkpoint is intact. "
            "Free some space and run the same command again"
        ) from error


def summary_lines(summary: Summary, out_dir: Path) -> Sequence[str]:
    """What a person reads at the end of a run."""
    before = number_text(summary.val_bits_per_byte_before, "{:.3f}")
    after = number_text(summary.val_bits_per_byte_after, "{:.3f}")
    lines = [
        f"held-out bits per byte: {before} before, {after} after training on "
        f"{summary.tokens:,} tokens",
        f"loss spikes: {summary.spikes}; steps in which QK-Clip acted: "
        f"{summary.steps_with_clipping}; largest attention logit: {logit_text(summary)}",
        f"speed: {summary.tokens_per_second:,.0f} tokens per second; share of the measured "
        f"matrix-product peak: {number_text(summary.mfu, '{:.1%}')}",
    ]
    lines += [f"sample: {sample.prompt!r} -> {sample.text!r}" for sample in summary.samples]
    lines.append(f"report: {out_dir / 'report.html'}")
    lines.append(f"model:  {out_dir}")
    if (out_dir / ADAPTER).is_dir():
        lines.append(f"adapter: {out_dir / ADAPTER}")
    return lines
