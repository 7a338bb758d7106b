"""Engines in real child processes: the same tokens as here, new weights, and sudden ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch

from selenite.clock import SystemClock
from selenite.errors import CheckpointError, ConfigError, UnavailableError
from selenite.model.transformer import Transformer
from selenite.rl.config import RolloutConfig
from selenite.rl.engines import RolloutEngine
from selenite.rl.remote.engine import RemoteEngine
from selenite.rl.remote.process import ProcessChannel
from selenite.rl.serving import serve
from selenite.rl.weights.bus import StagingError, Transport, WeightBus
from selenite.rl.weights.remote import Remote
from selenite.rl.weights.shared_memory import SharedMemoryStore
from selenite.serve.engine.request import Request
from selenite.types import FinishReason, SamplingParams
from tests.fixtures.tiny import k2_config, tiny_model

PROBE = tuple(range(5, 40))
DEADLINE = 60


def changed(model: Transformer, seed: int = 0) -> Transformer:
    """Another version of a model."""
    other = tiny_model(model.config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for ours, theirs in zip(other.parameters(), model.parameters(), strict=True):
            ours.copy_(theirs + 0.05 * torch.randn(theirs.shape, generator=generator))
    return other


class Told:
    """A request, and what is told of it."""

    def __init__(self, engine: RolloutEngine, number: int = 0, max_tokens: int = 100) -> None:
        params = SamplingParams(seed=7, max_tokens=max_tokens, logprobs=0)
        self.request = Request(f"{id(self)}", tuple(range(1, 20)), params, sample=number)
        self.ended = threading.Event()
        self.has_begun = threading.Event()
        self.accepted = engine.submit(self.request, self)

    def __call__(self, request: Request) -> None:
        if len(request.completion) > 5:
            self.has_begun.set()
        if request.finish_reason is not None:
            self.has_begun.set()
            self.ended.set()

    def wait(self) -> Request:
        assert self.ended.wait(DEADLINE)
        return self.request

    @property
    def tokens(self) -> list[int]:
        return [token.token_id for token in self.wait().completion]

    @property
    def logprobs(self) -> np.ndarray:
        return np.array([token.sampled_logprob for token in self.wait().completion])


def opened(
    model: Transformer, stack: ExitStack, engines: int
) -> tuple[Sequence[RolloutEngine], Transport]:
    rollouts = RolloutConfig(engines=engines, cache_tokens=8192)
    return serve(model, "cpu", torch.float32, rollouts, SystemClock(), stack)


def bus_to(
    engines: Sequence[RolloutEngine], transport: Transport, most_stale: int = 1
) -> WeightBus:
    return WeightBus(engines, transport, torch.float32, PROBE, SystemClock(), most_stale)


@pytest.fixture(scope="module")
def model() -> Transformer:
    return tiny_model(k2_config(vocab_size=300, max_positions=512))


@pytest.fixture(scope="module")
def served(model: Transformer) -> Iterator[tuple[Sequence[RolloutEngine], Transport]]:
    with ExitStack() as stack:
        yield opened(model, stack, 2)


def kill(engine: RolloutEngine) -> None:
    """Kills the process, and waits until that is noticed."""
    assert isinstance(engine, RemoteEngine)
    assert isinstance(engine._channel, ProcessChannel)
    deaths = engine.deaths
    os.kill(engine._channel.process_id, signal.SIGKILL)
    end = time.monotonic() + DEADLINE
    while engine.deaths == deaths:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_what_cannot_run_is_refused_and_what_is_aborted_ends(
    served: tuple[Sequence[RolloutEngine], Transport],
) -> None:
    engine = served[0][0]
    assert engine.longest == 512
    with pytest.raises(ConfigError, match="positions"):
        Told(engine, max_tokens=5000).accepted.result(DEADLINE)
    long = Told(engine, max_tokens=480)
    assert long.has_begun.wait(DEADLINE)
    engine.abort(long.request).result(DEADLINE)
    assert long.wait().finish_reason in (FinishReason.ABORT, FinishReason.LENGTH)
    # One that follows another waits for its prompt, also in another process.
    first = Told(engine)
    params = SamplingParams(seed=7, max_tokens=20, logprobs=0)
    follower = Request("follower", first.request.prompt, params, sample=1, leader=first.request)
    done = threading.Event()
    engine.submit(follower, lambda r: done.set() if r.finish_reason else None).result(DEADLINE)
    assert done.wait(DEADLINE)
    assert len(follower.completion) == 20
    assert first.tokens


def test_a_pause_in_the_middle_and_other_weights(model: Transformer) -> None:
    with ExitStack() as stack:
        engines, transport = opened(model, stack, 1)
        (engine,) = engines
        bus = bus_to(engines, transport)
        told = Told(engine, max_tokens=300)
        assert told.has_begun.wait(DEADLINE)
        engine.pause().result(DEADLINE)
        before = len(told.request.completion)
        assert engine.is_paused
        # Nothing is drawn while it is paused: the next answer comes after whatever it did.
        engine.pause().result(DEADLINE)
        assert len(told.request.completion) - before <= 1
        handed = bus.publish(changed(model), 7)
        assert (handed.version, handed.failures) == (7, 0)
        assert handed.mean_gap < 1e-5
        engine.resume().result(DEADLINE)
        versions = [token.weight_version for token in told.wait().completion]
        assert versions == sorted(versions)
        assert set(versions) == {0, 7}
        assert told.request.finish_reason is FinishReason.LENGTH


def test_every_version_is_served_by_all_engines(
    model: Transformer, served: tuple[Sequence[RolloutEngine], Transport]
) -> None:
    engines, transport = served
    bus = bus_to(engines, transport)
    with ExitStack() as stack:
        local, to_local = opened(model, stack, 0)
        here = bus_to(local, to_local)
        for version in (1, 2, 4):  # both places in shared memory, one twice
            other = changed(model, version)
            for one in (bus, here):
                assert one.publish(other, version).mean_gap < 1e-5
            wanted = Told(local[0], version, 50)
            for engine in engines:
                found = Told(engine, version, 50)
                assert found.tokens == wanted.tokens
                np.testing.assert_allclose(found.logprobs, wanted.logprobs, atol=1e-4)
                assert {t.weight_version for t in found.request.completion} == {version}


class Altered(SharedMemoryStore):
    """Loses a bit on the way."""

    spoils = False

    def write(self, model: Transformer, version: int):  # type: ignore[no-untyped-def]
        written = super().write(model, version)
        if self.spoils:
            self._buffers[written.place][1000] ^= 1
        return written


def test_where_one_engine_cannot_take_a_version_none_does(model: Transformer) -> None:
    with ExitStack() as stack:
        stack.enter_context(pytest.MonkeyPatch.context()).setattr(
            "selenite.rl.serving.SharedMemoryStore", Altered
        )
        engines, transport = opened(model, stack, 2)
        assert isinstance(transport, Remote)
        store = transport._store
        assert isinstance(store, Altered)
        bus = bus_to(engines, transport, most_stale=2)
        bus.publish(changed(model, 1), 1)
        wanted = Told(engines[0]).tokens
        store.spoils = True
        for version, failures in ((2, 1), (3, 2)):
            handed = bus.publish(changed(model, version), version)
            assert (handed.version, handed.failures) == (1, failures)
            for engine in engines:
                assert Told(engine).tokens == wanted
        with pytest.raises(StagingError, match="checksum"):  # three versions behind
            bus.publish(changed(model, 4), 4)
        store.spoils = False
        assert bus.publish(changed(model, 5), 5).failures == 0
        assert Told(engines[1]).tokens != wanted
        # Another model's weights are no version of this one.
        other = tiny_model(k2_config(vocab_size=300, max_positions=512, num_layers=2))
        foreign = SharedMemoryStore(other, torch.float32)
        weights = foreign.write(other, 9)
        foreign.close()
        assert isinstance(engines[0], RemoteEngine)
        with pytest.raises(CheckpointError, match="not of the model"):
            engines[0].stage(weights).result(DEADLINE)


@pytest.mark.slow
def test_an_engine_that_is_killed_begins_anew_with_the_version_that_serves(
    model: Transformer,
) -> None:
    with ExitStack() as stack:
        engines, transport = opened(model, stack, 2)
        bus = bus_to(engines, transport)
        bus.publish(changed(model, 1), 1)
        lost, other = Told(engines[0], max_tokens=450), Told(engines[1], max_tokens=450)
        assert lost.has_begun.wait(DEADLINE)
        kill(engines[0])
        request = lost.wait()
        assert request.finish_reason is FinishReason.ERROR
        assert isinstance(request.error, UnavailableError)
        assert "signal 9" in str(request.error)
        assert other.wait().finish_reason is FinishReason.LENGTH
        # What comes next waits for the next process.
        again = Told(engines[0], max_tokens=450)
        assert again.tokens == other.tokens
        assert {token.weight_version for token in again.request.completion} == {1}
        assert isinstance(engines[0], RemoteEngine)
        assert engines[0].deaths == 1
        # The next version waits for it, too.
        kill(engines[1])
        handed = bus.publish(changed(model, 2), 2)
        assert (handed.version, handed.failures) == (2, 0)
        assert Told(engines[0]).tokens == Told(engines[1]).tokens
        # It stays paused.
        engines[1].pause().result(DEADLINE)
        kill(engines[1])
        assert engines[1].is_paused
        waiting = Told(engines[1])
        waiting.accepted.result(DEADLINE)
        assert not waiting.request.completion
        engines[1].resume().result(DEADLINE)
        assert waiting.tokens == Told(engines[0]).tokens


def test_an_engine_that_never_serves_is_given_up(
    model: Transformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with ExitStack() as stack:
        engines, _ = opened(model, stack, 1)
        with pytest.raises(UnavailableError, match="died 3 times"):
            Told(engines[0]).accepted.result(DEADLINE)
        assert not engines[0].is_alive


TRAINER = """
import sys, time, torch
from contextlib import ExitStack
from selenite.clock import SystemClock
from selenite.rl.config import RolloutConfig
from selenite.rl.serving import serve
from tests.fixtures.tiny import k2_config, tiny_model

model = tiny_model(k2_config(vocab_size=300, max_positions=512))
with ExitStack() as stack:
    engines, _ = serve(
        model, "cpu", torch.float32, RolloutConfig(engines=2, cache_tokens=1024),
        SystemClock(), stack,
    )
    for engine in engines:
        engine.resume().result()
    print(*(engine._channel.process_id for engine in engines), flush=True)
    time.sleep(600)
"""


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_children_end_with_the_trainer(how: signal.Signals) -> None:
    trainer = subprocess.Popen(
        [sys.executable, "-c", TRAINER],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert trainer.stdout is not None
    children = [int(word) for word in trainer.stdout.readline().split()]
    assert len(children) == 2
    assert all(map(is_running, children))
    trainer.send_signal(how)
    trainer.wait(DEADLINE)
    end = time.monotonic() + DEADLINE
    while any(map(is_running, children)):
        assert time.monotonic() < end
        time.sleep(0.05)
