"""What came of a finished run, in numbers: ``summary.json``, read by the report and by people.

Made from the run's ``metrics.jsonl``, so a resumed run sums up its whole life.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from selenite.config import Config
from selenite.errors import StorageError
from selenite.train.loop import METRICS, Outcome

SUMMARY = "summary.json"


class SampleText(Config):
    """A prompt and what the model wrote after it, before the first and after the last step."""

    prompt: str
    before: str
    after: str


class Summary(Config):
    """Written once, when a run is finished and everything else is on the disk."""

    name: str
    steps: int
    tokens: int
    seconds: float  # in training steps; evaluation, samples and saving not counted
    parameters: int
    active_parameters: int  # that one token uses
    val_loss_before: float
    val_loss_after: float
    val_bits_per_byte_before: float
    val_bits_per_byte_after: float
    spikes: int
    steps_with_clipping: int
    peak_max_logit: float
    logit_statistic: str  # "exact", or "bound": the log-sum-exp, at most ln(keys) above
    tau: float | None  # QK-Clip's bound; null: off
    tokens_per_second: float  # tokens / seconds
    mfu: float  # model FLOPs / (seconds x measured peak)
    samples: tuple[SampleText, ...]
    machine: dict[str, str]
    decisions: dict[str, str]  # device, dtype, threads: what was chosen and why


def read_metrics(out_dir: Path) -> list[dict[str, Any]]:
    """The rows of a run's ``metrics.jsonl``, in the order of steps."""
    lines = (out_dir / METRICS).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def summarize(
    rows: Sequence[Mapping[str, Any]],
    outcome: Outcome,
    peak_flops: float,
    facts: Mapping[str, Any],
) -> Summary:
    """The summary of a finished run. ``facts`` are the fields that the metrics do not tell."""
    held_out = [row for row in rows if "val_loss" in row]
    totals = outcome.totals
    return Summary(
        steps=outcome.step,
        tokens=int(totals.tokens),
        seconds=totals.seconds,
        val_loss_before=held_out[0]["val_loss"],
        val_loss_after=held_out[-1]["val_loss"],
        val_bits_per_byte_before=held_out[0]["val_bits_per_byte"],
        val_bits_per_byte_after=held_out[-1]["val_bits_per_byte"],
        spikes=outcome.spikes,
        steps_with_clipping=totals.steps_with_clipping,
        peak_max_logit=max(row["max_logit"] for row in rows if row.get("max_logit") is not None),
        tokens_per_second=totals.tokens / totals.seconds,
        mfu=totals.flops / (totals.seconds * peak_flops),
        samples=_samples(rows),
        **facts,
    )


def _samples(rows: Sequence[Mapping[str, Any]]) -> tuple[SampleText, ...]:
    sampled = [row for row in rows if "sample.1.text" in row]
    if not sampled:
        return ()
    first, last = sampled[0], sampled[-1]
    found: list[SampleText] = []
    while (key := f"sample.{len(found) + 1}") + ".text" in last:
        found.append(
            SampleText(
                prompt=last[f"{key}.prompt"],
                before=first[f"{key}.text"],
                after=last[f"{key}.text"],
            )
        )
    return tuple(found)


def write_atomically(path: Path, text: str) -> None:
    """``path`` has all of ``text`` or is as it was; raises ``StorageError``."""
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise StorageError(f"{path}: cannot be written ({error.strerror})") from error
