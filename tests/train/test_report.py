"""The report: valid, self-contained, escaped, in the page's colours; the summary behind it."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from selenite.train import curves
from selenite.train.loop import Outcome, Status, Totals
from selenite.train.metrics import one_line, rates
from selenite.train.report import write_report
from selenite.train.summary import Summary, summarize

ROWS = [
    {"step": 0, "val_loss": 6.0, "val_bits_per_byte": 3.0},
    {"step": 1, "loss": 5.0, "bits_per_byte": 2.5, "lr": 1e-3, "grad_norm": 1.0, "max_logit": 7.0,
     "clipped_heads": 0, "load_max_over_mean": 1.5, "tokens_per_second": 100.0},
    {"step": 2, "loss": 4.0, "bits_per_byte": 2.0, "lr": 1e-4, "grad_norm": 0.5, "max_logit": 5.0,
     "clipped_heads": 2, "load_max_over_mean": 1.2, "tokens_per_second": 110.0, "val_loss": 4.5,
     "val_bits_per_byte": 2.25, "sample.1.prompt": "<prompt", "sample.1.text": "a & b"},
]  # fmt: skip


def _summary() -> Summary:
    totals = Totals(tokens=2000, flops=4e9, seconds=10.0, steps_with_clipping=1)
    outcome = Outcome(Status.FINISHED, 2, totals, 3, None, 0)
    facts = {
        "name": "run <1>", "parameters": 1_500_000, "active_parameters": 900, "tau": 100.0,
        "logit_statistic": "bound", "machine": {"cpu": "x"}, "decisions": {"dtype": "float32"},
    }  # fmt: skip
    return summarize(ROWS, outcome, 1e9, facts)


def test_summary_from_metrics() -> None:
    summary = _summary()
    assert (summary.val_loss_before, summary.val_loss_after) == (6.0, 4.5)
    assert summary.peak_max_logit == 7.0
    assert summary.tokens_per_second == pytest.approx(200)
    assert summary.mfu == pytest.approx(0.4)
    (sample,) = summary.samples
    assert (sample.prompt, sample.text) == ("<prompt", "a & b")


def test_report_is_one_page_without_outside_parts(tmp_path: Path) -> None:
    page = write_report(tmp_path, _summary(), ROWS, "[train]\nout_dir = '<x>'\n").read_text()
    assert not re.search(r"""(src|href)\s*=\s*["']http|url\(["']?http|@import|<script""", page)
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(drawings) == 8
    for drawing in drawings:
        ElementTree.fromstring(drawing)
        assert curves.INK not in drawing
        assert curves.GRID not in drawing
        assert "currentColor" in drawing
    assert "prefers-color-scheme: dark" in page
    assert "run &lt;1&gt;" in page
    assert "&lt;prompt" in page
    assert "a &amp; b" in page
    assert "<prompt" not in page
    for number in ("3.000", "2.250", "1.5M", "40.0%"):
        assert number in page
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_dense_run_has_no_expert_panel() -> None:
    rows = [{"step": 1, "loss": 1.0, "lr": 1.0}]
    assert [panel.train for panel in curves.panels_of(rows)] == ["loss", "lr"]


def test_rates_and_their_words() -> None:
    found = rates({"tokens": 1000.0, "flops": 6e9}, 2.0, 1e10)
    assert found == {"seconds": 2.0, "tokens_per_second": 500.0, "mfu": pytest.approx(0.3)}
    assert rates({"tokens": 1000.0}, 0.0, None) == {"seconds": 0.0}
    assert one_line({"loss": 1.23456, "mfu": 0.3, "other": 1}) == "loss 1.235  MFU 30.0%"


def test_a_run_that_began_elsewhere_says_what_was_not_recorded() -> None:
    outcome = Outcome(Status.FINISHED, 2, Totals(tokens=2000, seconds=10.0), 0, None, 0)
    facts = _summary().model_dump(include={
        "name", "parameters", "active_parameters", "tau", "logit_statistic", "machine", "decisions"
    })  # fmt: skip
    late = [{"step": 1, "val_loss": 5.5, "val_bits_per_byte": 2.9, "loss": 5.0}, ROWS[2]]
    summary = summarize(late, outcome, None, facts)
    assert (summary.val_loss_before, summary.val_loss_after, summary.mfu) == (None, 4.5, None)
