"""Models whose rows choose blocks of keys (MoBA): configs, files, training, cached steps, and both
to the same bits.

Tolerance of 1e-4 in float32: three layers whose states are of order ten. Seeds are fixed, and no
choice is so close that rounding decides it (``tests/fixtures/moba_model.py``).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.testing import assert_close

import selenite.model.attention
from selenite.errors import CheckpointError
from selenite.model.config import MobaConfig, ModelConfig
from selenite.model.decode import CachedModel
from selenite.model.hf_adapter import load_pretrained, read_config, save_pretrained
from selenite.model.transformer import ModelOutput, Transformer
from selenite.ops.attention import attend_reference
from selenite.ops.attention_context import BlockRouting, StatsRequest, packed_context
from selenite.ops.logprobs import token_logprobs
from tests.fixtures.moba_model import CHUNKS, MOBA, documents, fed, packed
from tests.fixtures.tiny import k2_config, llama_config, random_tokens, tiny_model

ROOT = Path(__file__).parents[2]
CLOSE = {"atol": 1e-4, "rtol": 1e-4}
SMALL: dict[str, Any] = {"block_size": 8, "top_k": 2}
CONFIGS = [
    pytest.param(llama_config(moba=SMALL), id="gqa"),
    pytest.param(
        llama_config(moba=SMALL | {"top_k": 3, "share": "group", "sink": True}), id="gqa, group"
    ),
    pytest.param(k2_config(moba=SMALL | {"full_layers": [1]}), id="mla"),
    pytest.param(k2_config(moba=SMALL | {"share": "group"}), id="mla, group"),
]
configs = pytest.mark.parametrize("config", CONFIGS)


# --- configs and files


@pytest.mark.parametrize(
    ("moba", "message"),
    [
        ({"block_size": 0}, r"(?s)block_size.*greater than 0.*input_value=0"),
        ({"top_k": 0}, r"(?s)top_k.*greater than 0.*input_value=0"),
        ({"top_k": 1, "sink": True}, "top_k=1: .*sink are two; take at least 2, or sink=false"),
        ({"share": "layer"}, r"(?s)share.*'head' or 'group'.*input_value='layer'"),
        ({"full_layers": [0, 2]}, "full_layers has 2, of 2 layers; they are counted from 0, or fr"),
        ({"full_layers": [-3]}, "full_layers has -3, of 2 layers; they are counted from 0"),
        ({"blocks": 3}, r"(?s)moba.blocks.*Extra inputs are not permitted"),
    ],
)
def test_refused(moba: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        llama_config(moba=SMALL | moba)


@pytest.mark.parametrize("missing", ["block_size", "top_k"])
def test_no_default_for_what_a_checkpoint_was_trained_with(missing: str) -> None:
    moba = {name: value for name, value in SMALL.items() if name != missing}
    with pytest.raises(ValidationError, match=rf"moba\.{missing}\s+Field required"):
        llama_config(moba=moba)


def test_routing_of_a_config() -> None:
    """A group is what reads the same cached keys: of a key/value head, or with latent attention
    all heads."""
    group = {"share": "group", "sink": True, "full_layers": [0, -1]}
    assert llama_config().routing() is None
    assert llama_config(moba=SMALL).routing() == BlockRouting(8, 2)
    layers = (0, 1)
    assert llama_config(moba=SMALL | group).routing() == BlockRouting(8, 2, True, 2, layers)
    layers = (0, 2)
    assert k2_config(moba=SMALL | group).routing() == BlockRouting(8, 2, True, 4, layers)
    given = MobaConfig(block_size=4, top_k=3)
    assert llama_config(moba=SMALL).routing(given) == BlockRouting(4, 3)
    assert llama_config().routing(given) == BlockRouting(4, 3)


@pytest.mark.parametrize("make", [llama_config, k2_config])
def test_a_directory_keeps_it(make: Any, tmp_path: Path) -> None:
    config = make(moba=SMALL | {"share": "group", "sink": True, "full_layers": [0, -1]})
    model = tiny_model(config)
    save_pretrained(model, tmp_path)
    assert read_config(tmp_path).moba == config.moba
    loaded = load_pretrained(tmp_path)
    assert loaded.config.moba == config.moba
    tokens_T = random_tokens(40, 96)
    assert torch.equal(run(loaded, tokens_T, [40]).hidden_TD, run(model, tokens_T, [40]).hidden_TD)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["moba"]["top_k"] == 2
    written["moba"]["top_k"] = -5
    (tmp_path / "config.json").write_text(json.dumps(written))
    with pytest.raises(CheckpointError, match=r"(?s)config\.json.*moba\.top_k.*greater than 0"):
        read_config(tmp_path)


@pytest.mark.parametrize("make", [llama_config, k2_config])
def test_a_directory_without_it_reads_everything(make: Any, tmp_path: Path) -> None:
    save_pretrained(tiny_model(make()), tmp_path)
    assert read_config(tmp_path).moba is None
    chosen = load_pretrained(tmp_path, config=make(moba=SMALL))  # the same weights serve both
    assert chosen.config.moba == MobaConfig(**SMALL)


# --- training


def run(model: Transformer, tokens_T: Tensor, lengths: list[int], **options: Any) -> ModelOutput:
    context = packed_context(lengths, StatsRequest("exact"))
    return model(tokens_T, context.positions_T, context, **options)


def without(config: ModelConfig) -> ModelConfig:
    return config.model_copy(update={"moba": None})


@configs
def test_a_context_may_ask_for_full_attention(config: ModelConfig) -> None:
    """The same as in a model without it, which has the same weights."""
    model, plain = tiny_model(config), tiny_model(without(config))
    assert all(map(torch.equal, model.state_dict().values(), plain.state_dict().values()))
    texts = documents(config.vocab_size)[1:]
    full = packed(model, texts, (None, None))
    assert all(map(torch.equal, full, packed(plain, texts)))
    assert not torch.equal(packed(model, texts)[0], full[0])
    asked = packed(plain, texts, (config.routing(),) * 2)  # and the other way about
    assert all(map(torch.equal, asked, packed(model, texts)))


@configs
def test_sequences_may_differ(config: ModelConfig) -> None:
    """One as the model does, one that reads everything: as each by itself."""
    model, texts = tiny_model(config), documents(config.vocab_size)[1:]
    mixed = packed(model, texts, (config.routing(), None))
    assert_close(mixed[0], packed(model, texts[:1])[0], **CLOSE)
    assert_close(mixed[1], packed(model, texts[1:], (None,))[0], **CLOSE)


@configs
def test_short_documents_are_read_whole(config: ModelConfig) -> None:
    """Of as many blocks as a row reads; a longer one is not."""
    model, plain = tiny_model(config), tiny_model(without(config))
    texts = [random_tokens(length, config.vocab_size, length) for length in (16, 3, 9, 30)]
    found, full = packed(model, texts), packed(plain, texts)
    for text, ours, theirs in zip(texts, found, full, strict=True):
        assert_close(ours[:16], theirs[:16], **CLOSE)
        assert len(text) <= 16 or (ours[16:] - theirs[16:]).abs().max() > 0.1


@pytest.mark.parametrize(
    ("full_layers", "sees_all"),
    [((), False), ((0,), False), ((-1,), False), ((0, -1), True), ((-2, 1), True)],
)
def test_full_layers(full_layers: tuple[int, ...], sees_all: bool) -> None:
    """With all of them full it is a model without it; with one it is neither that nor the other."""
    config = llama_config(moba=SMALL | {"full_layers": full_layers})
    tokens_T = random_tokens(60, 96)
    found = run(tiny_model(config), tokens_T, [60]).hidden_TD
    full = run(tiny_model(without(config)), tokens_T, [60]).hidden_TD
    assert torch.equal(found, full) == sees_all
    none = run(tiny_model(llama_config(moba=SMALL)), tokens_T, [60]).hidden_TD
    assert torch.equal(found, none) == (not full_layers)


@pytest.mark.parametrize("full_layer", [0, 1])
def test_the_full_layer_is_the_one_that_is_named(full_layer: int) -> None:
    """What reaches a row in the first layer alone: with a second one that lets nothing through."""
    model = tiny_model(
        llama_config(moba={"block_size": 8, "top_k": 1, "full_layers": [full_layer]})
    )
    with torch.no_grad():
        model.layers[1 - full_layer].attention.o.weight.zero_()
    rows: list[Tensor] = []
    model.embed.register_forward_hook(lambda _m, _i, out: rows.append(out))
    hidden_TD = run(model, random_tokens(20, 96), [20]).hidden_TD
    (gradient,) = torch.autograd.grad(hidden_TD[19].square().sum(), rows[0])
    assert (gradient.abs().amax(1) > 0).all()
    with torch.no_grad():
        model.layers[1 - full_layer].attention.o.weight.normal_()
        model.layers[full_layer].attention.o.weight.zero_()
    hidden_TD = run(model, random_tokens(20, 96), [20]).hidden_TD
    (gradient,) = torch.autograd.grad(hidden_TD[19].square().sum(), rows[1])
    assert (gradient.abs().amax(1) > 0).tolist() == [False] * 16 + [True] * 4


@configs
def test_the_model_on_the_reference(config: ModelConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """States, gradients and the statistic of QK-Clip: exact, and the bound not below it."""
    model, tokens_T = tiny_model(config), random_tokens(90, config.vocab_size, 3)
    results = []
    for function in (selenite.model.attention.attend, attend_reference):
        monkeypatch.setattr(selenite.model.attention, "attend", function)
        model.zero_grad()
        out = run(model, tokens_T, [60, 30])
        loss = -token_logprobs(out.hidden_TD, model.head_weight, tokens_T.roll(-1)).mean()
        loss.backward()
        results.append((out, {name: p.grad for name, p in model.named_parameters()}))
    (found, ours), (expected, theirs) = results
    assert_close(found.hidden_TD, expected.hidden_TD, **CLOSE)
    assert found.max_logit_LN is not None
    assert found.max_logit_LN.shape == (config.num_layers, config.num_heads)
    assert_close(found.max_logit_LN, expected.max_logit_LN, **CLOSE)
    for name, gradient in theirs.items():
        assert gradient is not None, name
        largest = float(gradient.abs().max())
        assert_close(ours[name], gradient, rtol=0, atol=1e-4 * max(1.0, largest), msg=name)


@configs
def test_the_statistic_of_qk_clip_is_of_what_is_read(config: ModelConfig) -> None:
    """In the first layer, where states are the same, not above that of all keys; bounds hold."""
    model, plain = tiny_model(config), tiny_model(without(config))
    tokens_T = random_tokens(90, config.vocab_size)
    exact_LN = run(model, tokens_T, [60, 30]).max_logit_LN
    full_LN = run(plain, tokens_T, [60, 30]).max_logit_LN
    assert exact_LN is not None
    assert full_LN is not None
    assert (exact_LN[0] <= full_LN[0] + 1e-5).all()
    assert (exact_LN != full_LN).any()
    context = packed_context([60, 30], StatsRequest("bound"))
    bound_LN = model(tokens_T, context.positions_T, context).max_logit_LN
    assert bound_LN is not None
    assert (bound_LN >= exact_LN).all()
    assert (bound_LN <= exact_LN + torch.tensor(60.0).log()).all()
    context = packed_context([60, 30])
    assert model(tokens_T, context.positions_T, context).max_logit_LN is None


@configs
def test_recomputation_changes_nothing(config: ModelConfig) -> None:
    """Outputs, statistics and gradients to the last bit."""
    model, tokens_T = tiny_model(config), random_tokens(70, config.vocab_size)
    results = []
    for checkpoint in (False, True):
        model.zero_grad()
        out = run(model, tokens_T, [25, 45], checkpoint=checkpoint)
        logprobs = token_logprobs(out.hidden_TD, model.head_weight, tokens_T.roll(-1))
        (-logprobs.mean()).backward()
        results.append((out, {name: p.grad for name, p in model.named_parameters()}))
    (plain, plain_grads), (again, again_grads) = results
    assert torch.equal(plain.hidden_TD, again.hidden_TD)
    assert torch.equal(plain.max_logit_LN, again.max_logit_LN)  # type: ignore[arg-type]
    for name, gradient in plain_grads.items():
        assert gradient is not None, name
        assert torch.equal(gradient, again_grads[name]), name  # type: ignore[arg-type]


@configs
def test_bfloat16_trains(config: ModelConfig) -> None:
    """Gradients of attention's weights, near those in float32: states keep 8 bits, so that some
    rows choose otherwise and only the direction can be compared."""
    tokens_T = random_tokens(40, config.vocab_size)
    narrow = config.model_copy(update={"init_std": 0.05})
    grads = []
    for dtype in (torch.float32, torch.bfloat16):
        model = tiny_model(narrow, compute_dtype=dtype)
        out = run(model, tokens_T, [25, 15])
        (-token_logprobs(out.hidden_TD, model.head_weight, tokens_T.roll(-1)).mean()).backward()
        found = list[Tensor]()
        for name, parameter in model.named_parameters():
            if "attention" in name:
                assert parameter.grad is not None, name
                found.append(parameter.grad.flatten())
        grads.append(torch.cat(found))
    assert torch.nn.functional.cosine_similarity(grads[0], grads[1], dim=0) > 0.9


# --- cached steps


SERVED: list[tuple[str, ModelConfig, Literal["latent", "expanded"]]] = [
    ("gqa", llama_config(moba=MOBA | {"full_layers": [-1]}), "expanded"),
    (
        "gqa, group, sink",
        llama_config(moba=MOBA | {"top_k": 3, "share": "group", "sink": True}),
        "expanded",
    ),
    ("mla, expanded", k2_config(moba=MOBA), "expanded"),
    ("mla, latent", k2_config(moba=MOBA | {"full_layers": [0]}), "latent"),
    (
        "mla, group, latent",
        k2_config(moba=MOBA | {"top_k": 3, "share": "group", "sink": True}),
        "latent",
    ),
]
served = pytest.mark.parametrize(
    ("config", "layout"), [pytest.param(c, layout, id=name) for name, c, layout in SERVED]
)


@served
@pytest.mark.parametrize("how", list(CHUNKS))
def test_cached_steps_equal_the_packed_forward(
    config: ModelConfig, layout: Literal["latent", "expanded"], how: str
) -> None:
    """Documents side by side, in any chunks."""
    model, texts = tiny_model(config), documents(config.vocab_size)
    training = packed(model, texts)
    for ours, theirs in zip(fed(model, texts, CHUNKS[how], layout), training, strict=True):
        assert_close(ours, theirs, **CLOSE)
    full = packed(model, texts, (None,) * len(texts))[0]
    assert (full - training[0]).abs().max() > 0.1


@pytest.mark.parametrize("page_size", [5, 8, 32])
def test_pages_of_other_sizes(page_size: int) -> None:
    """Among them one of which blocks are not made."""
    model = tiny_model(llama_config(moba=MOBA))
    texts = documents(96)
    for ours, theirs in zip(
        fed(model, texts, [40, 1], page_size=page_size), packed(model, texts), strict=True
    ):
        assert_close(ours, theirs, **CLOSE)


@pytest.mark.parametrize("layout", ["latent", "expanded"])
def test_the_plain_decoder(layout: Literal["latent", "expanded"]) -> None:
    """It has one page for a sequence."""
    model = tiny_model(k2_config(moba=MOBA))
    texts = documents(96)[:2]
    decoder = CachedModel(model, 2, 100, layout)
    first = decoder.extend({0: texts[0][:70].tolist(), 1: texts[1][:39].tolist()})
    second = decoder.extend({1: texts[1][39:].tolist(), 0: texts[0][70:].tolist()})
    training = packed(model, texts)
    assert_close(torch.cat((first[:70], second[1:])), training[0], **CLOSE)
    assert_close(torch.cat((first[70:], second[:1])), training[1], **CLOSE)


@pytest.mark.skipif(
    not torch.backends.mkl.is_available(), reason="this torch has no MKL: the mode refuses"
)
def test_batch_invariant_steps_have_the_trainers_bits() -> None:
    """In a process of its own: MKL reads its switch once, at a process's first product."""
    done = subprocess.run(
        [sys.executable, "tests/fixtures/moba_model.py", "invariant"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "MKL_CBWR"}
        | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, float]] = json.loads(done.stdout)
    assert len(found) == 5
    for model, comparisons in found.items():
        assert comparisons.pop("full attention") > 0.1
        assert len(comparisons) == 3
        for name, largest in comparisons.items():
            assert largest == 0.0, f"{model}, {name}: differs by {largest}"
