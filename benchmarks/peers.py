"""Peers, each in a virtual environment of its own under ``.peers/``: their pins conflict with ours.

``make peers`` builds all, ``python -m benchmarks.peers NAME`` builds one. A finished environment
is kept until its requirements change. A benchmark starts its peer's interpreter as a process of its
own and reads JSON from it.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

HOME = Path(__file__).resolve().parents[1] / ".peers"

PEERS: dict[str, tuple[str, ...]] = {
    # The same architecture (DeepseekV3) trained by the library that most people would use.
    "transformers": ("torch==2.13.0", "transformers==5.23.0", "numpy==2.4.6"),
}


def build(name: str) -> None:
    """Makes the environment of ``name`` unless it is there; an interrupted build starts anew."""
    if _is_built(name):
        print(f"{name}: ready")
        return
    print(f"{name}: building {HOME / name}")
    venv.create(HOME / name, with_pip=True, clear=True)
    python = HOME / name / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", *PEERS[name]], check=True)
    _stamp(name).write_text(_requirements(name))


def _requirements(name: str) -> str:
    return "\n".join(PEERS[name]) + "\n"


def _stamp(name: str) -> Path:
    return HOME / name / "requirements.txt"


def _is_built(name: str) -> bool:
    stamp = _stamp(name)
    return stamp.exists() and stamp.read_text() == _requirements(name)


def main(names: list[str]) -> int:
    """Builds the named peers, or all; the exit code is 1 if one failed."""
    unknown = [name for name in names if name not in PEERS]
    if unknown:
        print(f"error: unknown peer {unknown[0]!r}; known: {', '.join(PEERS)}", file=sys.stderr)
        return 2
    failed = 0
    for name in names or PEERS:
        try:
            build(name)
        except subprocess.CalledProcessError as error:
            print(f"error: {name}: pip failed with exit {error.returncode}", file=sys.stderr)
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
