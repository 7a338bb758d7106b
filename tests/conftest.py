"""Every test runs on one torch thread, since test processes share the cores, and from one seed."""

from __future__ import annotations

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    """A test draws the same numbers alone and in any order."""
    torch.manual_seed(0)
