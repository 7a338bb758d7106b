"""Extra prediction layers: against a plain reference, on disk, and as a cached draft head.

The reference reads nothing but the named weights, in float64. Bounds in float32 as elsewhere:
hidden states within 1e-5 of values of order one, gradients within 1e-4, and what is cached within
1e-4 of what is not (see test_decode.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close
from transformers import AutoModelForCausalLM

from selenite.errors import CheckpointError, ConfigError
from selenite.model.config import ModelConfig
from selenite.model.decode import CachedModel, decode
from selenite.model.draft import Drafter
from selenite.model.hf_adapter import load_pretrained, save_pretrained
from selenite.model.hf_config import from_hf_config, to_hf_config
from selenite.model.lora import LoRAConfig, add_lora
from selenite.model.transformer import ModelOutput, Transformer
from selenite.ops.attention_context import AttentionContext, StatsRequest, packed_context
from selenite.types import SamplingParams
from tests.fixtures.tiny import k2_config, llama_config, random_tokens, tiny_model

Layout = Literal["latent", "expanded"]
LENGTHS = [9, 14, 1, 6]
VOCAB = 96


def nextn_config(depths: int = 2, **changes: object) -> ModelConfig:
    return k2_config(num_nextn_predict_layers=depths, **changes)


def depths_of(
    model: Transformer, tokens_T: Tensor, context: AttentionContext, checkpoint: bool = False
) -> list[ModelOutput]:
    """The model's output and those of all depths. Rows whose next token is of another document, or
    does not exist, get whatever comes: no other row sees them."""
    outputs = [model(tokens_T, context.positions_T, context, checkpoint=checkpoint)]
    for depth in range(1, len(model.nextn) + 1):
        outputs.append(
            model.predict_further(
                depth,
                outputs[-1].hidden_TD,
                tokens_T.roll(-depth),
                context.positions_T,
                context,
                checkpoint,
            )
        )
    return outputs


# --- against a reference


def norm(x: Tensor, gain: Tensor, eps: float) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * gain


def rotate(x_TH: Tensor, theta: float) -> Tensor:
    """Interleaved pairs of consecutive positions from 0 on."""
    pairs = torch.view_as_complex(x_TH.unflatten(-1, (-1, 2)).contiguous())
    count = pairs.shape[-1]
    frequency = theta ** -(torch.arange(count, dtype=torch.float64) / count)
    angle = torch.arange(len(x_TH), dtype=torch.float64)[:, None] * frequency
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angle), angle)).flatten(-2)


class PlainLayer:
    """The layer of ``depth`` over one document, written out from the weights' names."""

    def __init__(self, weights: dict[str, Tensor], config: ModelConfig, depth: int) -> None:
        self.weights, self.config, self.prefix = weights, config, f"nextn.{depth - 1}."

    def get(self, name: str) -> Tensor:
        return self.weights[self.prefix + name]

    def __call__(self, embedded_TD: Tensor, hidden_TD: Tensor) -> Tensor:
        eps = self.config.norm_eps
        embedded = norm(embedded_TD, self.get("embed_norm.weight"), eps)
        hidden = norm(hidden_TD, self.get("hidden_norm.weight"), eps)
        x = torch.cat([embedded, hidden], dim=1) @ self.get("project.weight").T
        x = x + self.attention(norm(x, self.get("block.attention_norm.weight"), eps))
        x = x + self.experts(norm(x, self.get("block.ffn_norm.weight"), eps))
        return norm(x, self.get("norm.weight"), eps)

    def attention(self, x: Tensor) -> Tensor:
        config = self.config
        nope, rope, wide = config.qk_nope_head_dim, config.qk_rope_head_dim, config.v_head_dim

        def project(name: str, y: Tensor) -> Tensor:
            return y @ self.get(f"block.attention.{name}.weight").T

        def latent(name: str, y: Tensor) -> Tensor:
            return norm(y, self.get(f"block.attention.{name}.weight"), config.lora_norm_eps)

        queries = project("q_b", latent("q_a_norm", project("q_a", x)))
        joint = project("kv_a", x)
        shared_key = rotate(joint[:, config.kv_lora_rank :], config.rope_theta)
        keys_values = project("kv_b", latent("kv_a_norm", joint[:, : config.kv_lora_rank]))
        mask = torch.ones(len(x), len(x), dtype=torch.bool).triu(1)
        heads = []
        for head in range(config.num_heads):
            q = queries[:, head * (nope + rope) : (head + 1) * (nope + rope)]
            kv = keys_values[:, head * (nope + wide) : (head + 1) * (nope + wide)]
            logits = q[:, :nope] @ kv[:, :nope].T
            logits = logits + rotate(q[:, nope:], config.rope_theta) @ shared_key.T
            logits = (logits * (nope + rope) ** -0.5).masked_fill(mask, -torch.inf)
            heads.append(logits.softmax(-1) @ kv[:, nope:])
        return project("o", torch.cat(heads, dim=1))

    def experts(self, x: Tensor) -> Tensor:
        moe = self.config.moe
        assert moe is not None

        def feed_forward(y: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
            return (F.silu(y @ gate.T) * (y @ up.T)) @ down.T

        parts = ("gate", "up", "down")
        routed = [self.get(f"block.ffn.experts.{part}") for part in parts]
        shared = [self.get(f"block.ffn.shared.{part}.weight") for part in parts]
        scores = (x @ self.get("block.ffn.router.weight").T).sigmoid()
        rows = []
        for row, score in zip(x, scores, strict=True):
            biased = score + self.get("block.ffn.router.bias")
            chosen = biased.topk(moe.experts_per_token).indices
            gates = score[chosen] / score[chosen].sum() * moe.routed_scaling_factor
            out = feed_forward(row, *shared)
            for gate, expert in zip(gates, chosen, strict=True):
                out = out + gate * feed_forward(row, *(weight[expert] for weight in routed))
            rows.append(out)
        return torch.stack(rows)


def test_layers_equal_a_plain_reference() -> None:
    model, tokens_T = tiny_model(nextn_config()), random_tokens(sum(LENGTHS), VOCAB)
    context = packed_context(LENGTHS)
    hidden_TD = model(tokens_T, context.positions_T, context).hidden_TD.detach().requires_grad_()
    weights = {
        name: tensor.detach().double().requires_grad_()
        for name, tensor in model.state_dict().items()
    }
    plain_TD = hidden_TD.detach().double().requires_grad_()

    found_TD, expected_TD, loss, expected_loss = hidden_TD, plain_TD, 0.0, 0.0
    for depth in (1, 2):
        next_T, target_T = tokens_T.roll(-depth), tokens_T.roll(-depth - 1)
        found_TD = model.predict_further(
            depth, found_TD, next_T, context.positions_T, context
        ).hidden_TD
        layer = PlainLayer(weights, model.config, depth)
        embedded = F.embedding(next_T, weights["embed.weight"])
        documents = zip(embedded.split(LENGTHS), expected_TD.split(LENGTHS), strict=True)
        expected_TD = torch.cat([layer(*document) for document in documents])
        assert found_TD.std() > 0.3
        assert_close(found_TD.double(), expected_TD, atol=1e-5, rtol=1e-5)
        loss += F.cross_entropy(model.logits(found_TD), target_T)
        expected_loss += F.cross_entropy(expected_TD @ weights["head.weight"].T, target_T)

    loss.backward()
    expected_loss.backward()
    assert_close(hidden_TD.grad.double(), plain_TD.grad, atol=1e-4, rtol=0)
    compared = 0
    for name, parameter in model.named_parameters():
        if name.startswith(("nextn.", "embed.", "head.")):
            assert weights[name].grad.abs().max() > 0, name
            assert_close(parameter.grad.double(), weights[name].grad, atol=1e-4, rtol=0, msg=name)
            compared += 1
    assert compared == 2 * (4 + 2 + 7 + 7) + 2  # of the layer, its norms, attention, experts


def test_rows_see_neither_the_future_nor_other_documents() -> None:
    """The exact gradient of one row of depth 2 by the hidden states and tokens that went in."""
    model, tokens_T = tiny_model(nextn_config()), random_tokens(12, VOCAB)
    context = packed_context([7, 5])
    embedded: list[Tensor] = []
    model.embed.register_forward_hook(lambda _m, _i, out: embedded.append(out))
    outputs = depths_of(model, tokens_T, context)
    inputs = [outputs[0].hidden_TD, embedded[1], embedded[2]]
    own = [False] * 7 + [True] * 3 + [False] * 2
    for gradient in torch.autograd.grad(outputs[2].hidden_TD[9].square().sum(), inputs):
        assert (gradient.abs().amax(1) > 0).tolist() == own


def test_recomputation_changes_nothing_and_statistics_are_of_the_layer() -> None:
    model, tokens_T = tiny_model(nextn_config()), random_tokens(sum(LENGTHS), VOCAB)
    context = packed_context(LENGTHS, StatsRequest("exact"))
    results = []
    for checkpoint in (False, True):
        model.zero_grad()
        outputs = depths_of(model, tokens_T, context, checkpoint)
        outputs[2].hidden_TD.square().mean().backward()
        results.append((outputs, {name: p.grad for name, p in model.named_parameters()}))
    (plain, gradients), (again, again_gradients) = results
    for out, same in zip(plain[1:], again[1:], strict=True):
        assert out.max_logit_LN.shape == (1, 4)
        assert out.expert_ids_LTK.shape == (1, sum(LENGTHS), 2)
        assert out.load_LE.tolist() == [out.expert_ids_LTK.flatten().bincount(minlength=8).tolist()]
        assert out.num_other_L is same.num_other_L is None
        for name in ("hidden_TD", "max_logit_LN", "expert_ids_LTK", "load_LE"):
            assert torch.equal(getattr(out, name), getattr(same, name)), name
    for name, gradient in gradients.items():
        if name != "head.weight":
            assert torch.equal(gradient, again_gradients[name]), name


def test_the_main_model_is_the_one_without() -> None:
    """The same initial weights from the same seed, and the same output."""
    bare, model = tiny_model(k2_config()), tiny_model(nextn_config())
    state = bare.state_dict()
    from_seed = {n: p for n, p in model.named_parameters() if p.dim() > 1 and n in state}
    assert all(torch.equal(parameter, state[name]) for name, parameter in from_seed.items())
    model.load_state_dict(state, strict=False)
    tokens_T, context = random_tokens(20, VOCAB), packed_context([20])
    one, other = (m(tokens_T, context.positions_T, context) for m in (bare, model))
    assert torch.equal(one.hidden_TD, other.hidden_TD)


def test_configs_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="extra prediction layers belong to attention='mla'"):
        llama_config(num_nextn_predict_layers=1)
    with pytest.raises(ValueError, match="the last layer has none; set moe"):
        nextn_config(moe=None)
    dense = k2_config().moe.model_copy(update={"first_dense_layers": 3})
    with pytest.raises(ValueError, match="first_dense_layers below num_layers=3"):
        nextn_config(moe=dense.model_dump())


# --- on disk


COPIES = [
    f"model.layers.{layer}.{name}.weight"
    for layer in (3, 4)
    for name in ("embed_tokens", "shared_head.head")
]


def saved(directory: Path, without: list[str], **changes: Tensor) -> dict[str, Tensor]:
    """Writes a tiny model with two extra layers, some tensors left out or changed."""
    save_pretrained(tiny_model(nextn_config()), directory)
    tensors = load_file(directory / "model.safetensors")
    for name in without:
        del tensors[name]
    tensors |= changes
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    return tensors


def test_names_are_the_published_ones(tmp_path: Path) -> None:
    tensors = saved(tmp_path, [])
    model = load_pretrained(tmp_path)
    layer = {
        name.removeprefix("model.layers.4."): tensor
        for name, tensor in tensors.items()
        if name.startswith("model.layers.4.")
    }
    before = {name.removeprefix("model.layers.2.") for name in tensors if ".layers.2." in name}
    extra = {"enorm", "hnorm", "eh_proj", "shared_head.norm", "shared_head.head", "embed_tokens"}
    assert layer.keys() == before | {f"{name}.weight" for name in extra}
    own = model.nextn[1]
    assert torch.equal(layer["enorm.weight"], own.embed_norm.weight)
    assert torch.equal(layer["hnorm.weight"], own.hidden_norm.weight)
    assert torch.equal(layer["eh_proj.weight"], own.project.weight)
    assert torch.equal(layer["shared_head.norm.weight"], own.norm.weight)
    assert torch.equal(layer["mlp.gate.weight"], own.block.ffn.router.weight)
    assert layer["eh_proj.weight"].shape == (64, 128)


@pytest.mark.parametrize("without", [[], COPIES, COPIES[1:3]], ids=["all", "none", "some"])
def test_round_trip_with_and_without_the_copies(tmp_path: Path, without: list[str]) -> None:
    """What is written again has them all, and the same bytes as what was read."""
    before = saved(tmp_path / "before", without)
    model = load_pretrained(tmp_path / "before")
    assert model.config == nextn_config()
    save_pretrained(model, tmp_path / "after")
    after = load_file(tmp_path / "after" / "model.safetensors")
    assert after.keys() == before.keys() | set(COPIES)
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]), name
    if not without:
        files = [tmp_path / name / "model.safetensors" for name in ("before", "after")]
        contents = [file.read_bytes() for file in files]
        weights = [x[8 + int.from_bytes(x[:8], "little") :] for x in contents]  # behind the headers
        assert weights[0] == weights[1]
    for copy in COPIES:
        main = "model.embed_tokens.weight" if "embed" in copy else "lm_head.weight"
        assert torch.equal(after[copy], after[main])


@pytest.mark.parametrize("copy", COPIES)
@pytest.mark.parametrize("shape", ["same", "other"])
def test_copies_that_differ_are_refused(tmp_path: Path, copy: str, shape: str) -> None:
    tensor = torch.zeros(96, 64) if shape == "same" else torch.zeros(95, 64)
    saved(tmp_path, [], **{copy: tensor})
    main = "model.embed_tokens.weight" if "embed" in copy else "lm_head.weight"
    with pytest.raises(CheckpointError, match=f"{copy} differs from {main}"):
        load_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["eh_proj", "shared_head.norm", "mlp.experts.5.up_proj"])
def test_a_missing_tensor_is_named(tmp_path: Path, name: str) -> None:
    saved(tmp_path, [f"model.layers.4.{name}.weight"])
    with pytest.raises(CheckpointError, match=rf"1 missing: model.layers.4.{name}.weight"):
        load_pretrained(tmp_path)


def test_a_tied_model_goes_through_a_directory(tmp_path: Path) -> None:
    model = tiny_model(nextn_config(1, tie_embeddings=True))
    save_pretrained(model, tmp_path)
    back = load_pretrained(tmp_path)
    assert back.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(t, back.state_dict()[name]) for name, t in model.state_dict().items())


def test_transformers_reads_the_directory_and_leaves_the_extra_layers_out(tmp_path: Path) -> None:
    model = tiny_model(nextn_config())
    save_pretrained(model, tmp_path)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager")
    assert theirs.config.num_nextn_predict_layers == 2
    tokens_T, context = random_tokens(20, VOCAB), packed_context([20])
    logits_TV = model.logits(model(tokens_T, context.positions_T, context).hidden_TD)
    assert_close(logits_TV, theirs(tokens_T[None]).logits[0], atol=1e-5, rtol=1e-5)


def test_config_json() -> None:
    hf = to_hf_config(nextn_config(1))
    assert hf["num_nextn_predict_layers"] == 1
    assert from_hf_config(hf) == nextn_config(1)
    assert to_hf_config(k2_config())["num_nextn_predict_layers"] == 0
    del hf["num_nextn_predict_layers"]
    assert from_hf_config(hf) == k2_config()
    with pytest.raises(CheckpointError, match="num_nextn_predict_layers=1: extra prediction"):
        from_hf_config(to_hf_config(llama_config()) | {"num_nextn_predict_layers": 1})


# --- as a draft head


class Spy:
    """Keeps the last row of all logits that a model computes."""

    def __init__(self, model: Transformer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows: list[Tensor] = []
        plain = model.logits

        def logits(hidden_TD: Tensor) -> Tensor:
            logits_TV = plain(hidden_TD)
            self.rows.append(logits_TV[-1].detach())
            return logits_TV

        monkeypatch.setattr(model, "logits", logits)

    def take(self) -> Tensor:
        taken, self.rows = torch.stack(self.rows), []
        return taken


@torch.no_grad()
def packed_drafts(model: Transformer, text: list[int], count: int) -> tuple[list[int], Tensor]:
    """Drafts after ``text``, whose last token is not yet read, each by passes over all of it."""
    drafts: list[int] = []
    logits: list[Tensor] = []
    length, context = len(text) - 1, packed_context([len(text) - 1])
    hidden_TD = model(torch.tensor(text[:-1]), context.positions_T, context).hidden_TD
    layers = len(model.nextn)
    for depth in range(1, layers + 1):
        before_TD = hidden_TD  # what the last layer reads
        next_T = torch.tensor((text + drafts)[depth : depth + length])
        hidden_TD = model.predict_further(
            depth, hidden_TD, next_T, context.positions_T, context
        ).hidden_TD
        logits.append(model.logits(hidden_TD[-1:])[0])
        drafts.append(int(logits[-1].argmax()))
    while len(drafts) < count:  # the last layer on its own hidden states, one row longer each time
        before_TD = torch.cat((before_TD, hidden_TD[-1:]))
        context = packed_context([len(before_TD)])
        next_T = torch.tensor((text + drafts)[layers : layers + len(before_TD)])
        hidden_TD = model.predict_further(
            layers, before_TD, next_T, context.positions_T, context
        ).hidden_TD
        logits.append(model.logits(hidden_TD[-1:])[0])
        drafts.append(int(logits[-1].argmax()))
    return drafts, torch.stack(logits)


@pytest.mark.parametrize("layout", ["latent", "expanded"])
@pytest.mark.parametrize(("layers", "count"), [(1, 1), (1, 3), (2, 2), (2, 4), (3, 3)])
def test_cached_drafts_equal_packed_ones(
    layers: int, count: int, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two sequences fed by turns, in pieces of one token and more, drafts asked for after some."""
    model = tiny_model(nextn_config(layers))
    texts = [random_tokens(24, VOCAB, seed).tolist() for seed in (1, 2)]
    drafter = Drafter(CachedModel(model, 2, 32, layout))
    spy = Spy(model, monkeypatch)
    fed = [0, 0]
    for sizes, asked in [((5, 1), True), ((1, 2), True), ((3, 4), False), ((1, 1), True)] * 2:
        new = {i: texts[i][fed[i] : fed[i] + size] for i, size in enumerate(sizes)}
        drafter.extend(new)
        fed = [fed[i] + size for i, size in enumerate(sizes)]
        for i in range(2 if asked else 0):
            found = drafter.propose(i, texts[i][fed[i]], count)
            found_logits = spy.take()
            expected, expected_logits = packed_drafts(model, texts[i][: fed[i] + 1], count)
            spy.take()
            assert found == expected
            assert_close(found_logits, expected_logits, atol=1e-4, rtol=1e-4)


def test_a_proposal_can_be_asked_again_for_another_token() -> None:
    model = tiny_model(nextn_config(2))
    text = random_tokens(10, VOCAB).tolist()
    drafter = Drafter(CachedModel(model, 1, 16))
    drafter.extend({0: text})
    for token in (5, 6, 5):
        assert drafter.propose(0, token, 2) == packed_drafts(model, [*text, token], 2)[0]


def test_tokens_taken_back_leave_no_trace() -> None:
    """Also when others are fed in their place before drafts are asked for."""
    model = tiny_model(nextn_config(2))
    text = random_tokens(12, VOCAB).tolist()
    cached = CachedModel(model, 1, 20)
    drafter = Drafter(cached)
    drafter.extend({0: text[:8]})
    drafter.propose(0, text[8], 3)
    drafter.extend({0: [1, 2, 3, 4]})
    cached.lengths[0] = 8
    drafter.extend({0: text[8:11]})
    assert drafter.propose(0, text[11], 3) == packed_drafts(model, text, 3)[0]


def test_drafts_end_where_the_cache_does() -> None:
    model = tiny_model(nextn_config(1))
    drafter = Drafter(CachedModel(model, 1, 8))
    drafter.extend({0: [1, 2, 3, 4, 5]})
    assert len(drafter.propose(0, 6, 9)) == 2  # the sequence has room for tokens 5, 6 and 7
    drafter.extend({0: [6, 7]})
    assert drafter.propose(0, 8, 9) == []


@pytest.mark.parametrize("layers", [1, 2])
def test_verified_drafts_give_the_greedy_continuation(layers: int) -> None:
    """Speculative decoding by hand: rejected drafts are taken back, and leave no trace."""
    model, prompt, wanted = tiny_model(nextn_config(layers)), [3, 1, 4], 30
    [greedy] = decode(model, [prompt], [SamplingParams(temperature=0, max_tokens=wanted)])
    cached = CachedModel(model, 1, 40)
    drafter = Drafter(cached)
    [*_, token] = model.logits(drafter.extend({0: prompt})).argmax(-1).tolist()
    text, rejected = [token], 0
    while len(text) < wanted:
        drafts = drafter.propose(0, text[-1], 3)
        start = cached.lengths[0]
        choices = model.logits(drafter.extend({0: [text[-1], *drafts]})).argmax(-1).tolist()
        accepted = 0
        while accepted < len(drafts) and drafts[accepted] == choices[accepted]:
            accepted += 1
        rejected += len(drafts) - accepted
        text += choices[: accepted + 1]
        cached.lengths[0] = start + accepted + 1
    assert text[:wanted] == greedy.token_ids
    assert rejected > 0


def test_a_model_without_the_layers_cannot_draft() -> None:
    with pytest.raises(ConfigError, match="no extra prediction layer to draft with"):
        Drafter(CachedModel(tiny_model(k2_config()), 1, 8))


def test_adapters_leave_the_extra_layers_alone() -> None:
    model = add_lora(tiny_model(nextn_config(1)), LoRAConfig(rank=4), seed=0)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trained
    assert not any(name.startswith("nextn") for name in trained)
