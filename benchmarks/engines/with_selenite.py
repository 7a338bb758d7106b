"""Our engine, as ``selenite serve`` starts it.

python with_selenite.py MODEL THREADS [QUANTIZATION]
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = sys.argv[2]

from protocol import answer

from selenite.serve.config import ServeConfig
from selenite.serve.engine.engine import Engine
from selenite.serve.engine.request import Request
from selenite.serve.load import load_model
from selenite.types import SamplingParams

fields = {"quantization": sys.argv[3]} if len(sys.argv) > 3 else {}
loaded = load_model(
    ServeConfig(model=Path(sys.argv[1]), dtype="bfloat16", cache_tokens=32_768, **fields)
)
engine = Engine(loaded.model, loaded.engine, model_id=loaded.name)


def write(prompts: Sequence[Sequence[int]], max_tokens: int) -> list[list[int]]:
    params = SamplingParams(temperature=0, max_tokens=max_tokens, ignore_eos=True)
    requests = [Request(str(i), tuple(prompt), params) for i, prompt in enumerate(prompts)]
    engine.generate(requests)
    engine.prefix.clear()  # nothing is found again by the next job
    return [[token.token_id for token in request.completion] for request in requests]


answer(write)
