"""Mixtures: shares near the weights, and the same back end for an item always."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from collections import Counter

import pytest

from selenite.agent.models.mixture import Mixture
from selenite.errors import ConfigError

PARTS = [(3.0, "large"), (1.0, "small"), (1.0, "code")]
COUNT = 4000


def test_shares_are_near_the_weights() -> None:
    mixture = Mixture(PARTS, seed=7, role="user")
    counts = Counter(mixture.of(item) for item in range(COUNT))
    for weight, name in PARTS:
        share = weight / 5
        deviation = math.sqrt(COUNT * share * (1 - share))
        assert abs(counts[name] - COUNT * share) < 4 * deviation


def test_an_item_has_the_same_back_end_always() -> None:
    mixture = Mixture(PARTS, seed=7, role="user")
    chosen = [mixture.of(item) for item in range(200)]
    items = list(range(200))
    random.Random(0).shuffle(items)
    again = Mixture([(30.0, "large"), (10.0, "small"), (10.0, "code")], seed=7, role="user")
    assert {item: again.of(item) for item in items} == dict(enumerate(chosen))
    code = (
        "from selenite.agent.models.mixture import Mixture\n"
        f"mixture = Mixture({PARTS}, seed=7, role='user')\n"
        "print(*[mixture.of(item) for item in range(200)])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == chosen


def test_seeds_and_roles_choose_apart() -> None:
    choices = {
        tuple(Mixture(PARTS, seed, role).of(item) for item in range(100))
        for seed in range(3)
        for role in ("user", "judge")
    }
    assert len(choices) == 6


def test_back_ends_may_be_anything() -> None:
    only = object()
    assert Mixture([(0.1, only)], seed=0, role="user").of(10**12) is only


@pytest.mark.parametrize("weights", [[], [0.0], [1.0, -1.0], [float("nan")], [float("inf")]])
def test_what_are_no_weights(weights: list[float]) -> None:
    with pytest.raises(ConfigError, match="must be positive"):
        Mixture([(weight, "x") for weight in weights], seed=0, role="user")
