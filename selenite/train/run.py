"""What a run of either kind begins and ends with: the machine's choices; model, report, summary.

config, machine ─► [ loop ] ─► model directory, report.html, curves.png, summary.json
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from safetensors import SafetensorError

from selenite import atomic
from selenite import config as config_files
from selenite.config import Config
from selenite.errors import ConfigError, StorageError
from selenite.model.accounting import count_parameters
from selenite.model.convert import TEMPLATE
from selenite.model.hf_adapter import save_pretrained
from selenite.model.lora import merge_lora
from selenite.model.lora_files import save_lora
from selenite.ops import allocator
from selenite.optim.build import OptimConfig
from selenite.runtime import (
    Decision,
    apply_threads,
    choose_device,
    choose_dtype,
    describe_machine,
    enable_batch_invariant,
)
from selenite.train.checkpoint import differences
from selenite.train.language_model_task import LanguageModelTask
from selenite.train.loop import Outcome
from selenite.train.report import held_out, logit_text, write_report
from selenite.train.run_config import RunConfig
from selenite.train.summary import (
    SUMMARY,
    Summary,
    number_text,
    read_metrics,
    read_summary,
    summarize,
)

logger = logging.getLogger(__name__)

CONFIG = "config.toml"
ADAPTER = "adapter"


def decide(train: RunConfig) -> dict[str, Decision]:
    """Threads, allocator, device and dtype of the run: what was chosen, and why."""
    if train.batch_invariant:
        enable_batch_invariant()
    decisions = {
        "threads": apply_threads(),
        "allocator": allocator.install(),
        "device": choose_device(train.device),
    }
    decisions["dtype"] = choose_dtype(train.dtype, decisions["device"].value)
    return decisions


def finished_summary(config: Config, train: RunConfig) -> Summary | None:
    """The summary of the run of ``config`` if it is finished already, else none.

    A run whose config now asks for another number of steps is not finished. Raises ``ConfigError``
    if it is, but with other settings: they would change nothing.
    """
    out_dir = train.out_dir
    summary = read_summary(out_dir) if train.resume == "latest" else None
    if summary is None or summary.steps != train.num_steps:
        return None
    changed = list(_changes(config, out_dir))
    if changed:
        raise ConfigError(
            f"{out_dir} holds a finished run with other settings (then, now): "
            f"{'; '.join(changed)}. To train with these, choose another train.out_dir; to go on "
            "with them, raise train.steps"
        )
    return summary


def record_config(config: Config, out_dir: Path) -> None:
    """Leaves the resolved config beside the run; says what differs from the last time."""
    if (out_dir / CONFIG).exists():
        for line in _changes(config, out_dir):
            logger.info("changed since the last time (then, now): %s", line)
    config_files.dump(config, out_dir / CONFIG)


def _changes(config: Config, out_dir: Path) -> Iterator[str]:
    before = config_files.load(type(config), out_dir / CONFIG).model_dump(mode="json")
    return differences("", before, config.model_dump(mode="json"))


def finish(
    task: LanguageModelTask,
    optim: OptimConfig,
    out_dir: Path,
    outcome: Outcome,
    peak_flops: float | None,
    decisions: Mapping[str, Decision],
    adapted: Path | None = None,
) -> Summary:
    """Exports the model, then the report, then the summary, which says that all is there.

    ``adapted`` is the model whose adapters were trained, if that is what was trained.
    """
    count = count_parameters(task.model.config)
    export_model(task, out_dir, adapted)
    rows = read_metrics(out_dir)
    facts = {
        "name": out_dir.name,
        "parameters": count.total,
        "active_parameters": count.active,
        "logit_statistic": optim.qk_clip_statistic,
        "tau": optim.qk_clip_tau,
        "machine": describe_machine(),
        "decisions": {name: f"{d.value} ({d.reason})" for name, d in decisions.items()},
    }
    summary = summarize(rows, outcome, peak_flops, facts)
    write_report(out_dir, summary, rows, (out_dir / CONFIG).read_text(encoding="utf-8"))
    atomic.write_text(out_dir / SUMMARY, summary.model_dump_json(indent=1) + "\n")
    return summary


def export_model(task: LanguageModelTask, out_dir: Path, adapted: Path | None = None) -> None:
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
            if tokenizer.chat_template is not None:
                template = aside / ADAPTER / TEMPLATE
                template.write_text(tokenizer.chat_template, encoding="utf-8")
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
    what, *numbers = held_out(summary)
    before, after = (number_text(number, "{:.3f}") for number in numbers)
    measured = numbers != [None, None]  # reinforcement learning has rewards instead
    lines = [
        f"{what}: {before} before, {after} after training on {summary.tokens:,} tokens"
        if measured
        else f"trained on {summary.tokens:,} tokens",
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
