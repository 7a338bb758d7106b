"""The numbers that follow from a pre-training config, each with its formula, for the start of a
run: nothing about its size or cost has to be worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence

from selenite.data.corpus import TokenCorpus
from selenite.model.accounting import (
    count_parameters,
    nextn_flops_per_token,
    training_flops_per_token,
)
from selenite.model.lora import planned_adapters
from selenite.train.pretrain_config import PretrainConfig


def derived_numbers(
    config: PretrainConfig, corpora: Sequence[TokenCorpus], peak_flops: float | None
) -> list[str]:
    """One line a number. ``peak_flops``: this machine's measured matrix-product peak in FLOP/s;
    none: not measured, and no line about it."""
    train = config.train
    count = count_parameters(config.model)
    adapters = None if config.lora is None else planned_adapters(config.model, config.lora)
    active = None if adapters is None else adapters.active
    matrices = "6 x matrix" if adapters is None else "4 x matrix + 6 x adapter"
    per_token = training_flops_per_token(config.model, train.seq_len, active)
    nextn_per_token = 3 * nextn_flops_per_token(config.model, train.seq_len / 2)
    tokens = train.num_steps * train.batch_tokens
    in_corpus = sum(corpus.train.num_tokens for corpus in corpora)
    held_out = sum(corpus.val.num_tokens for corpus in corpora)
    steps = (
        f"steps = {train.num_steps:,}, as set"
        if train.tokens is None
        else f"steps = ceil(train.tokens / train.batch_tokens) = ceil({train.tokens:,} / "
        f"{train.batch_tokens:,}) = {train.num_steps:,}"
    )
    numbers = [
        steps,
        f"micro-batches of a step = batch_tokens / micro_batch_tokens = {train.batch_tokens:,} / "
        f"{train.micro_batch_tokens:,} = {train.micro_batches}",
        f"tokens = steps x batch_tokens = {tokens:,}; tokens / corpus = {tokens:,} / "
        f"{in_corpus:,} = {tokens / in_corpus:.2f} epochs",
        f"held out: {held_out:,} tokens, of which an evaluation reads "
        f"{min(train.eval_tokens, held_out):,}",
        f"parameters = {count.total:,}, of which one token uses {count.active:,}; tokens / "
        f"parameters used = {tokens / count.active:.2f}",
        f"model FLOPs of a token = {matrices} parameters + causal attention over seq_len at most = "
        f"{per_token:.3e}; of the run = {per_token * tokens:.3e}",
    ]
    if adapters is not None:
        numbers.append(
            f"trained = the adapters' {adapters.total:,} parameters, of which one token uses "
            f"{adapters.active:,}"
        )
    if count.nextn and adapters is None:
        numbers.append(
            f"extra prediction layers: {count.nextn:,} more parameters and {nextn_per_token:.3e} "
            f"more FLOPs of a token; weight of their loss = {train.nextn_loss_weight}"
        )
    if peak_flops is not None:
        numbers.append(
            f"at the measured peak of {peak_flops / 1e9:,.0f} GFLOP/s the run would take "
            f"{(per_token + nextn_per_token) * tokens / peak_flops / 60:.1f} minutes"
        )
    return numbers
