"""What came of a finished run, in numbers: ``summary.json``, read by the report and by people.

Made from the run's ``metrics.jsonl``, so a resumed run sums up its whole life. What is null was
not recorded there: a run that began from a checkpoint elsewhere has no first evaluation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from selenite.config import Config
from selenite.errors import StorageError
from selenite.train.loop import METRICS, Outcome

SUMMARY = "summary.json"


class SampleText(Config):
    """A prompt and what the model wrote after it at the end."""

    prompt: str
    text: str


class Summary(Config):
    """Written once, when a run is finished and everything else is on the disk."""

    name: str
    steps: int
    tokens: int
    seconds: float  # in training steps; evaluation, samples and saving not counted
    parameters: int
    active_parameters: int  # that one token uses
    val_loss_before: float | None
    val_loss_after: float | None
    val_bits_per_byte_before: float | None
    val_bits_per_byte_after: float | None
    spikes: int
    steps_with_clipping: int
    peak_max_logit: float | None
    logit_statistic: str  # "exact", or "bound": the log-sum-exp, at most ln(keys) above
    tau: float | None  # QK-Clip's bound; null: off
    tokens_per_second: float  # tokens / seconds
    mfu: float | None  # model FLOPs / (seconds x measured peak); null: no peak was measured
    samples: tuple[SampleText, ...]
    machine: dict[str, str]
    decisions: dict[str, str]  # device, dtype, threads: what was chosen and why


def read_metrics(out_dir: Path) -> list[dict[str, Any]]:
    """The rows of a run's ``metrics.jsonl``, in the order of steps; ``StorageError`` if damaged."""
    path = out_dir / METRICS
    try:
        # Not splitlines(): a sample may hold a line separator that JSON does not escape.
        return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    except (OSError, ValueError) as error:
        raise StorageError(f"{path}: the metrics cannot be read ({error})") from error


def read_summary(out_dir: Path) -> Summary | None:
    """The ``summary.json`` of a run, none if it has not finished; ``StorageError`` if damaged."""
    path = out_dir / SUMMARY
    if not path.exists():
        return None
    try:
        return Summary.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise StorageError(
            f"{path}: not the summary of a run; delete it, and the same command writes it again"
        ) from error


def summarize(
    rows: Sequence[Mapping[str, Any]],
    outcome: Outcome,
    peak_flops: float | None,
    facts: Mapping[str, Any],
) -> Summary:
    """The summary of a finished run. ``facts`` are the fields that the metrics do not tell."""
    first = next((row for row in rows if row["step"] == 0), {})
    last = next((row for row in rows if row["step"] == outcome.step), {})
    totals = outcome.totals
    logits = [row["max_logit"] for row in rows if row.get("max_logit") is not None]
    return Summary(
        steps=outcome.step,
        tokens=int(totals.tokens),
        seconds=totals.seconds,
        val_loss_before=first.get("val_loss"),
        val_loss_after=last.get("val_loss"),
        val_bits_per_byte_before=first.get("val_bits_per_byte"),
        val_bits_per_byte_after=last.get("val_bits_per_byte"),
        spikes=outcome.spikes,
        steps_with_clipping=totals.steps_with_clipping,
        peak_max_logit=max(logits, default=None),
        tokens_per_second=totals.tokens / totals.seconds,
        mfu=totals.flops / (totals.seconds * peak_flops) if peak_flops else None,
        samples=_samples(last),
        **facts,
    )


def _samples(row: Mapping[str, Any]) -> tuple[SampleText, ...]:
    numbers = range(1, sum(name.endswith(".prompt") for name in row) + 1)
    return tuple(
        SampleText(prompt=row[f"sample.{n}.prompt"], text=row[f"sample.{n}.text"]) for n in numbers
    )


def number_text(value: float | None, pattern: str) -> str:
    """A number of the summary for people."""
    return "not recorded" if value is None else pattern.format(value)
