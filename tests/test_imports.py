"""Who imports whom: the contracts of ``pyproject.toml``, and what must start without torch."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import selenite
import selenite.chat

ROOT = Path(__file__).resolve().parents[1]
GROUND_FLOOR = ["errors", "types", "clock", "atomic", "config", "log"]
CHAT = [f"chat.{module.name}" for module in pkgutil.iter_modules(selenite.chat.__path__)]


def modules_after(code: str) -> set[str]:
    """Names of top-level packages that a new interpreter has imported after ``code``."""
    code += "\nimport sys; print('\\n' + '\\n'.join({m.partition('.')[0] for m in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    return set(done.stdout.split())


def test_the_import_contracts_hold() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "code",
    [
        "import " + ", ".join(f"selenite.{name}" for name in [*GROUND_FLOOR, *CHAT]),
        "import selenite",
        "from selenite.cli import main\n"
        "try: main.main(['--help'])\n"
        "except SystemExit as left: assert left.code == 0",
    ],
    ids=["ground floor and chat", "selenite", "selenite --help"],
)
def test_nothing_heavy_is_imported(code: str) -> None:
    imported = modules_after(code)
    assert "selenite" in imported
    assert imported.isdisjoint({"torch", "transformers", "tensorboard", "pyarrow", "matplotlib"})


def test_the_check_sees_torch() -> None:
    assert "torch" in modules_after("import selenite.ops.linear")
