"""vLLM on the CPU: ``python with_vllm.py MODEL THREADS [preloaded]``.

Its engine runs in processes of its own, where it binds threads to cores. With ``preloaded`` their
memory is tcmalloc's and their threads are Intel's, as vLLM's documentation of CPUs advises.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from ctypes.util import find_library
from pathlib import Path

_STARTED = "WITH_VLLM_STARTED"


def _preloaded() -> list[str]:
    found = [find_library("tcmalloc_minimal"), str(Path(sys.prefix) / "lib" / "libiomp5.so")]
    return [name for name in found if name]


def main() -> None:
    directory, threads, *options = sys.argv[1:]
    if _STARTED not in os.environ:
        cores = sorted(os.sched_getaffinity(0))[: int(threads)]
        environment = {
            _STARTED: "1",
            "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)),
            "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB: more than twice what the largest case takes
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
        }
        if options == ["preloaded"]:
            environment["LD_PRELOAD"] = ":".join(_preloaded())
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | environment)

    from protocol import answer
    from vllm import LLM, SamplingParams

    llm = LLM(
        directory,
        dtype="bfloat16",
        skip_tokenizer_init=True,
        enable_prefix_caching=False,
        max_model_len=8192,
        max_num_seqs=64,
        seed=0,
    )

    def write(prompts: Sequence[Sequence[int]], max_tokens: int) -> list[list[int]]:
        params = SamplingParams(
            temperature=0.0, max_tokens=max_tokens, ignore_eos=True, detokenize=False
        )
        inputs = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        results = llm.generate(inputs, params, use_tqdm=False)
        return [list(result.outputs[0].token_ids) for result in results]

    answer(write)


if __name__ == "__main__":  # its processes import this file
    main()
