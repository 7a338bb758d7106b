"""Runs a config's training step on random tokens in a process of its own and reports its peak.

``python -m selenite.train.memory_measure CONFIG.toml`` prints one JSON line. The kernel's own
high-water mark of resident memory (``VmHWM``) is read, so nothing between two looks is missed and
nothing of the parent process is counted. Read by ``selenite doctor --measure``.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from selenite import config as config_files
from selenite.errors import OutOfMemoryError, UnsupportedError
from selenite.train.pretrain_config import PretrainConfig

STEPS = 2
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class MeasuredMemory:
    """What the process of a few training steps used, in bytes."""

    process: int  # after a toy step: Python, torch and our modules
    peak: int  # largest resident size, the process included


def measure_memory(config: PretrainConfig) -> MeasuredMemory:
    """Runs ``STEPS`` steps of ``config`` on random tokens in a new process.

    Raises ``OutOfMemoryError`` when the steps do not fit, and ``UnsupportedError`` where the
    operating system keeps no high-water mark, or the process fails otherwise.
    """
    if not _STATUS.exists():
        raise UnsupportedError("--measure reads VmHWM of /proc/self/status, which only Linux has")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.toml"
        config_files.dump(config, path)
        command = [sys.executable, "-m", "selenite.train.memory_measure", str(path)]
        ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode in (-9, OutOfMemoryError.exit_code):
        raise OutOfMemoryError(
            f"memory ran out while {STEPS} steps were measured (exit code {ran.returncode}); "
            "the plan says which settings lower it: selenite doctor without --measure"
        )
    if ran.returncode:
        raise UnsupportedError(f"the measured steps failed:\n{ran.stderr.strip()}")
    return MeasuredMemory(**json.loads(ran.stdout))


def _high_water_mark() -> int:
    """The most bytes that were ever resident in this process."""
    found = re.search(r"^VmHWM:\s+(\d+) kB", _STATUS.read_text(encoding="utf-8"), re.MULTILINE)
    assert found, f"no VmHWM in {_STATUS}"
    return int(found[1]) * 1024


def _run_steps(path: Path) -> MeasuredMemory:
    from selenite import runtime
    from selenite.model.init import init_weights
    from selenite.model.lora import add_lora
    from selenite.model.transformer import Transformer
    from selenite.ops import allocator
    from selenite.train.memory import process_bytes, warm_up
    from selenite.train.random_task import random_task
    from selenite.train.step import train_step

    config = config_files.load(PretrainConfig, path)
    if config.train.batch_invariant:
        runtime.enable_batch_invariant()
    runtime.apply_threads()
    allocator.install()
    device = runtime.choose_device(config.train.device).value
    dtype = runtime.torch_dtype(runtime.choose_dtype(config.train.dtype, device).value)
    warm_up(dtype)
    process = process_bytes()
    model = init_weights(Transformer(config.model, dtype), config.train.seed)
    if config.lora is not None:
        add_lora(model, config.lora, config.train.seed)
    model.to(device)
    task = random_task(config, model)
    for step in range(STEPS):
        train_step(task, step)
    task.close()
    return MeasuredMemory(process, _high_water_mark())


def main() -> None:
    """The measured process; its last act is to print what it used."""
    from selenite.runtime import is_out_of_memory

    try:
        measured = _run_steps(Path(sys.argv[1]))
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        sys.exit(OutOfMemoryError.exit_code)
    print(json.dumps(asdict(measured)))


if __name__ == "__main__":
    main()
