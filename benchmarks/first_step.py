"""From the command to the end of the first training step of the quickstart's config.

    python -m benchmarks.first_step

Tokenised data is there, nothing else: each run is a new process and a new run directory. Time is
counted until the row of step 1 is in ``metrics.jsonl``; it holds the start of Python and torch,
the measuring of the machine's peak, and the evaluation of the untrained model.
Row: train.first_step_seconds.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.results import ROOT, record

CONFIG = "configs/nano.toml"
_POLL_SECONDS = 0.01
_GIVE_UP_SECONDS = 300


def seconds_to_first_step(run_dir: Path, log: Path) -> float:
    """Starts a run of its own and ends it after its first step."""
    command = [sys.executable, "-m", "selenite", "pretrain", CONFIG, f"train.out_dir={run_dir}"]
    start = time.monotonic()
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
        try:
            while not _has_first_step(run_dir / "metrics.jsonl"):
                if process.poll() is not None or time.monotonic() - start > _GIVE_UP_SECONDS:
                    raise RuntimeError(f"no first step; the run printed:\n{log.read_text()}")
                time.sleep(_POLL_SECONDS)
            return time.monotonic() - start
        finally:
            process.kill()
            process.wait()


def _has_first_step(metrics: Path) -> bool:
    return metrics.exists() and metrics.read_text().count("\n") >= 2  # steps 0 and 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="after one that prepares the data")
    arguments = parser.parse_args()
    seconds = []
    with tempfile.TemporaryDirectory() as temporary:
        for run in range(arguments.runs + 1):
            directory = Path(temporary) / str(run)
            seconds.append(seconds_to_first_step(directory / "run", Path(temporary) / "log"))
            print(f"run {run}: {seconds[-1]:.2f} s", flush=True)
    measured = sorted(seconds[1:])
    record(
        "train.first_step_seconds",
        "Command to the end of the first training step of configs/nano.toml, data tokenised",
        statistics.median(measured),
        "s",
        low=measured[0] * 0.8,
        high=measured[-1] * 1.25,
        runs=len(measured),
        target="<= 10",
        reference=None,
        command="python -m benchmarks.first_step",
        note="peak measurement and evaluation of the untrained model included",
    )


if __name__ == "__main__":
    main()
