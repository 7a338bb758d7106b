"""What merging slots changes in the output of attention, beside giving the same slots up.

    python -m experiments.keepkv_error [MODEL]

SmolLM2-135M-Instruct reads 4,096 tokens of three texts: prose, and two pieces of Python. The last
32 of them score, as a request's do; slots are kept by SnapKV's rule, the others given up or merged,
and the next 32 tokens are read: how far is each layer's output from that over all keys? Scoring
and reading queries are not the same ones.
Row: keepkv.error_vs_eviction.
"""

from __future__ import annotations

import argparse
import inspect
import typing
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median

import torch
from torch import Tensor

from benchmarks.results import Reference, record
from selenite import runtime
from selenite.chat.tokenizer import Tokenizer
from selenite.eval.prose import prose_text
from selenite.eval.statistics import bootstrap_difference
from selenite.model.attention import softmax_scale
from selenite.model.cache import EntryCache
from selenite.model.hf_adapter import load_pretrained
from selenite.model.transformer import Transformer
from selenite.ops.attention_context import AttentionContext, KeptQueries, Pages
from selenite.ops.slot_merging import (
    Keep,
    Merge,
    Scores,
    Slots,
    choose_kept,
    merge_slots,
    slot_logits,
)
from tests.fixtures.smollm2 import smollm2

COMMAND = "python -m experiments.keepkv_error"
PROMPT, SCORING, READING, CHUNK = 4096, 32, 32, 512
SHARES = (0.05, 0.1, 0.2, 0.5)
SINKS, LIKENESS = 4, 0.8
FORMS: dict[str, tuple[Keep, Merge]] = {
    "eviction": ("snapkv", "none"),
    "merged (bias)": ("snapkv", "bias"),
    "merged (votes)": ("snapkv", "votes"),
    "merged (zip, as written)": ("snapkv", "zip"),
    "first and last tokens": ("recent", "none"),
}


def texts() -> dict[str, str]:
    """Each long enough."""
    sources = {"typing": typing, "argparse": argparse}
    code = {name: inspect.getsource(module) for name, module in sources.items()}
    return {"prose": prose_text(), **code}


@torch.inference_mode()
def read(model: Transformer, ids: Sequence[int]) -> tuple[EntryCache, Tensor]:
    """Entries of all tokens, and queries ``[L, X, N, H]`` of the last ones."""
    config = model.config
    count = SCORING + READING
    entries = EntryCache(config, len(ids), model.compute_dtype)
    shape = config.num_layers, count, config.num_heads, config.qk_dim
    stored = torch.empty(shape, dtype=model.compute_dtype)
    for start in range(0, len(ids), CHUNK):
        stop = min(start + CHUNK, len(ids))
        positions_T = torch.arange(start, stop)
        place_T = (positions_T - (len(ids) - count)).clamp(min=-1)
        context = AttentionContext(
            positions_T,
            torch.zeros_like(positions_T),
            ((0, stop - start, start),),
            Pages(len(ids), torch.zeros(1, 1, dtype=torch.int64), (stop,), positions_T, entries),
            kept_queries=KeptQueries(place_T, stored),
        )
        model(torch.tensor(ids[start:stop]), positions_T, context)
    return entries, stored


def attended(q_QNH: Tensor, slots: Slots, own: tuple[Tensor, Tensor], scale: float) -> Tensor:
    """Outputs ``[Q, N, W]`` of rows that read slots, and each other's entries up to themselves."""
    (Q, N, _), M = q_QNH.shape, slots.k_SMH.shape[1]
    k_SMH, v_SMW = torch.cat((slots.k_SMH, own[0])), torch.cat((slots.v_SMW, own[1]))
    logit_QNS = slot_logits(q_QNH, k_SMH, scale)
    logit_QNS[..., : len(slots.bias_SN)] += slots.bias_SN.T
    future_QQ = torch.ones(Q, Q, dtype=torch.bool).triu(1)
    logit_QNS[..., -Q:].masked_fill_(future_QQ[:, None], -torch.inf)
    weight_QMGS = logit_QNS.softmax(-1).unflatten(1, (M, N // M))
    return torch.einsum("qmgs,smw->qmgw", weight_QMGS, v_SMW.float()).flatten(1, 2)


@torch.inference_mode()
def errors(model: Transformer, ids: Sequence[int]) -> dict[tuple[str, float], list[float]]:
    """By form and share: of each layer the mean distance of outputs, over their length."""
    entries, queries_LXNH = read(model, ids)
    scale = softmax_scale(model.config)
    found: dict[tuple[str, float], list[float]] = {}
    for layer in range(model.config.num_layers):
        k_SMH, v_SMW = entries.read(layer)
        scoring, reading = queries_LXNH[layer].split((SCORING, READING))
        own = k_SMH[PROMPT:], v_SMW[PROMPT:]
        bias_SN = torch.zeros(PROMPT, model.config.num_heads)
        slots = Slots(k_SMH[:PROMPT], v_SMW[:PROMPT], bias_SN)
        whole_QNW = attended(reading, slots, own, scale)
        scores = Scores.of(scoring, slots, scale)
        for share in SHARES:
            for name, (keep, merge) in FORMS.items():
                kept_MB = choose_kept(
                    *(
                        scores.share_QNS,
                        k_SMH.shape[1],
                        round(share * PROMPT),
                        SINKS,
                        SCORING,
                        keep,
                    )
                )
                fewer, _ = merge_slots(
                    *(slots, scores, kept_MB),
                    merge=merge,
                    likeness=LIKENESS,
                    num_sinks=SINKS,
                    decay=1.0,
                )
                out_QNW = attended(reading, fewer, own, scale)
                error_QN = (out_QNW - whole_QNW).norm(dim=-1) / whole_QNW.norm(dim=-1)
                found.setdefault((name, share), []).append(float(error_QN.mean()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, nargs="?")
    directory = parser.parse_args().model or smollm2()
    runtime.apply_threads()
    dtype = runtime.torch_dtype(runtime.choose_dtype("auto").value)
    model = load_pretrained(directory, dtype).cast(dtype)
    tokenizer = Tokenizer.load(directory)
    found: dict[tuple[str, float], list[float]] = {}
    for name, text in texts().items():
        ids = tokenizer.encode(text)[: PROMPT + READING]
        assert len(ids) == PROMPT + READING, (name, len(ids))
        for key, values in errors(model, ids).items():
            found.setdefault(key, []).extend(values)
        print(f"{name}: read", flush=True)
    for share in SHARES:
        line = ", ".join(f"{name} {mean(found[name, share]):.3f}" for name in FORMS)
        print(f"{share:.0%}: {line}")
    base, merged = found["eviction", 0.1], found["merged (bias)", 0.1]
    ratio = mean(merged) / mean(base)
    _, low, high = bootstrap_difference(base, merged)
    others = "; ".join(
        f"{share:.0%}: " + ", ".join(f"{name} {mean(found[name, share]):.3f}" for name in FORMS)
        for share in SHARES
    )
    record(
        "keepkv.error_vs_eviction",
        "distance of attention's outputs from those over all keys, 10 % of 4,096 slots kept: slots "
        "merged over slots given up",
        ratio,
        "ratio",
        low=1 + low / mean(base),
        high=1 + high / mean(base),
        runs=len(base),
        target="<= 0.8",
        reference=Reference(name="eviction's own distance", value=mean(base), source="same run"),
        command=COMMAND,
        note=f"{directory.name}, {dtype}, three texts, 30 layers; medians {median(merged):.3f} and "
        f"{median(base):.3f}; {others}",
    )


if __name__ == "__main__":
    main()
