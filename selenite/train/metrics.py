"""The names of what is measured in a step, and how it is worded.

The loop writes these to ``metrics.jsonl``; the progress display and the report read them:

    loss, bits_per_byte          of the step's batch      val_loss, val_bits_per_byte   held out
    grad_norm, lr                before clipping; peak    tokens, flops      of the step
    max_logit, clipped_heads     QK-Clip, section 2       seconds            of the step alone
    load_max_over_mean           fullest expert           tokens_per_second, mfu
    nextn_loss, nextn_accuracy   of extra prediction layers: mean over depths, and the share of
                                 their greedy drafts that are right; ``loss`` has the first in it
    spikes                       loss spikes so far       sample.1.prompt, sample.1.text …
"""

from __future__ import annotations

from collections.abc import Mapping

from selenite.log import Metric

_SHORT = (
    # name, label, format
    ("loss", "loss", "{:.3f}"),
    ("bits_per_byte", "bpb", "{:.3f}"),
    ("val_bits_per_byte", "val bpb", "{:.3f}"),
    ("nextn_accuracy", "drafts", "{:.0%}"),
    ("lr", "lr", "{:.1e}"),
    ("grad_norm", "grad", "{:.2f}"),
    ("max_logit", "max logit", "{:.1f}"),
    ("clipped_heads", "clipped", "{:.0f}"),
    ("load_max_over_mean", "load", "{:.2f}"),
    ("tokens_per_second", "tok/s", "{:,.0f}"),
    ("mfu", "MFU", "{:.1%}"),
    ("spikes", "spikes", "{:.0f}"),
)


def rates(
    metrics: Mapping[str, Metric], seconds: float, peak_flops: float | None
) -> dict[str, float]:
    """Speed of a step that took ``seconds``: what its ``tokens`` and ``flops`` come to.

    ``mfu`` is model FLOPs / (seconds x ``peak_flops``), the share of this machine's measured
    matrix-product peak; recomputed activations do not count as model FLOPs.
    """
    found = {"seconds": seconds}
    if seconds > 0:
        if "tokens" in metrics:
            found["tokens_per_second"] = float(metrics["tokens"]) / seconds
        if "flops" in metrics and peak_flops:
            found["mfu"] = float(metrics["flops"]) / (seconds * peak_flops)
    return found


def one_line(metrics: Mapping[str, Metric]) -> str:
    """The metrics that people watch, in a fixed order, those that are there."""
    return "  ".join(
        f"{label} {pattern.format(metrics[name])}"
        for name, label, pattern in _SHORT
        if name in metrics
    )
