"""LoRA: what adapters add, what trains, merged weights, and the files, also against transformers.

Logits are sums of a few hundred float32 products of order one: 1e-4 where the order of the sums
differs (W x + B A x against (W + B A) x), through three layers.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.testing import assert_close

from selenite.errors import CheckpointError, ConfigError
from selenite.model.config import ModelConfig
from selenite.model.decode import decode
from selenite.model.hf_adapter import save_pretrained
from selenite.model.lora import (
    LoRAConfig,
    adapted_weight,
    adapters,
    add_lora,
    count_adapters,
    merge_lora,
    planned_adapters,
    target_paths,
)
from selenite.model.lora_files import CONFIG, WEIGHTS, load_lora, save_lora
from selenite.model.transformer import Transformer
from selenite.ops.attention_context import packed_context
from selenite.ops.linear import LowRank
from selenite.ops.logprobs import token_logprobs
from selenite.ops.moe import experts
from selenite.optim.build import OptimConfig, build_groups
from selenite.optim.qk_clip import qk_clip
from selenite.types import SamplingParams
from tests.fixtures.tiny import k2_config, llama_config, random_tokens, tiny_model

T = 40
EVERYTHING = LoRAConfig(rank=4, alpha=6.0, targets=("attention.*", "ffn.*", "head"))
kinds = pytest.mark.parametrize(
    "config",
    [k2_config(), k2_config(q_lora_rank=None), llama_config(), llama_config(tie_embeddings=True)],
    ids=["k2", "k2, direct query", "llama", "llama, tied"],
)


def adapted_model(config: ModelConfig, lora: LoRAConfig = EVERYTHING) -> Transformer:
    """With adapters that do something: B as training would have left it, not zero."""
    model = add_lora(tiny_model(config), lora, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for _, adapter in sorted(adapters(model).items()):
            adapter.B.normal_(0.0, 0.1, generator=generator)
    return model


def logits(model: Transformer) -> Tensor:
    context = packed_context([T - 9, 9])
    tokens_T = random_tokens(T, model.config.vocab_size)
    return model.logits(model(tokens_T, context.positions_T, context).hidden_TD)


def train_backward(model: Transformer) -> None:
    context = packed_context([T])
    tokens_T = random_tokens(T, model.config.vocab_size)
    hidden_TD = model(tokens_T, context.positions_T, context).hidden_TD
    token_logprobs(hidden_TD, model.head_weight, tokens_T.roll(-1)).mean().backward()


# --- what they compute


@kinds
def test_new_adapters_change_no_bit(config: ModelConfig) -> None:
    plain, adapted = tiny_model(config), add_lora(tiny_model(config), EVERYTHING, seed=1)
    assert torch.equal(logits(adapted), logits(plain))
    drawn = [adapter.A for adapter in adapters(adapted).values()]
    assert all(A.abs().max() <= A.shape[-1] ** -0.5 and A.std() > 0 for A in drawn)
    again = adapters(add_lora(tiny_model(config), EVERYTHING, seed=1))
    assert all(torch.equal(A, other.A) for A, other in zip(drawn, again.values(), strict=True))


@kinds
def test_only_adapters_get_a_gradient_and_it_is_that_of_the_merged_weight(
    config: ModelConfig,
) -> None:
    """By the chain rule: of B it is scale dW A^T, of A scale B^T dW."""
    model = adapted_model(config)
    merged = merge_lora(deepcopy(model))
    train_backward(model)
    train_backward(merged)
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad == (".lora." in name), name
    for path, adapter in adapters(model).items():
        dW = adapted_weight(merged, path).grad
        assert dW is not None
        expected_of = {"A": 1.5 * adapter.B.mT @ dW, "B": 1.5 * dW @ adapter.A.mT}  # 6 / 4
        for matrix, expected in expected_of.items():
            found = adapter.get_parameter(matrix).grad
            assert found is not None
            error = (found - expected).norm() / expected.norm()
            assert error < 1e-4, (path, matrix, float(error))  # float32 sums over 40 tokens


@kinds
def test_merging_changes_no_logit_and_leaves_a_plain_model(config: ModelConfig) -> None:
    plain, model = tiny_model(config), adapted_model(config)
    before = logits(model)
    assert (before - logits(plain)).abs().max() > 0.1
    merge_lora(model)
    assert_close(logits(model), before, atol=1e-4, rtol=1e-4)
    assert adapters(model) == {}
    names = plain.state_dict().keys() | {"head.weight"}
    assert model.state_dict().keys() == names
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_tied_head_gets_weights_of_its_own_only_as_a_target() -> None:
    config = llama_config(tie_embeddings=True)
    kept = adapted_model(config, LoRAConfig(targets=("attention.*",)))
    assert kept.config.tie_embeddings
    untied = adapted_model(config)
    embedding = untied.embed.weight.clone()
    merge_lora(untied)
    assert not untied.config.tie_embeddings
    assert torch.equal(untied.embed.weight, embedding)
    assert not torch.equal(untied.head_weight, embedding)


@pytest.mark.parametrize("rank", [5, 8])
def test_adapters_of_experts_against_one_expert_after_another(rank: int) -> None:
    """A rank that grouped products cannot have, and one that they can; expert 5 gets no token."""
    D, F, E = 16, 24, 6
    generator = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> Tensor:
        return (torch.randn(shape, generator=generator) / 4).requires_grad_()

    x_TD, weights_TK = randn(T, D), randn(T, 2)
    ids_TK = torch.stack((torch.arange(T) % 2, 2 + torch.arange(T) % 3), -1)
    stacked = [randn(E, F, D), randn(E, F, D), randn(E, D, F)]
    factors = [(randn(E, rank, w.shape[2]), randn(E, w.shape[1], rank)) for w in stacked]
    found = experts(x_TD, ids_TK, weights_TK, *stacked, tuple(LowRank(*ab, 1.5) for ab in factors))

    def product(e: int, part: int, x: Tensor) -> Tensor:
        a, b = factors[part]
        return x @ stacked[part][e].T + 1.5 * (x @ a[e].T) @ b[e].T

    rows = []
    for t in range(T):
        row = torch.zeros(D)
        for k, e in enumerate(ids_TK[t].tolist()):
            hidden = nn.functional.silu(product(e, 0, x_TD[t])) * product(e, 1, x_TD[t])
            row = row + weights_TK[t, k] * product(e, 2, hidden)
        rows.append(row)
    expected = torch.stack(rows)
    assert_close(found, expected, atol=1e-5, rtol=1e-5)
    leaves = [x_TD, weights_TK, *(factor for ab in factors for factor in ab)]
    direction = torch.randn(T, D, generator=generator)
    gradients = zip(
        torch.autograd.grad((found * direction).sum(), leaves),
        torch.autograd.grad((expected * direction).sum(), leaves),
        strict=True,
    )
    for mine, reference in gradients:
        assert_close(mine, reference, atol=1e-5, rtol=1e-5)


def test_decoding_with_adapters_in_both_layouts_of_the_cache() -> None:
    """Latent entries read the matrix of keys and values itself, adapters included."""
    model = adapted_model(k2_config())
    merged = merge_lora(deepcopy(model))
    params = [SamplingParams(temperature=0, max_tokens=6)]
    expected = decode(merged, [[5, 6, 7]], params)[0]
    for layout in ("latent", "expanded"):
        found = decode(model, [[5, 6, 7]], params, layout=layout)[0]
        assert found.token_ids == expected.token_ids
        assert found.logprobs == pytest.approx(expected.logprobs, abs=1e-4)


def test_bfloat16_stays_near_float32() -> None:
    """Each product rounds at 2**-8; as for the model without adapters (test_transformer.py)."""
    model = adapted_model(k2_config(init_std=0.05))
    wide = logits(model)
    low = logits(model.cast(torch.bfloat16))
    assert low.dtype == torch.bfloat16
    assert (low.float() - wide).norm() / wide.norm() < 0.05


# --- what others make of them


@pytest.mark.parametrize(
    ("config", "gqa"),
    [(k2_config(), "query"), (k2_config(q_lora_rank=None), "query")]
    + [(llama_config(), mode) for mode in ("query", "balanced", "group")],
)
def test_qk_clip_scales_the_weight_and_its_adapter_alike(config: ModelConfig, gqa: Any) -> None:
    model = adapted_model(config)
    merged = merge_lora(deepcopy(model))
    max_logit_LN = torch.rand(config.num_layers, config.num_heads) * 200
    report = qk_clip(model, max_logit_LN, 100.0, gqa)
    assert report.num_clipped > 0
    qk_clip(merged, max_logit_LN, 100.0, gqa)
    clipped = dict(merge_lora(model).named_parameters())
    for name, expected in merged.named_parameters():
        assert_close(clipped[name], expected, atol=1e-6, rtol=1e-5)  # (W + BA) g = W g + (B g) A


def test_the_optimizer_takes_adapters_alone_by_adamw() -> None:
    model = adapted_model(k2_config())
    (group,) = build_groups(model, OptimConfig())
    assert (group.role, group.kind) == ("lora", "adamw")
    assert "layers.1.ffn.experts.lora.gate.A" in group.names
    assert "head.lora.B" in group.names
    assert group.num_elements == count_adapters(model).total


def test_counts() -> None:
    lora = LoRAConfig(rank=4, targets=("ffn.experts.down", "attention.o"))
    model = add_lora(tiny_model(k2_config()), lora, seed=0)
    o, down = 3 * 4 * (64 + 64), 4 * (64 + 32)  # 4 heads of 16; of each expert
    assert count_adapters(model).total == o + 2 * 8 * down
    assert count_adapters(model).active == o + 2 * 2 * down
    assert planned_adapters(k2_config(), lora) == count_adapters(model)


# --- targets


def test_targets_are_names_with_or_without_their_layer_or_patterns() -> None:
    config = k2_config()

    def paths(*targets: str) -> list[str]:
        return target_paths(config, targets)

    assert paths("attention.q_b") == [f"layers.{i}.attention.q_b" for i in range(3)]
    assert paths("layers.2.ffn.experts.up", "head") == ["head", "layers.2.ffn.experts.up"]
    shared = [f"layers.{i}.ffn.shared.{part}" for i in (1, 2) for part in ("gate", "up", "down")]
    assert sorted(paths("ffn.shared.*")) == sorted(shared)
    default = paths(*LoRAConfig().targets)
    assert len(default) == 3 * 5 + 3 + 2 * (3 + 3)
    assert not [path for path in default if "norm" in path or "router" in path or path == "head"]


@pytest.mark.parametrize(
    ("target", "nearest"),
    [
        ("q_b", r"did you mean attention\.q_b\?"),
        ("attention.qb", r"did you mean .*attention\.q_b"),
        ("gate", r"ffn\.gate or ffn\.experts\.gate or ffn\.shared\.gate"),
        ("layers.7.attention.o", r"did you mean .*layers\.\d\.attention\.o"),
        ("embed", r"there are: head, attention\.q_a, "),
        ("ffn.router", r"'ffn\.router' is no weight that can have an adapter"),
        ("norm", r"'norm' is no weight"),
    ],
)
def test_unknown_targets_are_named_with_the_nearest_names(target: str, nearest: str) -> None:
    model = tiny_model(k2_config())
    with pytest.raises(ConfigError, match=nearest):
        add_lora(model, LoRAConfig(targets=("attention.o", target)), seed=0)
    assert adapters(model) == {}
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_adapters_are_added_once() -> None:
    with pytest.raises(ConfigError, match="has adapters already; merge them first"):
        add_lora(adapted_model(llama_config()), LoRAConfig(), seed=0)
    with pytest.raises(ConfigError, match="no adapter to save"):
        save_lora(tiny_model(llama_config()), Path("nowhere"))


# --- files


def test_names_and_config_are_those_of_peft(tmp_path: Path) -> None:
    targets = ("layers.0.attention.q_b", "ffn.experts.up", "layers.2.ffn.shared.down", "head")
    save_lora(adapted_model(k2_config(), LoRAConfig(rank=4, targets=targets)), tmp_path, "base")
    q_b = "base_model.model.model.layers.0.self_attn.q_b_proj"
    shared = "base_model.model.model.layers.2.mlp.shared_experts.down_proj"
    shapes = {
        f"{q_b}.lora_A.weight": (4, 24),
        f"{q_b}.lora_B.weight": (4 * (16 + 8), 4),
        f"{shared}.lora_A.weight": (4, 32),
        f"{shared}.lora_B.weight": (64, 4),
        "base_model.model.lm_head.lora_A.weight": (4, 64),
        "base_model.model.lm_head.lora_B.weight": (96, 4),
    }
    for layer in (1, 2):
        for e in range(8):
            name = f"base_model.model.model.layers.{layer}.mlp.experts.{e}.up_proj"
            shapes |= {f"{name}.lora_A.weight": (4, 64), f"{name}.lora_B.weight": (32, 4)}
    assert {n: tuple(t.shape) for n, t in load_file(tmp_path / WEIGHTS).items()} == shapes
    config = json.loads((tmp_path / CONFIG).read_text())
    expected = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 32}
    assert config.items() >= (expected | {"base_model_name_or_path": "base"}).items()
    ends = ["0.self_attn.q_b_proj", "2.mlp.shared_experts.down_proj", "lm_head"]
    assert config["target_modules"] == sorted([*ends, *(f"{e}.up_proj" for e in range(8))])


def test_whole_kinds_of_weights_are_named_shortly(tmp_path: Path) -> None:
    save_lora(adapted_model(k2_config(), LoRAConfig()), tmp_path)
    modules = json.loads((tmp_path / CONFIG).read_text())["target_modules"]
    attention = ["kv_a_proj_with_mqa", "kv_b_proj", "o_proj", "q_a_proj", "q_b_proj"]
    assert modules == sorted([*attention, "down_proj", "gate_proj", "up_proj"])


@kinds
def test_saved_and_loaded_bit_for_bit(config: ModelConfig, tmp_path: Path) -> None:
    model = adapted_model(config)
    save_lora(model, tmp_path / "once")
    loaded = load_lora(tiny_model(config), tmp_path / "once")
    for (name, mine), (other, expected) in zip(
        loaded.named_parameters(), model.named_parameters(), strict=True
    ):
        assert name == other
        assert torch.equal(mine, expected), name
        assert mine.requires_grad == expected.requires_grad
    assert torch.equal(logits(loaded), logits(model))
    save_lora(loaded, tmp_path / "twice")
    for file in (CONFIG, WEIGHTS):
        once, twice = (tmp_path / folder / file for folder in ("once", "twice"))
        assert once.read_bytes() == twice.read_bytes()


@pytest.mark.parametrize("kind", ["deepseek", "llama"])
def test_adapters_in_the_model_of_transformers_give_our_logits(kind: str, tmp_path: Path) -> None:
    """The file's names and shapes, applied by hand to the modules that have these names there."""
    transformers = pytest.importorskip("transformers")
    ours = adapted_model(k2_config() if kind == "deepseek" else llama_config())
    save_lora(ours, tmp_path / "adapter")
    save_pretrained(without_adapters(ours), tmp_path / "base")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "base", attn_implementation="eager"
    )
    tensors = load_file(tmp_path / "adapter" / WEIGHTS)
    config = json.loads((tmp_path / "adapter" / CONFIG).read_text())
    with torch.no_grad():
        for name in [name for name in tensors if ".lora_A." in name]:
            B, A = tensors[name.replace("lora_A", "lora_B")], tensors[name]
            module = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            their_weight(theirs, module).add_(config["lora_alpha"] / config["r"] * (B @ A))
    context = packed_context([T])
    tokens_T = random_tokens(T, 96)
    found_TV = ours.logits(ours(tokens_T, context.positions_T, context).hidden_TD)
    assert_close(found_TV, theirs(tokens_T[None]).logits[0], atol=1e-4, rtol=1e-4)


def without_adapters(model: Transformer) -> Transformer:
    """The model that they were added to."""
    plain = deepcopy(model)
    with torch.no_grad():
        for adapter in adapters(plain).values():
            adapter.B.zero_()
    return merge_lora(plain)


def their_weight(model: nn.Module, module: str) -> Tensor:
    """In memory transformers stacks the experts, gate above up."""
    if ".experts." not in module:
        weight = model.get_submodule(module).weight
        assert isinstance(weight, Tensor)
        return weight
    stack, _, rest = module.partition(".experts.")
    number, part = rest.split(".")
    experts_there: Any = model.get_submodule(f"{stack}.experts")
    if part == "down_proj":
        return experts_there.down_proj[int(number)]
    gate, up = experts_there.gate_up_proj[int(number)].chunk(2, 0)
    return gate if part == "gate_proj" else up


def saved(folder: Path) -> Path:
    save_lora(adapted_model(k2_config()), folder)
    return folder


@pytest.mark.parametrize(
    "targets",
    [r".*\.(q_b|down)_proj", ["q_b_proj", "down_proj"], ["self_attn.q_b_proj", "down_proj"]],
    ids=["a pattern", "names", "ends of names"],
)
def test_what_peft_writes_in_other_ways(targets: object, tmp_path: Path) -> None:
    lora = LoRAConfig(targets=("attention.q_b", "ffn.*down"))
    save_lora(adapted_model(k2_config(), lora), tmp_path)
    config = json.loads((tmp_path / CONFIG).read_text())
    config |= {"target_modules": targets, "rank_pattern": None, "modules_to_save": []}
    config |= {"megatron_core": "megatron.core", "lora_dropout": 0.1, "eva_config": None}
    (tmp_path / CONFIG).write_text(json.dumps(config))
    loaded = load_lora(tiny_model(k2_config()), tmp_path)
    assert sorted(adapters(loaded)) == sorted(target_paths(k2_config(), lora.targets))


EXPERT = "base_model.model.model.layers.2.mlp.experts.3.up_proj.lora_B.weight"


def without_an_expert(tensors: dict[str, Tensor]) -> None:
    del tensors[EXPERT]


def with_another(tensors: dict[str, Tensor]) -> None:
    tensors["base_model.model.model.layers.9.self_attn.o_proj.lora_A.weight"] = torch.ones(4, 64)


def with_another_shape(tensors: dict[str, Tensor]) -> None:
    tensors[EXPERT] = torch.ones(32, 5)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (without_an_expert, rf"the tensor {EXPERT} is missing"),
        (with_another, r"unexpected tensor .*layers\.9\.self_attn\.o_proj\.lora_A\.weight"),
        (with_another_shape, rf"{EXPERT} is \(32, 5\), .* make it \(32, 4\)"),
    ],
)
def test_every_tensor_is_accounted_for(
    change: Callable[[dict[str, Tensor]], None], complaint: str, tmp_path: Path
) -> None:
    tensors = load_file(saved(tmp_path) / WEIGHTS)
    change(tensors)
    save_file(tensors, tmp_path / WEIGHTS)
    model = tiny_model(k2_config())
    with pytest.raises(CheckpointError, match=complaint):
        load_lora(model, tmp_path)
    assert adapters(model) == {}, "a refused adapter changes nothing"


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"use_dora": True}, r"use_dora=True is not supported, only False"),
        ({"peft_type": "IA3"}, r"peft_type='IA3' is not supported"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save=\['lm_head'\]"),
        ({"r": 0}, r"not an adapter's config"),
        ({"target_modules": None}, r"target_modules=None is no list"),
        ({"target_modules": "(("}, r"no pattern"),
        ({"target_modules": ["c_attn"]}, r"means no weight of this model"),
        ({"target_modules": ["experts.3.up_proj"]}, r"experts\.3\.up_proj but not .*experts\.0"),
        ({"target_modules": ["q_b_proj"]}, r"unexpected tensor"),
    ],
)
def test_options_that_are_not_implemented_are_refused_by_name(
    changes: dict[str, object], complaint: str, tmp_path: Path
) -> None:
    file = saved(tmp_path) / CONFIG
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(CheckpointError, match=complaint):
        load_lora(tiny_model(k2_config()), tmp_path)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    whole = saved(tmp_path / "whole")
    with pytest.raises(CheckpointError, match=r"not an adapter's directory.*adapter_config\.json"):
        load_lora(tiny_model(k2_config()), tmp_path)
    for file, content in (
        (CONFIG, b"{"),
        (CONFIG, b"[]"),
        (CONFIG, b'{"r": 4}'),
        (WEIGHTS, (whole / WEIGHTS).read_bytes()[:-100]),
        (WEIGHTS, None),
    ):
        damaged = shutil.copytree(whole, tmp_path / "damaged", dirs_exist_ok=True)
        (damaged / file).unlink()
        if content is not None:
            (damaged / file).write_bytes(content)
        with pytest.raises(CheckpointError, match=file):
            load_lora(tiny_model(k2_config()), damaged)
