"""Decode steps from tapes: the same tokens and bits as steps by Python."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch

from selenite import log
from selenite.model.decode import decode
from selenite.ops import native
from selenite.ops.linear import FEW_ROWS
from selenite.serve.attention_mode import read_mode
from selenite.serve.engine.engine import Engine, EngineConfig
from selenite.serve.engine.recorded import RecordedDecode
from selenite.serve.engine.request import Request
from selenite.types import SamplingParams
from tests.fixtures.tiny import llama_config, tiny_model
from tests.serve.engine.test_engine import workload

# What our products serve, and what they do not.
SERVED, OTHER = torch.bfloat16, torch.float32
if native.instruction_set().value == "avx2":
    SERVED, OTHER = OTHER, SERVED
needs_kernel = pytest.mark.skipif(
    not native.is_available(), reason=f"no kernels here: {native.availability().reason}"
)
TIGHT = EngineConfig(num_pages=22, page_size=4, max_step_tokens=60, max_running=8)


def engine(config: EngineConfig = TIGHT) -> Engine:
    return Engine(tiny_model(llama_config()).cast(SERVED), config)


def deep(config: EngineConfig = TIGHT, num_layers: int = 5) -> Engine:
    """Layers enough for some to read what others chose."""
    return Engine(tiny_model(llama_config(num_layers=num_layers)).cast(SERVED), config)


def scored() -> list[Request]:
    return [
        Request(r.id, r.prompt, replace(r.params, logprobs=0), r.end_token_ids)
        for r in workload(10)
    ]


def run(engine: Engine, requests: list[Request]) -> list[list[tuple[int, float | None]]]:
    for request in requests:
        engine.add(request)
    while engine.has_work():
        engine.step()
        engine.check_integrity()
    return [[(token.token_id, token.logprob) for token in r.completion] for r in requests]


@needs_kernel
def test_bits_are_those_of_steps_by_python(monkeypatch: pytest.MonkeyPatch):
    played = engine()
    found = run(played, scored())
    assert played.scheduler.num_preemptions > 0
    assert len(played.runner._recorded._steps) >= 3
    monkeypatch.setattr(RecordedDecode, "logits", lambda *_: None)
    assert found == run(engine(), scored())


@needs_kernel
def test_merged_slots_are_played_to_the_bit(monkeypatch: pytest.MonkeyPatch):
    """Beside requests that keep theirs, and with new positions in old slots."""
    mode = read_mode('{"mode": "keepkv", "budget": 12, "window": 4, "every": 6, "likeness": 0.3}')

    def requests() -> list[Request]:
        return [
            Request(str(n), tuple(range(n, n + 40)), params, attention=mode if n % 3 else None)
            for n in range(5)
        ]

    params = SamplingParams(temperature=0, max_tokens=30, logprobs=0)
    roomy = replace(TIGHT, num_pages=100)
    played = engine(roomy)
    found = run(played, requests())
    assert any(kind.merges for kind in played.runner._recorded._steps)
    monkeypatch.setattr(RecordedDecode, "logits", lambda *_: None)
    by_python = engine(roomy)
    assert found == run(by_python, requests())


NARROW = read_mode('{"mode": "tidal", "budget": 14, "layers": [0, 2], "sinks": 1, "recent": 2}')


@needs_kernel
@pytest.mark.parametrize(
    "mode",
    [
        '{"mode": "tidal", "budget": 20, "layers": [0, 2]}',
        '{"mode": "tidal", "budget": 16, "layers": [0, 2], "sinks": 0, "recent": 1}',
        '{"mode": "tidal", "budget": 24, "layers": [0, 2], "drafts": 4}',
        '{"mode": "keepkv", "budget": 24, "window": 4, "every": 6, "likeness": 0.3}',
        '{"mode": "keepkv", "budget": 24, "window": 4, "every": 6, "likeness": 0.3,'
        ' "reading": {"mode": "tidal", "budget": 12, "layers": [0, 2]}}',
    ],
)
def test_chosen_tokens_are_played_to_the_bit(mode: str, monkeypatch: pytest.MonkeyPatch):
    """Beside requests that read everything, and with more tokens than a row may read or fewer."""

    def requests() -> list[Request]:
        return [
            Request(
                str(n),
                tuple(range(n, n + 6 + 9 * n)),
                params,
                attention=(None, read_mode(mode), NARROW)[n % 3],
            )
            for n in range(6)
        ]

    params = SamplingParams(temperature=0, max_tokens=30, logprobs=0)
    roomy = replace(TIGHT, num_pages=150)
    played = deep(roomy)
    found = run(played, requests())
    kinds = played.runner._recorded._steps
    assert any(kind.choosers for kind in kinds), kinds
    monkeypatch.setattr(RecordedDecode, "logits", lambda *_: None)
    assert found == run(deep(roomy), requests())
    everything = run(deep(roomy), [Request(r.id, r.prompt, r.params) for r in requests()])
    is_same = [
        [token for token, _ in one] == [token for token, _ in other]
        for one, other in zip(found, everything, strict=True)
    ]
    assert is_same[0]
    assert is_same[3]
    assert not is_same[5]
    assert (is_same[1] and is_same[4]) == ("drafts" in mode)


@needs_kernel
def test_short_contexts_share_the_tape_of_those_that_read_everything():
    mode = read_mode('{"mode": "tidal", "budget": 64, "layers": [0]}')
    params = SamplingParams(temperature=0, max_tokens=20)
    served = deep()
    run(served, [Request("a", (1, 2, 3), params, attention=mode)])
    [kind] = served.runner._recorded._steps
    assert not kind.choosers


@needs_kernel
def test_tapes_of_layers_that_requests_name_are_few():
    """The last ones: who names layers takes no tapes from the others for long."""
    served = deep(num_layers=7)
    params = SamplingParams(temperature=0, max_tokens=4)

    def choosers() -> set[tuple[int, ...]]:
        return {kind.choosers for kind in served.runner._recorded._steps if kind.choosers}

    for layer in (0, 1, 2, 3, 0, 4, 5):
        text = f'{{"mode": "tidal", "budget": 8, "layers": [{layer}]}}'
        run(served, [Request("a", tuple(range(20)), params, attention=read_mode(text))])
        assert (layer,) in choosers()
    assert choosers() == {(3,), (0,), (4,), (5,)}


@needs_kernel
@pytest.mark.parametrize(
    ("modes", "reason"),
    [
        (['{"mode": "tidal", "budget": 8, "layers": [0], "share": "head"}'], "heads choose"),
        (
            [
                '{"mode": "tidal", "budget": 8, "layers": [0]}',
                '{"mode": "tidal", "budget": 8, "layers": [1]}',
            ],
            "rows choose in different layers",
        ),
    ],
)
def test_choices_that_no_tape_holds_are_told(
    modes: list[str],
    reason: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(log, "_said", set())
    served = deep()
    params = SamplingParams(temperature=0, max_tokens=4)
    requests = [
        Request(str(n), tuple(range(20)), params, attention=read_mode(mode))
        for n, mode in enumerate(modes)
    ]
    with caplog.at_level(logging.INFO):
        run(served, requests)
    assert f"decode steps are not recorded where {reason}" in caplog.text
    assert all(not kind.choosers for kind in served.runner._recorded._steps)


@needs_kernel
def test_the_first_step_that_keeps_queries_is_recorded():
    """Though nothing is merged yet, and no slot has a bias."""
    served = engine(replace(TIGHT, num_pages=100))
    mode = read_mode('{"mode": "keepkv", "budget": 12, "window": 4, "every": 6}')
    params = SamplingParams(temperature=0, max_tokens=30)
    run(served, [Request("a", tuple(range(10)), params, attention=mode)])
    assert {kind.merges for kind in served.runner._recorded._steps} == {False, True}


@needs_kernel
def test_other_weights_and_a_cache_that_was_given_back_are_recorded_anew():
    served = engine()
    request = Request("a", (1, 2, 3), SamplingParams(temperature=0, max_tokens=12))
    served.add(request)
    for _ in range(4):
        served.step()
    served.sleep()
    served.wake()
    while request.finish_reason is None:
        served.step()
    again = Request("b", (1, 2, 3), SamplingParams(temperature=0, max_tokens=12))
    run(engine(), [again])
    assert [t.token_id for t in request.completion] == [t.token_id for t in again.completion]
    other = tiny_model(llama_config(), seed=1).cast(SERVED)
    served.swap_weights(other, 1, "recompute")
    swapped = Request("c", (1, 2, 3), SamplingParams(temperature=0, max_tokens=12))
    fresh = Request("d", (1, 2, 3), SamplingParams(temperature=0, max_tokens=12))
    run(served, [swapped])
    run(Engine(other, TIGHT), [fresh])
    assert [t.token_id for t in swapped.completion] == [t.token_id for t in fresh.completion]
    assert [t.token_id for t in swapped.completion] != [t.token_id for t in request.completion]


@needs_kernel
def test_more_sequences_than_products_serve_are_steps_by_python():
    room = {"num_pages": 4 * FEW_ROWS, "max_step_tokens": 4 * FEW_ROWS}
    served = engine(replace(TIGHT, **room, max_running=FEW_ROWS + 1))
    long, short = (SamplingParams(temperature=0, max_tokens=count) for count in (8, 4))
    requests = [Request(str(n), (1, 2, 3), long if n < 3 else short) for n in range(FEW_ROWS + 1)]
    run(served, requests)
    alone = Request("alone", (1, 2, 3), long)
    run(engine(), [alone])
    expected = [token.token_id for token in alone.completion]
    for request in requests:
        found = [token.token_id for token in request.completion]
        assert found == expected[: request.params.max_tokens]
    recorded = {kind.num_sequences for kind in served.runner._recorded._steps}
    assert recorded == ({3, FEW_ROWS + 1} if SERVED is torch.bfloat16 else {3})


@needs_kernel
def test_steps_go_on_from_tapes_where_weights_change_in_the_middle():
    served = engine()
    request = Request("a", (1, 2, 3), SamplingParams(temperature=0, max_tokens=12))
    served.add(request)
    for _ in range(4):
        served.step()
    served.swap_weights(tiny_model(llama_config(), seed=1).cast(SERVED), 1, "keep")
    served.step()
    assert len(served.runner._recorded._steps) == 1


def test_what_cannot_be_recorded_says_why_and_runs(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(log, "_said", set())
    model = tiny_model(llama_config()).cast(OTHER)
    requests = [Request("a", (1, 2, 3), SamplingParams(temperature=0, max_tokens=8))]
    with caplog.at_level(logging.INFO):
        run(Engine(model, TIGHT), requests)
    assert f"decode steps are not recorded: our products do not serve {OTHER}" in caplog.text
    [expected] = decode(model, [(1, 2, 3)], [requests[0].params])
    assert [token.token_id for token in requests[0].completion] == expected.token_ids
