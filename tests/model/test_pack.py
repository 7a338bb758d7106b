"""Packed weights: the same bits as unpacked ones in bfloat16, near ones in int8, and their size."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from selenite.errors import ConfigError
from selenite.model.config import ModelConfig
from selenite.model.hf_adapter import load_pretrained, read_config, save_pretrained
from selenite.model.lora import LoRAConfig, add_lora, put_adapters, take_adapters
from selenite.model.pack import pack_weights, packed_bytes
from selenite.model.transformer import Transformer
from selenite.ops import native
from selenite.ops.attention_context import packed_context
from selenite.serve.weight_update import prepare
from tests.fixtures.tiny import k2_config, llama_config, tiny_model

needs_kernel = pytest.mark.skipif(
    not native.is_available() or native.instruction_set().value != "avx512_bf16",
    reason=f"no kernel here: {native.availability().reason}, {native.instruction_set().reason}",
)
CONFIGS = [llama_config(), llama_config(tie_embeddings=True), k2_config()]


@torch.inference_mode()
def logits(model: Transformer) -> Tensor:
    context = packed_context([5, 70])
    tokens_T = torch.arange(75) % model.config.vocab_size
    return model.logits(model(tokens_T, context.positions_T, context).hidden_TD)


@needs_kernel
@pytest.mark.parametrize("config", CONFIGS)
def test_bfloat16_keeps_its_bits(config: ModelConfig):
    plain = logits(tiny_model(config).cast(torch.bfloat16))
    assert torch.equal(logits(pack_weights(tiny_model(config).cast(torch.bfloat16))), plain)


@needs_kernel
@pytest.mark.parametrize("config", CONFIGS)
def test_int8_is_near(config: ModelConfig):
    """Half a step of 127 a weight; a token near a border may choose other experts."""
    plain = logits(tiny_model(config).cast(torch.bfloat16)).float()
    model = pack_weights(tiny_model(config).cast(torch.bfloat16), to_int8=True)
    assert model.is_int8
    difference = (logits(model).float() - plain).norm() / plain.norm()
    assert 0 < float(difference) < 0.2


@needs_kernel
@pytest.mark.parametrize("to_int8", [False, True])
@pytest.mark.parametrize("config", CONFIGS)
def test_size_is_known_without_the_weights(config: ModelConfig, to_int8: bool):
    with torch.device("meta"):
        planned = packed_bytes(pack_weights(Transformer(config).cast(torch.bfloat16), to_int8))
    model = pack_weights(tiny_model(config).cast(torch.bfloat16), to_int8)
    assert packed_bytes(model) == planned
    unpacked = sum(p.nbytes for p in tiny_model(config).cast(torch.bfloat16).parameters())
    assert packed_bytes(model) > 0.4 * unpacked
    if to_int8:
        assert packed_bytes(model) < unpacked


def test_int8_where_no_kernel_multiplies_it():
    model = tiny_model(llama_config())
    with pytest.raises(ConfigError, match=r"do not serve torch\.float32 here"):
        pack_weights(model, to_int8=True)
    assert pack_weights(model) is model  # stays as it is
    assert all(layer.packed is None for layer in (model.layers[0].ffn.gate, model.head))


@needs_kernel
def test_adapters_beside_packed_weights():
    def adapted(model: Transformer) -> Transformer:
        add_lora(model, LoRAConfig(rank=4), seed=1)
        for name, parameter in model.named_parameters():
            if name.endswith("lora.B"):
                parameter.data.fill_(0.02)
        return model

    plain = adapted(tiny_model(llama_config()).cast(torch.bfloat16))
    packed = adapted(pack_weights(tiny_model(llama_config()).cast(torch.bfloat16)))
    with_adapters = logits(packed)
    assert torch.equal(with_adapters, logits(plain))
    taken = take_adapters(packed)
    assert not torch.equal(with_adapters, logits(packed))
    put_adapters(packed, taken)
    assert torch.equal(with_adapters, logits(packed))


@needs_kernel
@pytest.mark.parametrize("to_int8", [False, True])
def test_new_weights_are_packed_as_the_old_ones(tmp_path: Path, to_int8: bool):
    save_pretrained(tiny_model(llama_config(), seed=3), tmp_path)
    served = pack_weights(tiny_model(read_config(tmp_path)).cast(torch.bfloat16), to_int8)
    found = prepare(tmp_path, served, None).model
    expected = pack_weights(load_pretrained(tmp_path).cast(torch.bfloat16), to_int8)
    assert found.is_int8 == to_int8
    assert torch.equal(logits(found), logits(expected))
