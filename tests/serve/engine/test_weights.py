"""Other weights while the engine runs: adapters by name, swapped weights, sleep."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from selenite.errors import CheckpointError, ConfigError
from selenite.model.decode import decode
from selenite.model.lora import LoRAConfig, adapters, add_lora, merge_lora
from selenite.model.lora_files import load_lora, save_lora
from selenite.model.transformer import Transformer
from selenite.serve.attention_mode import (
    AnyMode,
    FullAttention,
    KeepKvAttention,
    MobaAttention,
    TidalAttention,
)
from selenite.serve.engine.engine import Engine, EngineConfig
from selenite.serve.engine.request import Request
from selenite.types import FinishReason, SamplingParams
from tests.fixtures.tiny import k2_config, llama_config, tiny_model

CONFIG = EngineConfig(num_pages=200, page_size=4, max_step_tokens=16)
PROMPT = tuple(range(1, 20))
GREEDY = SamplingParams(temperature=0, max_tokens=10)


def model(seed: int = 0) -> Transformer:
    return tiny_model(k2_config(), seed)


def save_adapter(
    directory: Path, seed: int, base: Transformer | None = None, head: bool = False
) -> Path:
    targets = ("attention.*", "ffn.*", "head") if head else ("attention.*", "ffn.*")
    adapted = add_lora(base or model(), LoRAConfig(rank=4, targets=targets), seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, adapter in sorted(adapters(adapted).items()):
            adapter.B.normal_(0.0, 0.3, generator=generator)
    save_lora(adapted, directory)
    return directory


def request(adapter: str | None = None, name: str = "") -> Request:
    return Request(name, PROMPT, GREEDY, adapter=adapter)


def expected(with_weights: Transformer) -> list[int]:
    return decode(with_weights, [PROMPT], [GREEDY])[0].token_ids


def written(request: Request) -> list[int]:
    return [token.token_id for token in request.completion]


def test_adapters_are_served_by_name_side_by_side(tmp_path: Path):
    first, second = (save_adapter(tmp_path / str(seed), seed) for seed in (1, 2))
    engine = Engine(model(), CONFIG)
    engine.load_adapter("first", first)
    engine.load_adapter("second", second)
    requests = [request(name) for name in ("first", None, "second", "first", None)]
    engine.generate(requests)
    engine.check_integrity()
    plain = expected(model())
    merged = {
        n: expected(merge_lora(load_lora(model(), d)))
        for n, d in (("first", first), ("second", second))
    }
    assert [written(r) for r in requests] == [
        merged["first"], plain, merged["second"], merged["first"], plain,
    ]  # fmt: skip
    assert len({tuple(tokens) for tokens in (plain, *merged.values())}) == 3
    # A prefix is shared within an adapter only.
    again = [request(name) for name in ("first", None)]
    engine.generate(again)
    assert [r.cached for r in again] == [16, 16]
    fresh = request("second")
    engine.generate([fresh])
    assert written(fresh) == merged["second"]


@pytest.mark.parametrize(
    "mode",
    [
        MobaAttention(mode="moba", block_size=4, top_k=2),
        TidalAttention(mode="tidal", budget=8, layers=[0], share="head"),
        TidalAttention(mode="tidal", budget=8, layers=[0], share="head", drafts=3),
        KeepKvAttention(mode="keepkv", budget=8, likeness=0.0, every=4),
    ],
    ids=["moba", "tidal", "drafts", "keepkv"],
)
def test_an_adapter_reads_and_keeps_as_its_merged_model_does(tmp_path: Path, mode: AnyMode):
    directory = save_adapter(tmp_path, 1)
    engine = Engine(model(), CONFIG)
    engine.load_adapter("first", directory)
    adapted, plain, whole = (
        Request(str(number), PROMPT, GREEDY, adapter=name, attention=own)
        for number, (name, own) in enumerate(
            (("first", mode), (None, mode), ("first", FullAttention(mode="full")))
        )
    )
    engine.generate([adapted, plain, whole])
    engine.check_integrity()
    merged = Request("", PROMPT, GREEDY, attention=mode)
    Engine(merge_lora(load_lora(model(), directory)), CONFIG).generate([merged])
    assert written(adapted) == written(merged)
    assert written(adapted) != written(plain)
    is_lossless = isinstance(mode, TidalAttention) and mode.drafts is not None
    assert (written(adapted) == written(whole)) == is_lossless


def test_a_large_request_of_one_adapter_is_not_overtaken_for_ever(tmp_path: Path):
    engine = Engine(model(), EngineConfig(num_pages=16, page_size=4))
    engine.load_adapter("b", save_adapter(tmp_path, 1))

    def small(name: str) -> Request:
        return Request(name, (1, 2, 3), SamplingParams(temperature=0, max_tokens=12))

    for index in range(4):
        engine.add(small(f"early {index}"))
    engine.step()
    large = Request("large", (4,) * 60, SamplingParams(temperature=0, max_tokens=4), adapter="b")
    engine.add(large)
    for step in range(60):  # one more small one at each step
        engine.add(small(f"late {step}"))
        engine.step()
        engine.check_integrity()
        if large.finish_reason is not None:
            break
    assert large.finish_reason is FinishReason.LENGTH


def test_adapters_that_cannot_be_used_are_refused_by_name(tmp_path: Path):
    engine = Engine(model(), CONFIG)
    with pytest.raises(ConfigError, match=r"adapter 'none' is not loaded \(loaded: none\)"):
        engine.add(request("none"))
    with pytest.raises(CheckpointError, match="not an adapter's directory"):
        engine.load_adapter("empty", tmp_path)
    directory = save_adapter(tmp_path / "one", 1)
    engine.load_adapter("one", directory)
    with pytest.raises(ConfigError, match="loaded already"):
        engine.load_adapter("one", directory)
    engine.add(request("one"))
    with pytest.raises(ConfigError, match="requests use it"):
        engine.unload_adapter("one")
    while engine.has_work():
        engine.step()
    engine.unload_adapter("one")
    with pytest.raises(ConfigError, match="not loaded"):
        engine.add(request("one"))
    tied = tiny_model(llama_config(tie_embeddings=True))
    with_head = save_adapter(
        tmp_path / "head", 1, tiny_model(llama_config(tie_embeddings=True)), head=True
    )
    with pytest.raises(ConfigError, match="changes the head"):
        Engine(tied, CONFIG).load_adapter("head", with_head)


@pytest.mark.parametrize("mode", ["recompute", "keep", "abort"])
def test_swapped_weights_in_the_middle(mode: str):
    engine = Engine(model(), CONFIG)
    running = request()
    engine.add(running)
    while len(running.completion) < 4:
        engine.step()
    aborted = engine.swap_weights(model(seed=5), version=7, running=mode)  # type: ignore[arg-type]
    while engine.has_work():
        engine.step()
        engine.check_integrity()
    old = expected(model())
    assert written(running)[:4] == old[:4]
    if mode == "abort":
        assert aborted == [running]
        assert running.finish_reason is FinishReason.ABORT
    else:
        assert [token.weight_version for token in running.completion] == [0] * 4 + [7] * 6
        so_far = (*PROMPT, *old[:4])
        as_if = decode(model(seed=5), [so_far], [SamplingParams(temperature=0, max_tokens=6)])
        assert (written(running)[4:] == as_if[0].token_ids) == (mode == "recompute")
    # Nothing of the old weights is read by a later request.
    after = request()
    engine.generate([after])
    assert after.cached == (16 if mode == "recompute" else 0)
    assert written(after) == expected(model(seed=5))


def test_weights_of_another_model_are_refused():
    engine = Engine(model(), CONFIG)
    with pytest.raises(ConfigError, match="another model"):
        engine.swap_weights(tiny_model(k2_config(num_layers=2)), 1, "recompute")
    served = request()
    engine.generate([served])
    assert written(served) == expected(model())
    assert engine.weight_version == 0


def test_a_sleeping_engine_holds_no_cache_and_goes_on_afterwards():
    engine = Engine(model(), CONFIG)
    running = request()
    engine.add(running)
    while len(running.completion) < 3:
        engine.step()
    engine.sleep()
    assert not hasattr(engine.runner, "entries")
    assert engine.pool.num_free == CONFIG.num_pages
    engine.wake()
    while engine.has_work():
        engine.step()
        engine.check_integrity()
    assert written(running) == expected(model())
