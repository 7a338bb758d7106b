"""llama.cpp by its C functions: ``python with_llamacpp.py FILE.gguf THREADS TYPE``.

TYPE is what the file's weights are turned into first, such as BF16 or Q4_0; the result is kept
beside the file.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import llama_cpp as lib
import numpy as np
from protocol import answer

UBATCH = 512  # tokens of a pass
LONGEST, SEQUENCES = 8192, 33


def quantised(source: Path, type_name: str) -> Path:
    """The file with weights of another type."""
    target = source.with_name(f"{source.stem}.to-{type_name}.gguf")
    if not target.exists():
        params = lib.llama_model_quantize_default_params()
        params.ftype = getattr(lib, f"LLAMA_FTYPE_MOSTLY_{type_name}")
        params.allow_requantize = True
        made = target.with_suffix(".part")
        failed = lib.llama_model_quantize(
            str(source).encode(), str(made).encode(), ctypes.byref(params)
        )
        assert not failed, failed
        os.replace(made, target)
    return target


path, threads, type_name = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
lib.llama_backend_init()
model = lib.llama_model_load_from_file(
    str(quantised(path, type_name)).encode(), lib.llama_model_default_params()
)
assert model, path
params = lib.llama_context_default_params()
params.n_ctx = 2 * LONGEST
params.n_batch = params.n_ubatch = UBATCH
params.n_seq_max = SEQUENCES
params.n_threads = params.n_threads_batch = threads
params.kv_unified = True
params.no_perf = True
context = lib.llama_init_from_model(model, params)
assert context, "no context"
vocab_size = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
batch = lib.llama_batch_init(UBATCH, 0, 1)


def run(rows: Sequence[tuple[int, int, int, bool]]) -> list[int]:
    """Computes rows of (token, position, sequence, whether its next token is wanted); those."""
    for i, (token, position, sequence, is_wanted) in enumerate(rows):
        batch.token[i], batch.pos[i] = token, position
        batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
        batch.logits[i] = is_wanted
    batch.n_tokens = len(rows)
    failed = lib.llama_decode(context, batch)
    assert not failed, failed
    return [
        int(np.ctypeslib.as_array(lib.llama_get_logits_ith(context, i), (vocab_size,)).argmax())
        for i, row in enumerate(rows)
        if row[3]
    ]


def write(prompts: Sequence[Sequence[int]], max_tokens: int) -> list[list[int]]:
    lib.llama_memory_clear(lib.llama_get_memory(context), False)
    rows = [
        (token, position, sequence, position == len(prompt) - 1)
        for sequence, prompt in enumerate(prompts)
        for position, token in enumerate(prompt)
    ]
    first = [
        token
        for start in range(0, len(rows), UBATCH)
        for token in run(rows[start : start + UBATCH])
    ]
    written = [[token] for token in first]
    for step in range(max_tokens - 1):
        ends = [
            (own[-1], len(p) + step, i, True)
            for i, (p, own) in enumerate(zip(prompts, written, strict=True))
        ]
        for own, token in zip(written, run(ends), strict=True):
            own.append(token)
    return written


answer(write)
