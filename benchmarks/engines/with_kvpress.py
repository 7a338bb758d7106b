"""kvpress' smaller caches and Quest's pages in transformers: ``python with_kvpress.py ASKED TOLD``.

ASKED is a JSON file of ``benchmarks/longcontext_peers.py``: a model, prompts with the texts that
are told after each, presses, and shares of the prompt. TOLD gets what the model makes of each told
token. A prompt is computed once; each press then compresses the same keys and values, layer by
layer, with the layer's own inputs, as its hook does in the prompt's pass.
Presses that look at a whole prompt's attention (ObservedAttentionPress) take heads times tokens
squared in each layer and are left out.

Quest (arXiv 2406.10774) chooses pages of 16 for each query head by the largest product that any key
between a page's least and greatest channel values could have, from the third layer on; a query's
own page is always read.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from kvpress import (
    ExpectedAttentionPress,
    KeyDiffPress,
    KnormPress,
    PyramidKVPress,
    SnapKVPress,
    StreamingLLMPress,
    TOVAPress,
)
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, DynamicCache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils.logging import disable_progress_bar

PRESSES = {
    "kvpress ExpectedAttention": ExpectedAttentionPress,
    "kvpress KeyDiff": KeyDiffPress,
    "kvpress Knorm": KnormPress,
    "kvpress PyramidKV": PyramidKVPress,
    "kvpress SnapKV": SnapKVPress,
    "kvpress StreamingLLM": StreamingLLMPress,
    "kvpress TOVA": TOVAPress,
}
QUEST, FULL = "Quest", "full attention (transformers)"
PAGE, WHOLE_LAYERS = 16, 2
_budget: int | None = None  # of tokens that Quest reads; None: all


def attention(
    module: nn.Module,
    q_1NQH: Tensor,
    k_1MSH: Tensor,
    v_1MSH: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal for caches whose layers have different lengths; the last rows of keys are the
    queries' own. Registered with transformers, whose own mask is that of the first layer."""
    Q, S = q_1NQH.shape[2], k_1MSH.shape[2]
    seen_QS = torch.ones(Q, S, dtype=torch.bool).tril(S - Q)
    is_sparse = _budget is not None and module.layer_idx >= WHOLE_LAYERS and Q < S
    mask = seen_QS & quest_NQS(q_1NQH, k_1MSH) if is_sparse else None if Q == S else seen_QS
    out = F.scaled_dot_product_attention(
        q_1NQH, k_1MSH, v_1MSH, mask, is_causal=mask is None, scale=scaling, enable_gqa=True
    )
    return out.transpose(1, 2), None


def quest_NQS(q_1NQH: Tensor, k_1MSH: Tensor) -> Tensor:
    """Which tokens each query of each head reads."""
    (_, N, Q, _), (_, M, S, H) = q_1NQH.shape, k_1MSH.shape
    pages = -(-S // PAGE)
    whole = S // PAGE  # only these have bounds that do not change
    k_MPXH = k_1MSH[0, :, : whole * PAGE].view(M, whole, PAGE, H)
    low_NPH, high_NPH = (
        bound.repeat_interleave(N // M, 0) for bound in (k_MPXH.amin(2), k_MPXH.amax(2))
    )
    q_NQH = q_1NQH[0]
    # Of the bounds the one that the query's sign asks for.
    score_NQP = q_NQH.clamp(min=0) @ high_NPH.mT + q_NQH.clamp(max=0) @ low_NPH.mT
    score_NQP = F.pad(score_NQP, (0, pages - whole), value=-torch.inf)
    own_Q = torch.arange(S - Q, S) // PAGE
    page_P = torch.arange(pages)
    score_NQP.masked_fill_((page_P > own_Q[:, None]), -torch.inf)
    score_NQP.masked_fill_((page_P == own_Q[:, None]), torch.inf)
    count = min(pages, max(1, _budget // PAGE))
    chosen_NQP = torch.zeros_like(score_NQP, dtype=torch.bool)
    chosen_NQP.scatter_(2, score_NQP.topk(count).indices, True)
    return chosen_NQP.repeat_interleave(PAGE, 2)[..., :S]


class Prompt:
    """A computed prompt: keys and values, and what each layer's attention was given."""

    def __init__(self, model: nn.Module, tokens: list[int]) -> None:
        self.length = len(tokens)
        self.inputs: list[dict[str, Any]] = []
        hooks = [
            layer.self_attn.register_forward_pre_hook(
                lambda _, __, given: self.inputs.append(given), with_kwargs=True
            )
            for layer in model.model.layers
        ]
        self.cache = DynamicCache()
        model.model(torch.tensor([tokens]), past_key_values=self.cache)
        for hook in hooks:
            hook.remove()

    def compressed(self, model: nn.Module, press: Any) -> DynamicCache:
        """The cache that the press leaves; without one, a copy."""
        cache = DynamicCache()
        if press is not None:
            press.post_init_from_model(model)
        for number, (layer, given) in enumerate(zip(model.model.layers, self.inputs, strict=True)):
            keys, values = self.cache.layers[number].keys, self.cache.layers[number].values
            if press is not None:
                layer.self_attn.rotary_emb = model.model.rotary_emb
                keys, values = press.compress(
                    *(layer.self_attn, given["hidden_states"], keys, values, None, given)
                )
            cache.update(keys.clone(), values.clone(), number)
        return cache


def hear(model: nn.Module, prompt: Prompt, cache: DynamicCache, told: list[int]) -> dict[str, Any]:
    """Log-probabilities of the told tokens after the first, and whether each is the likeliest."""
    tokens_1T = torch.tensor([told])
    positions = torch.arange(prompt.length, prompt.length + len(told))[None]
    logit_1TV = model(tokens_1T, past_key_values=cache, position_ids=positions).logits.float()
    logprob_TV, next_T = logit_1TV[0, :-1].log_softmax(-1), tokens_1T[0, 1:]
    return {
        "logprobs": logprob_TV.gather(1, next_T[:, None])[:, 0].tolist(),
        "is_first": (logprob_TV.argmax(1) == next_T).tolist(),
        "slots": cache.layers[0].keys.shape[2],
    }


@torch.inference_mode()
def main() -> None:
    global _budget
    asked = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(asked["threads"])
    disable_progress_bar()
    ALL_ATTENTION_FUNCTIONS.register("told", attention)
    model = AutoModelForCausalLM.from_pretrained(
        asked["model"], dtype=getattr(torch, asked["dtype"]), attn_implementation="told"
    ).eval()
    found: list[dict[str, Any]] = []
    for number, passage in enumerate(asked["passages"]):
        prompt = Prompt(model, passage["prompt"])
        for name, share in [(FULL, 1.0)] + [
            (name, share) for name in (QUEST, *PRESSES) for share in asked["shares"]
        ]:
            press = None if name not in PRESSES else PRESSES[name](compression_ratio=1 - share)
            if hasattr(press, "window_size"):  # theirs, or half of what is kept
                press.window_size = min(press.window_size, round(share * prompt.length) // 2)
            small = prompt.compressed(model, press)
            for key, told in enumerate(passage["told"]):
                # Quest reads what is told out of its budget: half of it, at the mean.
                more = len(told) // 2
                _budget = round(share * prompt.length) + more if name == QUEST else None
                cache = DynamicCache()
                for layer, kept in enumerate(small.layers):
                    cache.update(kept.keys, kept.values, layer)
                heard = hear(model, prompt, cache, told)
                _budget = None
                asking = {"passage": number, "told": key, "method": name, "share": share}
                found.append(asking | heard)
        print(f"{number + 1} of {len(asked['passages'])} prompts", file=sys.stderr, flush=True)
    Path(sys.argv[2]).write_text(json.dumps(found), encoding="utf-8")


main()
