"""Our own kernels in C++ (``ops/csrc``): built once for this machine, called through a plain C ABI.

``selenite doctor --build`` (part of ``make install``) compiles the sources for the best instruction
set that the processor reports, tries the result in a process of its own, and only then gives it
its name, so that an interrupted build leaves nothing behind. The name holds a hash of all that went
into it: other sources, flags or another compiler make another file.

Every kernel that computes has a path in plain torch beside it, which serves where there is no
compiler; but int8 products have none, and are refused there.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selenite import log
from selenite.errors import UnsupportedError
from selenite.runtime import is_batch_invariant
from selenite.types import Decision

logger = logging.getLogger(__name__)

_SOURCES = Path(__file__).parent / "csrc"
# Instruction set -> what the compiler is told. -march=native names instructions that virtual
# machines report and do not have.
_FLAGS = {
    "avx512_bf16": (
        *("-mavx2", "-mfma", "-mf16c", "-mbmi2", "-mprefer-vector-width=512"),
        *("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vbmi"),
        "-mavx512bf16",
    ),
    "avx2": ("-mavx2", "-mfma", "-mf16c", "-mbmi2"),
}
_COMMON = (
    "-O3",
    "-std=c++17",
    "-shared",
    "-fPIC",
    "-fopenmp",
    "-fno-math-errno",
    "-fno-trapping-math",  # else gcc makes branches of selects, which avx2 cannot vectorise
)
_PROBE = "import ctypes, sys; sys.exit(ctypes.CDLL(sys.argv[1]).selenite_probe() != 42)"
_ARGUMENTS = {"p": ctypes.c_void_p, "i": ctypes.c_int64, "f": ctypes.c_float}
_local = threading.local()  # its ``hears``: see heard_by
_LETTERS: dict[type, str] = {int: "i", float: "f"}  # other values are passed by address


@cache
def instruction_set() -> Decision:
    """Which of our kernels' instruction sets this process uses; an empty value where none.

    Obeys ``ATEN_CPU_CAPABILITY``, as torch's own kernels do.
    """
    capability = torch.backends.cpu.get_cpu_capability()
    if capability == "AVX512" and torch.cpu._is_avx512_bf16_supported():
        return Decision("avx512_bf16", "the processor has it")
    if capability in ("AVX2", "AVX512"):
        return Decision("avx2", f"torch reports {capability}, without avx512_bf16")
    return Decision("", f"torch reports {capability}: our kernels need AVX2")


@cache
def availability() -> Decision:
    """The built library that this process uses, or an empty value; and why."""
    chosen = instruction_set()
    if not chosen.value:
        return chosen
    compiler = _compiler()
    if compiler is None:
        return Decision("", "no C++ compiler (g++, c++, clang++ or CXX) is installed")
    path = _path(compiler, chosen.value)
    if not path.exists():
        return Decision("", "not built: run selenite doctor --build")
    return Decision(str(path), f"built for {chosen.value}")


def can_build() -> bool:
    """Whether there is an instruction set for kernels, and a compiler."""
    return bool(instruction_set().value) and _compiler() is not None


def build() -> Path:
    """Compiles the kernels for this machine unless that is done, and returns the library.

    Raises ``UnsupportedError`` where there is no compiler, and where compiler or probe fail.
    """
    chosen = instruction_set()
    if not chosen.value:
        raise UnsupportedError(f"kernels cannot be built: {chosen.reason}")
    compiler = _compiler()
    if compiler is None:
        raise UnsupportedError(
            "kernels cannot be built: no C++ compiler is installed; "
            "install g++, or name one in the environment variable CXX"
        )
    path = _path(compiler, chosen.value)
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="build-") as folder:
        made = Path(folder) / "kernels.so"
        _run([*_command(compiler, chosen.value), "-o", str(made)], "the compiler")
        _run([sys.executable, "-c", _PROBE, str(made)], "the probe of the built kernels")
        os.replace(made, path)
    for cached in (availability, is_available, function, _library):
        cached.cache_clear()
    return path


@cache
def is_available() -> bool:
    """Whether kernels can be called here; where not, it is said once, with the reason."""
    found = availability()
    if not found.value:
        log.once(logger, f"our C++ kernels are not used: {found.reason}", logging.WARNING)
    return bool(found.value)


@cache
def function(name: str, arguments: str) -> Callable[..., None]:
    """The kernel called ``name``; only where kernels are available.

    Args:
        name: of a function that ``csrc`` exports.
        arguments: a letter each: ``p`` a pointer, ``i`` an int64, ``f`` a float32.
    """
    kernel = getattr(_library(), name)
    kernel.argtypes = [_ARGUMENTS[letter] for letter in arguments]
    kernel.restype = None
    return kernel


def integers(values: Iterable[int]) -> ctypes.Array[ctypes.c_int64]:
    """Values for a ``p`` argument that a kernel reads as int64."""
    listed = list(values)
    return (ctypes.c_int64 * len(listed))(*listed)


def serves(x: Tensor, dtypes: tuple[torch.dtype, ...] = (torch.bfloat16,)) -> bool:
    """Whether our kernels compute on tensors like ``x``: bfloat16 (or another of ``dtypes``) on the
    CPU, outside batch-invariant mode. Also without values (``meta``), so that a memory plan
    allocates what a step would; ``call`` then does nothing."""
    return (
        x.dtype in dtypes
        and x.device.type in ("cpu", "meta")
        and not is_batch_invariant()
        and is_available()
    )


def serves_inference(x: Tensor) -> bool:
    """``serves``, and float32 where no gradient is asked for: those kernels go forward alone."""
    return serves(x) or (not torch.is_grad_enabled() and serves(x, (torch.float32,)))


def of_dtype(name: str, x: Tensor) -> str:
    """The name of the kernel for values like ``x``."""
    return name if x.dtype == torch.bfloat16 else f"{name}_float"


def call(name: str, *arguments: Tensor | ctypes.Array | int | float | None) -> None:
    """Runs a kernel on torch's number of threads, which is its last argument.

    Tensors are passed by address, None as a null pointer: the caller vouches for shape, dtype and
    strides.
    """
    hears = getattr(_local, "hears", None)
    if hears is not None:
        hears(name, (*arguments, torch.get_num_threads()))
    letters = ""
    values: list[ctypes.Array | int | float | None] = []
    for argument in arguments:
        if isinstance(argument, Tensor):
            if argument.is_meta:
                return
            letters += "p"
            values.append(argument.data_ptr())
        else:
            letters += _LETTERS.get(type(argument), "p")
            values.append(argument)
    function(name, letters + "i")(*values, torch.get_num_threads())


@contextmanager
def heard_by(hears: Callable[[str, tuple[Any, ...]], None]) -> Iterator[None]:
    """Tells ``hears`` of every call that this thread makes in the block: the kernel's name and all
    of its arguments."""
    assert getattr(_local, "hears", None) is None, "calls are heard by another already"
    _local.hears = hears
    try:
        yield
    finally:
        _local.hears = None


def address(name: str) -> int:
    """Of a function that ``csrc`` exports."""
    found = ctypes.cast(getattr(_library(), name), ctypes.c_void_p).value
    assert found is not None
    return found


@cache
def _library() -> ctypes.CDLL:
    return ctypes.CDLL(availability().value)


def _compiler() -> str | None:
    named = os.environ.get("CXX")
    return named or next(filter(shutil.which, ("g++", "c++", "clang++")), None)


@cache
def _path(compiler: str, isa: str) -> Path:
    cache_home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    made_of = hashlib.sha256(repr((_command(compiler, isa), torch.__version__)).encode())
    for source in sorted(_SOURCES.iterdir()):
        made_of.update(source.read_bytes())
    made_of.update(subprocess.run([compiler, "--version"], capture_output=True).stdout)
    return Path(cache_home) / "selenite" / f"kernels-{isa}-{made_of.hexdigest()[:16]}.so"


def _command(compiler: str, isa: str) -> list[str]:
    """OpenMP is torch's own: a second copy would start a second pool of threads."""
    home = Path(torch.__file__).parent
    openmp = sorted(home.glob("lib/libgomp*")) or sorted(home.parent.glob("torch.libs/libgomp*"))
    # For allocator.cpp alone.
    c10 = (
        *("-isystem", str(home / "include")),
        f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}",
        *(f"-L{home / 'lib'}", f"-Wl,-rpath,{home / 'lib'}", "-lc10"),
    )
    sources = map(str, sorted(_SOURCES.glob("*.cpp")))
    return [compiler, *_COMMON, *_FLAGS[isa], *sources, *map(str, openmp[:1]), *c10]


def _run(command: list[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        last = "\n".join((done.stderr or done.stdout).strip().splitlines()[-20:])
        raise UnsupportedError(
            f"kernels cannot be built: {what} failed ({done.returncode}):\n{last}"
        )
