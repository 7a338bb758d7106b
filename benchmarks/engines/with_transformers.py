"""transformers' ``generate``: ``python with_transformers.py MODEL THREADS``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from protocol import answer
from transformers import AutoModelForCausalLM

directory, threads = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(threads)
model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16).eval()
model.generation_config.eos_token_id = None  # completions of exactly the length
model.generation_config.pad_token_id = 0


def write(prompts: Sequence[Sequence[int]], max_tokens: int) -> list[list[int]]:
    assert len({len(prompt) for prompt in prompts}) == 1, "padding would be other work"
    tokens_BT = torch.tensor(prompts)
    with torch.inference_mode():
        written = model.generate(
            tokens_BT,
            attention_mask=torch.ones_like(tokens_BT),
            max_new_tokens=max_tokens,
            do_sample=False,
        )
    return written[:, tokens_BT.shape[1] :].tolist()


answer(write)
