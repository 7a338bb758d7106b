"""Requests whose decoding rows choose tokens (TidalDecode), beside others in one engine.

The oracle is the same request alone, in an engine whose attention is the plain reference.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from selenite.errors import ConfigError
from selenite.model import attention
from selenite.model.config import ModelConfig
from selenite.model.transformer import Transformer
from selenite.ops.attention import attend_reference
from selenite.serve.attention_mode import AnyMode, TidalAttention, read_mode, reading_of
from selenite.serve.engine.pooling import Pooler
from selenite.serve.engine.request import Request
from selenite.types import SamplingParams
from tests.fixtures.engines import made, run
from tests.fixtures.tiny import k2_config, llama_config, tiny_model

VOCABULARY = 96
LAYERS = 5
FULL = read_mode("full")


def tidal(budget: int = 12, **more: Any) -> TidalAttention:
    return TidalAttention(mode="tidal", budget=budget, **{"layers": [1, 3], "sinks": 1, **more})


SHARED, OF_HEADS, OF_GROUPS = tidal(), tidal(8, share="head"), tidal(16, share="group", recent=8)


@pytest.fixture(scope="module", params=["k2", "llama"])
def model(request: pytest.FixtureRequest) -> Transformer:
    config = k2_config() if request.param == "k2" else llama_config()
    return tiny_model(ModelConfig.model_validate({**config.model_dump(), "num_layers": LAYERS}))


def asked(number: int, mode: AnyMode | None, max_tokens: int = 16, **more: Any) -> Request:
    """Greedy, after a prompt of 20 to 80 tokens that shares its beginning with the others'."""
    base = [random.Random(0).randrange(VOCABULARY) for _ in range(60)]
    rng = random.Random(number + 1)
    own = [rng.randrange(VOCABULARY) for _ in range(rng.randrange(4, 20))]
    prompt = (*base[: rng.choice([16, 40, 60])], *own)
    params = SamplingParams(temperature=0, max_tokens=max_tokens, ignore_eos=True)
    return Request(str(number), prompt, params, attention=mode, **more)


def workload(model: Transformer) -> list[Request]:
    """Eight of all modes; latent attention has no groups of heads."""
    third = SHARED if model.config.attention == "mla" else OF_GROUPS
    modes = (FULL, SHARED, OF_HEADS, third)
    return [asked(number, modes[number % 4], 6 + number) for number in range(8)]


@pytest.fixture(scope="module")
def continued(model: Transformer) -> list[list[int]]:
    """The workload, each request alone, by the reference."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "attend", attend_reference)
        return [run(made(model), [request])[0] for request in workload(model)]


def test_modes_are_not_the_same(model: Transformer, continued: list[list[int]]) -> None:
    full = [run(made(model), [asked(n, FULL, 6 + n)])[0] for n in range(8)]
    assert sum(a != b for a, b in zip(full, continued, strict=True)) >= 3


@pytest.mark.parametrize("layout", ["latent", "expanded"])
@pytest.mark.parametrize(("page_size", "max_step_tokens"), [(4, 512), (16, 7), (1, 64)])
def test_each_is_as_if_alone(
    model: Transformer,
    continued: list[list[int]],
    layout: str,
    page_size: int,
    max_step_tokens: int,
) -> None:
    """Chunked prompts, shared prefixes, pages of any size, other modes in the same step."""
    pages = 2000 // page_size
    engine = made(
        model, num_pages=pages, page_size=page_size, max_step_tokens=max_step_tokens, layout=layout
    )
    assert run(engine, workload(model)) == continued
    assert engine.scheduler.num_preemptions == 0
    again = workload(model)
    assert run(engine, again) == continued
    assert all(request.cached >= len(request.prompt) - 1 - page_size for request in again)


def test_a_budget_that_is_never_reached_changes_nothing(model: Transformer) -> None:
    """To the bit: the log-probabilities are the same."""
    found = []
    for mode in (FULL, tidal(100), None):
        request = asked(3, mode)
        request.params = SamplingParams(temperature=0, max_tokens=16, logprobs=0, ignore_eos=True)
        run(made(model), [request])
        found.append([token.sampled_logprob for token in request.completion])
        assert request.clean == request.computed
    assert found[0] == found[1] == found[2]


def test_pages_of_rows_that_chose_are_nobody_else_s(model: Transformer) -> None:
    """What comes after a reply finds the prompt's pages, and none of the reply's."""
    engine = made(model)
    first = asked(5, SHARED, 24)
    (said,) = run(engine, [first])
    assert first.clean == len(first.prompt) < first.computed
    prompt = (*first.prompt, *said, 7, 8)
    params = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
    later = Request("later", prompt, params, attention=FULL)
    found = run(engine, [later])
    assert later.cached == len(first.prompt) // 4 * 4
    assert found == run(made(model), [Request("new", prompt, params, attention=FULL)])
    # A reply that read everything is found, in the same engine.
    whole = asked(6, FULL, 24)
    (said,) = run(engine, [whole])
    after = Request("after", (*whole.prompt, *said, 7, 8), params, attention=SHARED)
    run(engine, [after])
    assert after.cached >= len(whole.prompt) + 20


@pytest.mark.parametrize("every", [1, 5, 64])
def test_corrected_entries_are_those_of_a_prompt(model: Transformer, every: int) -> None:
    """After each correction all entries are what reading everything makes of the same tokens."""
    engine = made(model, max_step_tokens=9)
    request = asked(5, tidal(correct_every=every), 40)
    engine.add(request)
    corrections = 0
    while engine.has_work():
        before = request.clean
        engine.step()
        engine.check_integrity()
        assert request.computed - request.clean <= every
        if request.clean > max(before, len(request.prompt)) and request.clean == request.computed:
            corrections += 1
            other = made(model)
            tokens = tuple(request.tokens[: request.clean])
            dense = Request("dense", tokens, SamplingParams(max_tokens=1), attention=FULL)
            other.add(dense)
            other.scheduler.advance(chunks := other.scheduler.schedule())
            other.runner.run(chunks)
            for layer in range(LAYERS):
                stored = engine.runner.entries.read(layer), other.runner.entries.read(layer)
                for ours, theirs in zip(*stored, strict=True):
                    places = [_slots(one, request.clean, 4) for one in (request, dense)]
                    assert_close(ours[places[0]], theirs[places[1]], atol=1e-5, rtol=1e-5)
        if request.finish_reason is not None:
            break
    assert corrections == (0 if every == 64 else (39 - 1) // (every + 1))


def _slots(request: Request, count: int, page_size: int) -> torch.Tensor:
    return torch.tensor(
        [request.pages[i // page_size] * page_size + i % page_size for i in range(count)]
    )


def test_after_a_correction_pages_are_shared(model: Transformer) -> None:
    engine = made(model)
    first = asked(5, tidal(correct_every=8), 30)
    (said,) = run(engine, [first])
    assert len(first.prompt) + 16 <= first.clean
    params = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)
    later = Request("later", (*first.prompt, *said, 7, 8), params, attention=FULL)
    run(engine, [later])
    assert later.cached == first.clean // 4 * 4


def test_who_loses_pages_goes_on(model: Transformer) -> None:
    """What is computed again was read whole, so that replies may differ from those alone; they come
    to their ends, and no page is lost."""
    engine = made(model, num_pages=30, max_running=4)
    requests = workload(model)
    found = run(engine, requests)
    assert engine.scheduler.num_preemptions > 0
    assert [len(own) for own in found] == [request.params.max_tokens for request in requests]


def test_asleep_and_with_other_weights(model: Transformer) -> None:
    """Entries that rows with a choice left become those of a prompt."""
    engine = made(model)
    request = asked(5, SHARED, 30)
    engine.add(request)
    for disturb in (
        lambda: (engine.sleep(), engine.wake()),
        lambda: engine.swap_weights(model, 1, "keep"),
        lambda: engine.swap_weights(model, 2, "recompute"),
    ):
        for _ in range(4):
            engine.step()
        disturb()
        engine.check_integrity()
    before = len(request.completion)
    assert 6 <= before < 30
    run(engine, [])
    assert len(request.completion) == 30
    # The first token after is that of the text so far, which all layers read whole.
    so_far = Request("", request.tokens[: len(request.prompt) + before], asked(5, FULL, 1).params)
    assert run(made(model), [so_far])[0] == [request.completion[before].token_id]


def test_a_grammar_holds(model: Transformer) -> None:
    class Even:
        def allowed_V(self) -> np.ndarray:
            return np.arange(VOCABULARY) % 2 == 0

        def accept(self, token_id: int) -> None:
            assert token_id % 2 == 0

        @property
        def is_complete(self) -> bool:
            return False

    request = asked(5, SHARED, 20, grammar=Even())
    (found,) = run(made(model), [request])
    assert len(found) == 20
    assert not any(token % 2 for token in found)


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        (tidal(layers=[1, LAYERS]), "layers 0 to 4; leave 5 out"),
        (tidal(layers=[-LAYERS - 1]), "leave -6 out"),
        (tidal(8, sinks=6, recent=3), "6 sinks and 3 recent tokens are more than budget=8"),
        (tidal(3, sinks=4), "4 sinks and 1 recent"),
        (tidal(8, sinks=None, recent=7), "2 sinks and 7 recent"),
    ],
)
def test_a_mode_that_cannot_be_is_named(
    model: Transformer, mode: TidalAttention, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        made(model).add(asked(0, mode))
    with pytest.raises(ConfigError, match=message):
        made(model, attention=mode)


def test_an_embedding_has_no_row_that_decodes(model: Transformer) -> None:
    with pytest.raises(ConfigError, match="an embedding has none"):
        made(model).add(asked(0, SHARED, pooler=Pooler("last")))
    request = asked(0, None, pooler=Pooler("last"))
    run(made(model, attention=SHARED), [request])  # a server's default is no wish of this request


def test_latent_attention_has_no_groups() -> None:
    with pytest.raises(ConfigError, match="take layer, or head"):
        reading_of(tidal(share="group", layers=None), k2_config(), 4)


def test_blocks_and_tokens_do_not_go_together(model: Transformer) -> None:
    config = ModelConfig.model_validate(
        {**model.config.model_dump(), "moba": {"block_size": 8, "top_k": 2}}
    )
    with pytest.raises(ConfigError, match="choose blocks"):
        reading_of(SHARED, config, 4)


def test_layers_that_nobody_named() -> None:
    """The third and the middle one, as far as a model has them; the last may be named from
    behind."""

    def layers(count: int, **more: Any) -> tuple[int, ...]:
        config = llama_config().model_copy(update={"num_layers": count})
        selection = reading_of(
            TidalAttention(mode="tidal", budget=64, **more), config, 16
        ).selection
        assert selection is not None
        return selection.layers

    assert layers(30) == (2, 14)
    assert layers(32) == (2, 15)
    assert [layers(count) for count in (1, 2, 3, 4, 8)] == [(0,), (1,), (2,), (2,), (2, 3)]
    assert layers(30, layers=[-1, 2]) == (2, 29)
