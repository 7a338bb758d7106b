"""The mixture of experts with experts that somebody else chose, against all experts with a mask."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from selenite.model.config import MoEConfig
from selenite.model.moe import MoE
from tests.fixtures.tiny import k2_config, random_tokens, tiny_model
from tests.model.test_transformer import run

CONFIG = MoEConfig(
    num_experts=8,
    experts_per_token=3,
    expert_hidden_size=16,
    num_shared_experts=1,
    routed_scaling_factor=1.409,
)
T, D = 40, 24


@pytest.fixture
def layer() -> MoE:
    torch.manual_seed(0)
    layer = MoE(CONFIG, D)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    layer.router.bias.copy_(torch.linspace(-0.2, 0.2, 8))
    return layer


def dense(layer: MoE, x_TD: Tensor, is_used_TE: Tensor) -> Tensor:
    """Every expert computes every token; those that are not used weigh nothing."""
    affinity_TE = torch.sigmoid(x_TD @ layer.router.weight.T) * is_used_TE
    weight_TE = affinity_TE / affinity_TE.sum(-1, keepdim=True) * CONFIG.routed_scaling_factor
    own = layer.experts
    hidden_TEF = F.silu(torch.einsum("td,efd->tef", x_TD, own.gate))
    hidden_TEF = hidden_TEF * torch.einsum("td,efd->tef", x_TD, own.up)
    y_TED = torch.einsum("tef,edf->ted", hidden_TEF, own.down)
    return (weight_TE[..., None] * y_TED).sum(1) + layer.shared(x_TD)


def test_replayed_experts_are_all_experts_with_a_mask(layer: MoE) -> None:
    """Output, and the gradients of rows, router and experts; half of the rows choose themselves."""
    generator = torch.Generator().manual_seed(1)
    x_TD = torch.randn(T, D, generator=generator, requires_grad=True)
    other_TK = torch.rand(T, 8, generator=generator).topk(3).indices.sort(-1).values
    is_given_T = torch.arange(T) % 2 == 0
    replay_TK = torch.where(is_given_T[:, None], other_TK, -1)
    ranked_TE = torch.sigmoid(x_TD.detach() @ layer.router.weight.detach().T) + layer.router.bias
    chosen_TK = ranked_TE.topk(3).indices.sort(-1).values
    used_TK = torch.where(is_given_T[:, None], other_TK, chosen_TK)
    is_used_TE = torch.zeros(T, 8, dtype=torch.bool).scatter_(1, used_TK, True)

    out_TD, routing = layer(x_TD, replay_TK)
    expected_TD = dense(layer, x_TD, is_used_TE)
    torch.testing.assert_close(out_TD, expected_TD, atol=1e-5, rtol=1e-5)
    assert torch.equal(routing.ids_TK, used_TK)
    assert torch.equal(routing.load_E, is_used_TE.sum(0))
    assert routing.num_other == int((chosen_TK != other_TK).any(-1)[is_given_T].sum())
    assert 0 < routing.num_other <= T // 2

    wanted = [x_TD, *layer.parameters()]
    direction_TD = torch.randn(T, D, generator=generator)
    found = torch.autograd.grad((out_TD * direction_TD).sum(), wanted)
    by_mask = torch.autograd.grad((expected_TD * direction_TD).sum(), wanted)
    for a, b in zip(found, by_mask, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5 * float(b.abs().max()), rtol=1e-4)


def test_replaying_what_the_router_chooses_is_the_routers_choice(layer: MoE) -> None:
    x_TD = torch.randn(T, D, generator=torch.Generator().manual_seed(1))
    own_TD, own = layer(x_TD)
    assert own.num_other is None
    for replay_TK in (own.ids_TK, torch.full_like(own.ids_TK, -1)):
        again_TD, again = layer(x_TD, replay_TK)
        assert torch.equal(again_TD, own_TD)
        assert again.num_other == 0


@pytest.mark.parametrize("checkpoint", [False, True])
def test_layers_say_how_many_tokens_they_would_have_routed_otherwise(checkpoint: bool) -> None:
    """In the last layer alone the bias differs: those before agree."""
    model, tokens_T = tiny_model(k2_config()), random_tokens(30, 96)
    ids_LTK = run(model, tokens_T, [12, 18]).expert_ids_LTK
    assert ids_LTK is not None
    model.layers[2].ffn.router.bias.copy_(torch.arange(8) * 0.1)
    moved = run(model, tokens_T, [12, 18])
    assert moved.num_other_L is None
    assert moved.expert_ids_LTK is not None
    differing = int((moved.expert_ids_LTK[1] != ids_LTK[1]).any(-1).sum())
    assert differing > 0
    replayed = run(model, tokens_T, [12, 18], replay_LTK=ids_LTK, checkpoint=checkpoint)
    assert replayed.num_other_L is not None
    assert replayed.num_other_L.tolist() == [0, differing]
