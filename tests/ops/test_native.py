"""Building the kernels: in processes of their own, into folders of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from selenite.ops import native

needs_compiler = pytest.mark.skipif(not native.can_build(), reason=native.availability().reason)
SAYS_WHY = "from selenite.ops import native; native.is_available(); native.is_available()"


def run(arguments: list[str], cache: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache), **variables}
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


def doctor(cache: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return run(["-m", "selenite", "doctor", "--build"], cache, **variables)


@pytest.mark.slow
@needs_compiler
def test_a_second_build_finds_the_first(tmp_path: Path):
    first = doctor(tmp_path)
    assert first.returncode == 0, first.stderr
    (library,) = (tmp_path / "selenite").iterdir()
    written = library.stat().st_mtime_ns
    second = doctor(tmp_path)
    assert second.stdout == first.stdout
    assert library.stat().st_mtime_ns == written


@needs_compiler
@pytest.mark.parametrize("compiler", ["false", "true"])
def test_a_failed_build_leaves_nothing_and_says_what_failed(tmp_path: Path, compiler: str):
    """``false`` fails; ``true`` makes no library, on which the probe fails."""
    built = doctor(tmp_path, CXX=compiler)
    assert built.returncode != 0
    assert built.stderr.startswith("error: kernels cannot be built")
    assert list((tmp_path / "selenite").iterdir()) == []


def test_without_a_compiler_the_reason_is_said_once(tmp_path: Path):
    built = doctor(tmp_path, PATH="")
    assert built.returncode == 0
    assert "no C++ compiler" in built.stdout
    used = run(["-c", SAYS_WHY], tmp_path, PATH="")
    assert used.stderr.count("our C++ kernels are not used: no C++ compiler") == 1


def test_torchs_own_switch_chooses_the_instruction_set(tmp_path: Path):
    code = "from selenite.ops import native; print(native.instruction_set())"
    assert "'avx2'" in run(["-c", code], tmp_path, ATEN_CPU_CAPABILITY="avx2").stdout
    assert "need AVX2" in run(["-c", code], tmp_path, ATEN_CPU_CAPABILITY="default").stdout
