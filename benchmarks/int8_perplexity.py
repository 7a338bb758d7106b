"""What int8 weights cost in perplexity: SmolLM2-135M-Instruct on English prose.

    python -m benchmarks.int8_perplexity

The prose is the text of Python's ``help`` topics, which comes with every interpreter; nothing was
tuned on it. Row: serve.int8.perplexity.
"""

from __future__ import annotations

import math
import pydoc_data.topics

import torch

from benchmarks.results import Reference, record
from selenite.chat.tokenizer import Tokenizer
from selenite.errors import ConfigError
from selenite.model.hf_adapter import load_pretrained
from selenite.model.pack import pack_weights
from selenite.model.transformer import Transformer
from selenite.ops.attention_context import packed_context
from selenite.ops.linear import can_pack
from selenite.ops.logprobs import log_softmax
from tests.fixtures.smollm2 import smollm2

DOCUMENTS, LENGTH = 64, 1024  # tokens of each


@torch.inference_mode()
def perplexity(model: Transformer, documents: list[list[int]]) -> float:
    """Over all tokens but each document's first."""
    nats, count = 0.0, 0
    for tokens in documents:
        context = packed_context([len(tokens)])
        tokens_T = torch.tensor(tokens)
        hidden_TD = model(tokens_T, context.positions_T, context).hidden_TD
        logprobs_TV = log_softmax(model.logits(hidden_TD[:-1]))
        nats -= float(logprobs_TV.gather(1, tokens_T[1:, None]).double().sum())
        count += len(tokens) - 1
    return math.exp(nats / count)


def main() -> None:
    directory = smollm2()
    tokenizer = Tokenizer.load(directory)
    text = "\n\n".join(topic for _, topic in sorted(pydoc_data.topics.topics.items()))
    ids = tokenizer.encode(text)
    documents = [ids[i * LENGTH : (i + 1) * LENGTH] for i in range(DOCUMENTS)]
    if len(documents[-1]) < LENGTH:
        raise ConfigError(f"the help topics have {len(ids)} tokens, not {DOCUMENTS * LENGTH}")
    plain = load_pretrained(directory).cast(torch.bfloat16)
    if not can_pack(plain.embed.weight):
        raise ConfigError("no kernels for int8 weights here: selenite doctor says why")
    exact = perplexity(plain, documents)
    found = perplexity(pack_weights(plain, to_int8=True), documents)
    cost = found / exact - 1
    print(f"perplexity {exact:.4f} in bfloat16, {found:.4f} with int8 weights: {cost:+.4%}")
    record(
        "serve.int8.perplexity",
        f"int8 weights, SmolLM2-135M-Instruct: perplexity over that in bfloat16, minus one "
        f"({DOCUMENTS} x {LENGTH} tokens of Python's help topics)",
        cost,
        "fraction",
        low=cost - 0.002,
        high=cost + 0.002,
        runs=1,
        target=None,
        reference=Reference(name="perplexity in bfloat16", value=exact, source="same run"),
        command="python -m benchmarks.int8_perplexity",
        note=f"{found:.4f} with int8 weights",
    )


if __name__ == "__main__":
    main()
