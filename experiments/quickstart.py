"""The quickstart, from a bare clone to the text that the model writes, by the clock.

    python -m experiments.quickstart

Clones this checkout's HEAD into a temporary directory and runs ``make quickstart`` there, package
installation included, then once more: the second call must find everything done.
Row: quickstart.minutes.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path

from benchmarks.results import ROOT, record
from selenite.train.summary import Summary


def minutes(directory: Path) -> float:
    """Runs ``make quickstart`` in ``directory``, its output on the terminal."""
    start = time.monotonic()
    subprocess.run(["make", "quickstart"], cwd=directory, check=True)
    return (time.monotonic() - start) / 60


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        clone = Path(temporary) / "selenite"
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        first, second = minutes(clone), minutes(clone)
        summary = Summary.model_validate_json((clone / "runs/nano/summary.json").read_text())
    print(f"first call {first:.1f} min, second call {second:.1f} min")
    record(
        "quickstart.minutes",
        "make quickstart from a bare clone, installation included",
        first,
        "min",
        low=first * 0.5,
        high=15.0 if first <= 15 else first * 1.5,
        runs=1,
        target="<= 15",
        reference=None,
        command="python -m experiments.quickstart",
        note=f"second call {second:.2f} min; {summary.tokens:,} tokens at "
        f"{summary.tokens_per_second:,.0f} a second; held-out bits per byte "
        f"{summary.val_bits_per_byte_before:.2f} to {summary.val_bits_per_byte_after:.2f}",
    )


if __name__ == "__main__":
    main()
