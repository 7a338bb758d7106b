"""The plan of an engine: its dials, and that it covers what a process really takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from selenite.errors import OutOfMemoryError
from selenite.model.accounting import cache_bytes_per_token, page_sum_bytes
from selenite.model.config import preset
from selenite.runtime import Available
from selenite.serve.engine.plan import EnginePlan, plan_engine

PLENTY = Available(2**40, "a test")


def plan(available: Available = PLENTY, name: str = "nano", **sizes: Any) -> EnginePlan:
    chosen = {"max_step_tokens": 512, "max_running": 8, "page_size": 16} | sizes
    return plan_engine(preset(name), 4, "expanded", available, **chosen)


def test_the_cache_is_what_can_be_used_or_what_there_is_room_for():
    roomy = plan()
    assert roomy.cache_tokens == 8 * 2048
    a_token = cache_bytes_per_token(preset("nano"), "expanded", 4)
    a_token += page_sum_bytes(preset("nano"), "expanded") // 16
    a_token += 4 * 6 * preset("nano").num_heads  # biases of a slot, in six layers
    assert roomy.cache == roomy.cache_tokens * a_token
    fixed = roomy.weights + roomy.step
    tight = plan(Available(fixed + roomy.cache, "a test"))
    assert 0.45 * roomy.cache_tokens < tight.cache_tokens <= 0.5 * roomy.cache_tokens + 16
    assert plan(cache_tokens=1000).cache_tokens == 1008  # whole pages
    latent = plan_engine(
        preset("nano"), 4, "latent", PLENTY, max_step_tokens=512, max_running=8, page_size=16
    )
    assert latent.cache < roomy.cache
    assert plan(beside=2**28).total == roomy.total + 2**28


def test_what_does_not_fit_is_refused_with_the_dial():
    roomy = plan()
    with pytest.raises(OutOfMemoryError, match=r"a test\); lower --kv-cache-tokens to \d+ or less"):
        plan(Available(roomy.total - 2**20, "a test"), cache_tokens=roomy.cache_tokens)
    with pytest.raises(OutOfMemoryError, match="lower --max-num-batched-tokens"):
        plan(Available(roomy.weights + roomy.loading, "a test"), max_step_tokens=65_536)
    with pytest.raises(OutOfMemoryError, match="take a smaller model"):
        plan(Available(roomy.weights, "a test"))
    # The number that it names does fit.
    limit = Available(roomy.total - 2**20, "a test")
    with pytest.raises(OutOfMemoryError) as refused:
        plan(limit, cache_tokens=roomy.cache_tokens)
    fit = int(str(refused.value).partition("tokens to ")[2].split()[0])
    assert plan(limit, cache_tokens=fit - 16).total <= limit.num_bytes


PROGRAM = """
import random, sys
import psutil, torch
torch.set_num_threads(1)
from selenite.model.config import preset
from selenite.model.init import init_weights
from selenite.model.transformer import Transformer
from selenite.serve.engine.engine import Engine, EngineConfig
from selenite.serve.engine.request import Request
from selenite.types import SamplingParams

def peak():
    line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024

config = preset("nano")
toy = Engine(init_weights(Transformer(preset("nano", num_layers=2, vocab_size=512)), 0),
             EngineConfig(64))
toy.generate([Request("", (1, 2, 3), SamplingParams(max_tokens=4))])
before = psutil.Process().memory_info().rss
engine = Engine(init_weights(Transformer(config), 0), EngineConfig(1024, 16, 512, 8))
requests = [Request(str(i), tuple(random.Random(i).choices(range(4096), k=2000)),
                    SamplingParams(max_tokens=40, seed=i)) for i in range(8)]
engine.generate(requests)
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_a_process_takes_no_more_than_its_plan():
    """Eight prompts of nearly full length. The plan may be above, by no more than half."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    measured = int(done.stdout)
    planned = plan(cache_tokens=1024 * 16)
    assert measured <= 1.1 * planned.total
    assert planned.total <= 1.5 * measured
