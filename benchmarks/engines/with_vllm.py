"""vLLM on the CPU, in this process: ``python with_vllm.py MODEL THREADS``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

directory, threads = sys.argv[1], int(sys.argv[2])
cores = sorted(os.sched_getaffinity(0))[:threads]
os.environ |= {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)),
    "VLLM_CPU_KVCACHE_SPACE": "2",  # GiB
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}

from protocol import answer  # noqa: E402
from vllm import LLM, SamplingParams  # noqa: E402 - reads the environment when it is imported

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
