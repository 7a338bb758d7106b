"""The quickstart, from a bare clone to an agent that looks after a house, by the clock.

    python -m experiments.quickstart

Clones this checkout's HEAD into a temporary directory and runs ``make quickstart`` there, package
installation included, then once more: the second call must find all training done, or this fails.
Rows: quickstart.minutes, quickstart.house. Figure: docs/figures/quickstart.png, the curves of
pre-training.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.results import FIGURES, ROOT, Reference, record
from selenite.rl.run_metrics import held_out_rewards
from selenite.train.summary import Summary

TARGET_MINUTES = 15.0
FIGURE = FIGURES / "quickstart.png"


def minutes(directory: Path) -> float:
    """Runs ``make quickstart`` in ``directory``, its output on the terminal."""
    start = time.monotonic()
    subprocess.run(["make", "quickstart"], cwd=directory, check=True)
    return (time.monotonic() - start) / 60


def rerun_range(first: float) -> tuple[float, float]:
    """Where another first call must fall: within 0.3 of this one, and in time if this one was."""
    high = first * 1.3
    return first * 0.7, min(TARGET_MINUTES, high) if first <= TARGET_MINUTES else high


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        clone = Path(temporary) / "selenite"
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        written = [clone / f"runs/{run}/summary.json" for run in ("nano", "nano-sft", "nano-rl")]
        first = minutes(clone)
        finished = [file.stat().st_mtime_ns for file in written]
        second = minutes(clone)
        if [file.stat().st_mtime_ns for file in written] != finished:
            raise RuntimeError("the second make quickstart trained again")
        summary = Summary.model_validate_json(written[0].read_text(encoding="utf-8"))
        curves = (clone / "runs/nano/curves.png").read_bytes()
        taught, acted = held_out_rewards(clone / "runs/nano-rl")["house"]
    before, after = summary.val_bits_per_byte_before, summary.val_bits_per_byte_after
    assert before is not None, "a new run is evaluated first"
    assert after is not None, "and last"
    print(f"first call {first:.1f} min, second call {second:.1f} min")
    low, high = rerun_range(first)
    record(
        "quickstart.minutes",
        "make quickstart from a bare clone, installation included",
        first,
        "min",
        low=low,
        high=high,
        runs=1,
        target=f"<= {TARGET_MINUTES:g}",
        reference=None,
        command="python -m experiments.quickstart",
        note=f"second call {second:.2f} min; {summary.tokens:,} tokens at "
        f"{summary.tokens_per_second:,.0f} a second; held-out bits per byte "
        f"{before:.2f} to {after:.2f}",
    )
    record(
        "quickstart.house",
        "requests about places in the house that training never had, done by the quickstart's last "
        "model",
        acted,
        "share",
        low=max(0.0, acted - 0.2),
        high=min(1.0, acted + 0.2),
        runs=1,
        target=None,
        reference=Reference(name="after fine-tuning alone", value=taught, source="same run"),
        command="python -m experiments.quickstart",
        note="sampled as it acts; held-out tasks of configs/nano-rl.toml",
    )
    # Last: a row is written on a clean tree.
    FIGURE.parent.mkdir(exist_ok=True)
    FIGURE.write_bytes(curves)


if __name__ == "__main__":
    main()
