"""Parity with transformers on tiny random models, and directories that both can read.

The bounds are those of the paper note: logits within 1e-5 and gradients within 1e-4 in float32,
and exactly the same experts. Weights are wider than at the start of training, so that attention
is not uniform and the choice of experts not a matter of rounding.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.testing import assert_close
from transformers import (
    AutoModelForCausalLM,
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from selenite.errors import CheckpointError
from selenite.model.config import PRESETS, preset
from selenite.model.hf_adapter import hf_names, load_pretrained, save_pretrained
from selenite.model.hf_config import from_hf_config, to_hf_config
from selenite.model.transformer import Transformer
from selenite.ops.attention_context import packed_context
from selenite.ops.logprobs import token_logprobs
from tests.fixtures.tiny import k2_config, llama_config, random_tokens, tiny_model

T = 40
SHARED = {"vocab_size": 96, "hidden_size": 64, "initializer_range": 0.08}
DEEPSEEK: dict[str, Any] = SHARED | {
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "intermediate_size": 96,
    "moe_intermediate_size": 32,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "routed_scaling_factor": 1.409,
    "q_lora_rank": 24,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "num_nextn_predict_layers": 0,
    "rope_parameters": {"rope_type": "default", "rope_theta": 50_000.0},
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "original_max_position_embeddings": 32,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
}
LLAMA: dict[str, Any] = SHARED | {
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "max_position_embeddings": 256,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
}
MODELS = [
    pytest.param("deepseek", {}, id="query LoRA"),
    pytest.param("deepseek", {"q_lora_rank": None}, id="no query LoRA"),
    pytest.param("deepseek", {"n_group": 4, "topk_group": 2}, id="groups"),
    pytest.param("deepseek", {"n_shared_experts": 2, "norm_topk_prob": False}, id="two shared"),
    pytest.param("deepseek", {"rope_parameters": YARN}, id="YaRN"),
    pytest.param(
        "deepseek", {"rope_parameters": YARN | {"beta_fast": 1.0, "factor": 32.0}}, id="YaRN of K2"
    ),
    pytest.param(
        "deepseek", {"rope_parameters": YARN | {"mscale": 0.7, "mscale_all_dim": 0.4}}, id="mscales"
    ),
    pytest.param("llama", {}, id="llama"),
    pytest.param("llama", {"head_dim": 24, "tie_word_embeddings": True}, id="llama, tied"),
    pytest.param("llama", {"num_key_value_heads": 4}, id="llama, MHA"),
]
models = pytest.mark.parametrize(("kind", "changes"), MODELS)


def their_model(kind: str, changes: dict[str, Any]) -> nn.Module:
    """Random weights, gains and correction biases; eager attention."""
    torch.manual_seed(0)
    if kind == "deepseek":
        config = DeepseekV3Config(**(DEEPSEEK | changes), attn_implementation="eager")
        model = DeepseekV3ForCausalLM(config)
    else:
        model = LlamaForCausalLM(LlamaConfig(**(LLAMA | changes), attn_implementation="eager"))
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith("norm.weight"):
                tensor.uniform_(0.5, 1.5)
            elif name.endswith("e_score_correction_bias"):
                tensor.uniform_(-0.05, 0.05)
    return model


def our_logits(model: Transformer, tokens_T: Tensor) -> Tensor:
    context = packed_context([len(tokens_T)])
    return model.logits(model(tokens_T, context.positions_T, context).hidden_TD)


def their_experts(model: nn.Module, tokens_T: Tensor) -> Tensor:
    """Ids of each routed layer's experts, ascending, ``[L, T, K]``."""
    ids: list[Tensor] = []
    hooks = [
        layer.mlp.gate.register_forward_hook(lambda _m, _i, out: ids.append(out[-1]))
        for layer in model.model.layers  # type: ignore[union-attr]
        if hasattr(layer.mlp, "gate")
    ]
    model(tokens_T[None])
    for hook in hooks:
        hook.remove()
    return torch.stack(ids).sort(-1).values


def their_gradient(model: nn.Module, names: list[str]) -> Tensor:
    """The gradient of tensors named as on disk; in memory transformers stacks the experts."""
    if ".experts." not in names[0]:
        gradient = model.get_parameter(names[0]).grad
        assert gradient is not None
        return gradient
    experts = model.get_submodule(names[0].split(".experts.")[0] + ".experts")
    if "down_proj" in names[0]:
        return experts.down_proj.grad  # type: ignore[union-attr, return-value]
    gate, up = experts.gate_up_proj.grad.chunk(2, 1)  # type: ignore[union-attr]
    return gate if "gate_proj" in names[0] else up


@models
def test_logits_experts_and_gradients(kind: str, changes: dict[str, Any], tmp_path: Path) -> None:
    theirs = their_model(kind, changes)
    theirs.save_pretrained(tmp_path)  # type: ignore[operator]
    ours = load_pretrained(tmp_path)
    tokens_T = random_tokens(T, 96)

    logits_TV = our_logits(ours, tokens_T)
    expected_TV = theirs(tokens_T[None]).logits[0]
    assert expected_TV.std() > 0.3  # not a model whose logits are nearly zero
    assert_close(logits_TV, expected_TV, atol=1e-5, rtol=0)

    context = packed_context([T])
    output = ours(tokens_T, context.positions_T, context)
    if kind == "deepseek":
        assert output.expert_ids_LTK is not None
        assert torch.equal(output.expert_ids_LTK.long(), their_experts(theirs, tokens_T))

    token_logprobs(output.hidden_TD[:-1], ours.head_weight, tokens_T[1:]).mean().neg().backward()
    theirs(tokens_T[None], labels=tokens_T[None]).loss.backward()
    parameters = dict(ours.named_parameters())
    compared = 0
    for name, disk_names in hf_names(ours.config).items():
        if name in parameters:
            expected = their_gradient(theirs, disk_names)
            assert expected.abs().max() > 0, name
            assert_close(parameters[name].grad, expected, atol=1e-4, rtol=0, msg=name)
            compared += 1
    assert compared == len(parameters)


def file_tensors(directory: Path) -> dict[str, Tensor]:
    return load_file(directory / "model.safetensors")


@models
def test_directories_both_can_read(kind: str, changes: dict[str, Any], tmp_path: Path) -> None:
    """Theirs to ours and back: the same tensors to the last bit, the same logits in transformers,
    and a config that says the same."""
    theirs = their_model(kind, changes)
    theirs.save_pretrained(tmp_path / "theirs")  # type: ignore[operator]
    ours = load_pretrained(tmp_path / "theirs")
    save_pretrained(ours, tmp_path / "ours", bos_token_id=1, eos_token_id=2)

    before, after = file_tensors(tmp_path / "theirs"), file_tensors(tmp_path / "ours")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert tensor.dtype == after[name].dtype == torch.float32, name
        assert torch.equal(tensor, after[name]), name
    with safe_open(tmp_path / "ours" / "model.safetensors", "pt") as opened:
        assert opened.metadata()["format"] == "pt"

    again = AutoModelForCausalLM.from_pretrained(tmp_path / "ours", attn_implementation="eager")
    assert type(again) is type(theirs)
    assert (again.config.bos_token_id, again.config.eos_token_id) == (1, 2)
    tokens_T = random_tokens(T, 96)
    assert torch.equal(again(tokens_T[None]).logits, theirs(tokens_T[None]).logits)
    assert load_pretrained(tmp_path / "ours").config == ours.config


@pytest.mark.parametrize("name", [name for name in PRESETS if preset(name).moe or "-" in name])
def test_presets_survive_their_config_json(name: str) -> None:
    hf = json.loads(json.dumps(to_hf_config(preset(name))))
    config = preset(name)
    if config.attention == "gqa":  # config.json says the head's width, also where it is derived
        config = preset(name, head_dim=config.qk_dim)
    assert from_hf_config(hf) == config


def test_published_config_of_kimi_k2() -> None:
    """The keys as Moonshot's config.json has them."""
    published = to_hf_config(preset("kimi-k2")) | {
        "model_type": "kimi_k2",
        "rope_scaling": {
            "type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096,
            "beta_fast": 1.0, "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0,
        },
        "aux_loss_alpha": 0.001,
        "seq_aux": True,
        "ep_size": 1,
    }  # fmt: skip
    assert from_hf_config(published) == preset("kimi-k2")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "qwen3"}, "model_type='qwen3' is not supported"),
        ({"attention_bias": True}, "attention_bias=True is not supported"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu' is not supported"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2}}, "rope_type='linear'"),
        ({"scoring_func": "softmax"}, "scoring_func='softmax' is not supported"),
        ({"topk_method": "greedy"}, "topk_method='greedy' is not supported"),
        ({"moe_layer_freq": 2}, "moe_layer_freq=2 is not supported"),
    ],
)
def test_options_that_the_model_lacks_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        from_hf_config(to_hf_config(k2_config()) | changes)


def test_a_missing_key_is_named() -> None:
    hf = to_hf_config(k2_config())
    del hf["kv_lora_rank"]
    with pytest.raises(CheckpointError, match=r"somewhere.json lacks the key 'kv_lora_rank'"):
        from_hf_config(hf, "somewhere.json")


def test_dimensions_that_contradict_each_other_are_refused() -> None:
    hf = to_hf_config(k2_config()) | {"num_experts_per_tok": 9}
    with pytest.raises(CheckpointError, match="experts_per_token=9 exceeds num_experts=8"):
        from_hf_config(hf, "somewhere.json")


def damaged(tmp_path: Path, name: str, tensor: Tensor | None) -> Path:
    """A saved tiny Llama with one tensor replaced, or removed."""
    save_pretrained(tiny_model(llama_config()), tmp_path)
    tensors = file_tensors(tmp_path)
    tensors.pop(name, None)
    if tensor is not None:
        tensors[name] = tensor
    save_file(tensors, tmp_path / "model.safetensors")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("model.norm.weight", None, r"1 missing: model\.norm\.weight"),
        (
            "model.norm.weight",
            torch.ones(63),
            r"model.norm.weight \(63,\) instead of \(64,\)",
        ),
        ("model.extra.weight", torch.ones(1), r"1 unexpected: model\.extra\.weight"),
    ],
)
def test_every_tensor_is_accounted_for(
    tmp_path: Path, name: str, tensor: Tensor | None, message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_pretrained(damaged(tmp_path, name, tensor))


def test_an_expert_of_another_shape_is_named(tmp_path: Path) -> None:
    save_pretrained(tiny_model(k2_config()), tmp_path)
    tensors = file_tensors(tmp_path)
    name = "model.layers.1.mlp.experts.3.up_proj.weight"
    tensors[name] = tensors[name][:-1].contiguous()
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(
        CheckpointError, match=r"experts.3.up_proj.weight \(31, 64\) instead of \(32, 64\)"
    ):
        load_pretrained(tmp_path)


def test_files_that_are_not_a_model(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config.json is missing"):
        load_pretrained(tmp_path)
    save_pretrained(tiny_model(llama_config()), tmp_path)
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"model.safetensors is damaged"):
        load_pretrained(tmp_path)
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"holds no .safetensors file"):
        load_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config.json is not JSON"):
        load_pretrained(tmp_path)


def test_latent_attention_without_experts_goes_through_a_directory(tmp_path: Path) -> None:
    model = tiny_model(k2_config(moe=None))
    save_pretrained(model, tmp_path)
    loaded = load_pretrained(tmp_path)
    assert loaded.config.moe is None
    tokens_T = random_tokens(20, model.config.vocab_size)
    context = packed_context([20])
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    ours_TV = model.logits(model(tokens_T, context.positions_T, context).hidden_TD)
    assert torch.allclose(ours_TV, theirs(tokens_T[None]).logits[0], rtol=0, atol=1e-5)


def test_what_the_format_cannot_say_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="lora_norm_eps"):
        save_pretrained(tiny_model(k2_config(lora_norm_eps=1e-5)), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_bfloat16_weights_are_saved_and_read_as_float32_masters(tmp_path: Path) -> None:
    model = tiny_model(k2_config()).cast(torch.bfloat16)
    save_pretrained(model, tmp_path)
    back = load_pretrained(tmp_path, torch.bfloat16)
    assert all(p.dtype == torch.float32 for p in back.parameters())
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter.float(), back.get_parameter(name)), name
    tokens_T = random_tokens(T, 96)
    assert torch.equal(our_logits(model, tokens_T), our_logits(back, tokens_T))
