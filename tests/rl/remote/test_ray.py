"""Engines in real actors of Ray's: as children are, but for the transport."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found() -> dict[str, object]:
    """What the program finds, in a process whose first product comes after the mode's switch."""
    inherited = {name: value for name, value in os.environ.items() if name != "MKL_CBWR"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.fixtures.remote_engines"],
        env={**inherited, "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(result, dict)
    return result


def test_groups_are_the_same_wherever_engines_are(found: dict[str, object]) -> None:
    """Ids, log-probabilities and versions, to the bit."""
    here = found["here"]
    assert found["children"] == here
    assert found["ray"] == here
    assert found["num_tokens"] > 500  # type: ignore[operator]
    assert found["versions"] == [0, 3]
    # Groups are shared out, whole.
    assert found["shared out"] == {"children": [2, 2], "ray": [2, 2]}


def test_an_actor_that_is_killed_begins_anew_with_the_version_that_serves(
    found: dict[str, object],
) -> None:
    assert found["killed"] == {
        "finish_reason": "error",
        "error": "EngineDiedError",
        "deaths": 1,
        "versions": [3],
        "same": True,
    }
    assert found["failed stage"] == {"version": 3, "failures": 1, "same": True}
