"""``selenite doctor`` in this process: the machine, and a config that fits or does not."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from selenite import runtime
from selenite.cli import doctor
from selenite.cli.main import main
from selenite.errors import ConfigError, OutOfMemoryError

TINY = Path(__file__).resolve().parents[2] / "configs" / "tiny.toml"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small products and reads: the numbers that come out are not what is tested."""
    monkeypatch.setattr(runtime, "PEAK_SHAPES", ((256, 256, 256),))
    monkeypatch.setattr(runtime, "BANDWIDTH_BYTES", 2**20)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exit_:
        main(["doctor", *arguments])
    captured = capsys.readouterr()
    assert isinstance(exit_.value.code, int)
    return exit_.value.code, captured.out, captured.err


@pytest.mark.usefixtures("quick")
def test_the_machine_and_a_config_that_fits(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, str(TINY), "--json")
    assert code == 0, err
    report = {title: {row["name"]: row for row in rows} for title, rows in json.loads(out).items()}
    machine = report["machine"]
    assert machine["dtype"]["value"] == runtime.choose_dtype().value
    assert machine["cores"]["value"] == str(len(os.sched_getaffinity(0)))
    assert machine["batch-invariant mode"]["value"] == (
        "available" if torch.backends.mkl.is_available() else "not available"
    )
    assert all(machine[name]["reason"] for name in ("device", "dtype", "threads"))
    assert report["extras"]["psutil"]["value"] == "installed"
    assert report["run"]["steps"]["value"] == "20"
    assert report["memory"]["verdict"]["value"] == "fits"


@pytest.mark.usefixtures("quick")
def test_a_config_that_does_not_fit_exits_with_the_code_of_out_of_memory(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, _ = run(capsys, str(TINY), "model.num_layers=2", "model.hidden_size=100_000_000")
    assert code == OutOfMemoryError.exit_code
    assert "does not fit" in out
    assert "train.micro_batch_tokens=128" in out


def test_measuring_needs_a_config(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "--measure")
    assert code == ConfigError.exit_code
    assert err.startswith("error: --measure")


def test_a_missing_package_is_shown_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_EXTRAS", {"no_such_package": "train"})
    assert doctor._extras() == [("no_such_package", "missing", "pip install 'selenite[train]'")]
