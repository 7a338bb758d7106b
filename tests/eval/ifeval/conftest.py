"""IFEval's prompts, out of the copy beside this file (google-research, Apache-2.0, unchanged)."""

from __future__ import annotations

from pathlib import Path

import pytest
import zstandard

from selenite.agent.sandbox.sandbox import availability
from selenite.errors import EndpointError
from selenite.eval.ifeval.check import WHEELS
from selenite.eval.ifeval.prompts import Prompt, read_prompts
from selenite.eval.wheels import unpacked


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    packed = Path(__file__).parent / "data" / "input_data.jsonl.zst"
    path = tmp_path_factory.mktemp("ifeval") / "input_data.jsonl"
    path.write_bytes(zstandard.ZstdDecompressor().decompress(packed.read_bytes()))
    return path


@pytest.fixture(scope="session")
def prompts(data: Path) -> list[Prompt]:
    return read_prompts(data)


@pytest.fixture(scope="session")
def checkers() -> None:
    """The wheels, and the sandbox."""
    decision = availability()
    if not decision.value:
        pytest.skip(decision.reason)
    try:
        for wheel in WHEELS:
            unpacked(wheel)
    except EndpointError as error:
        pytest.skip(str(error))
