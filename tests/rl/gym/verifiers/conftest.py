"""The interpreter that has ``verifiers``."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from benchmarks import peers

TOYS = Path(__file__).with_name("toys")


@pytest.fixture(scope="session")
def python() -> str:
    """Its path; built where it is not there yet, as ``make peers`` does."""
    try:
        peers.build("verifiers")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"verifiers cannot be installed: pip failed with exit {error.returncode}")
    return str(peers.python_of("verifiers"))


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Environments of ``toys/`` can be imported by other processes."""
    monkeypatch.setenv("PYTHONPATH", f"{TOYS}:{Path.cwd()}")
