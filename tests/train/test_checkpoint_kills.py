"""A short form of the campaign in ``experiments.checkpoint_kills.py``: three kills."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.checkpoint_kills import campaign


@pytest.mark.slow
def test_three_kills_while_saving_leave_the_run_as_it_was(tmp_path: Path) -> None:
    report = campaign(3, tmp_path)
    assert report.failures == []
    assert report.kills == 3
