"""What a step of reinforcement learning spends its time on, with SmolLM2-135M in a tool world.

    python -m benchmarks.rl_speed [--model DIR]

Three things, each in some rounds. How much of a step's time no model pass, tool or scoring runs,
all that waits, packs and hands over. How many tokens a second the trainer reads where a group's
prompt is computed once, over packing each rollout with its own. How many tokens a second rollouts
are sampled at, over the same engine given the same kind of requests at once, without episodes.
Rows: rl.idle_share, rl.prefix_packing, rl.rollout_vs_offline.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import mean, median
from typing import Any, TypeVar

import torch

from benchmarks.results import Reference, record
from selenite.chat.conversation import Conversation
from selenite.chat.profile import detect_profile
from selenite.chat.tokenizer import Tokenizer
from selenite.clock import SystemClock
from selenite.config import validate
from selenite.model.hf_adapter import load_pretrained
from selenite.ops import allocator
from selenite.optim.muon import MuonClip
from selenite.rl.actor import Actor, ActorConfig
from selenite.rl.batch import Group, rollout_batches
from selenite.rl.config import RlConfig
from selenite.rl.gym.house.environment import HouseKeeping, Visit
from selenite.rl.producer import Producer
from selenite.rl.rollout import Rollout
from selenite.rl.run import open_task
from selenite.rl.serving import serve
from selenite.rl.task import RlTask
from selenite.rl.tasks import Assigned, TaskStream
from selenite.runtime import apply_threads, choose_dtype, torch_dtype
from selenite.serve.engine.engine import Engine
from selenite.serve.engine.loop import EngineThread
from selenite.serve.engine.request import Request
from selenite.train.inputs import to_inputs
from selenite.train.step import train_step
from selenite.types import SamplingParams
from tests.fixtures.smollm2 import smollm2

GROUPS, SIZE, TOKENS = 4, 8, 64
ROUNDS = 5
COMMAND = "python -m benchmarks.rl_speed"
Result = TypeVar("Result")


class Spans:
    """When something ran, on whatever thread."""

    def __init__(self) -> None:
        self._found = list[tuple[float, float]]()
        self._lock = threading.Lock()

    def timing(self, function: Callable[..., Result]) -> Callable[..., Result]:
        """The same function, whose calls are spans."""

        def timed(*given: Any, **named: Any) -> Result:
            start = time.perf_counter()
            try:
                return function(*given, **named)
            finally:
                with self._lock:
                    self._found.append((start, time.perf_counter()))

        return timed

    def covered(self, begin: float, end: float) -> float:
        """Seconds between two moments in which at least one span ran."""
        total, reached = 0.0, begin
        for start, stop in sorted(self._found):
            start, stop = max(start, reached), min(stop, end)
            if stop > start:
                total += stop - start
                reached = stop
        return total


@contextmanager
def watched(spans: Spans, places: Sequence[tuple[Any, str]]) -> Iterator[None]:
    """Times methods of classes, in this process."""
    whole = [(owner, name, owner.__dict__[name]) for owner, name in places]
    for owner, name, function in whole:
        setattr(owner, name, spans.timing(function))
    try:
        yield
    finally:
        for owner, name, function in whole:
            setattr(owner, name, function)


def config_of(model: Path, out_dir: Path, dtype: str) -> RlConfig:
    tables = {
        "train": {
            "init_from": str(model), "out_dir": str(out_dir), "steps": 1000, "seq_len": 1024,
            "micro_batch_tokens": 2048, "batch_tokens": 2048, "dtype": dtype,
        },
        "environments": [{"kind": "house", "level": 3, "tokens": TOKENS}],
        "rollouts": {"groups": GROUPS, "size": SIZE, "cache_tokens": 32_768},
        "optim": {"name": "adamw", "lr": 1e-6, "qk_clip_tau": None},
        "schedule": {"kind": "constant", "warmup_fraction": 0.0},
    }  # fmt: skip
    return validate(RlConfig, tables, "rl_speed")


def idle(model: Path, dtype: str) -> list[float]:
    """Shares of a step's time, of each round, after one that warms up."""
    spans = Spans()
    places = [
        (Engine, "step"), (RlTask, "loss"), (torch.Tensor, "backward"), (MuonClip, "step"),
        (HouseKeeping, "begin"), (Visit, "reply"), (Visit, "score"),
    ]  # fmt: skip
    shares = []
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        config = config_of(model, Path(directory) / "run", dtype)
        task = open_task(config, "cpu", torch_dtype(dtype), SystemClock(), stack)
        stack.enter_context(watched(spans, places))
        for step in range(ROUNDS + 1):
            begin = time.perf_counter()
            metrics = train_step(task, step)
            end = time.perf_counter()
            share = 1 - spans.covered(begin, end) / (end - begin)
            print(
                f"step {step}: {end - begin:.1f} s, {metrics['rollout_seconds']:.1f} of acting, "
                f"{metrics['sync_seconds']:.2f} of handing over; idle {share:.3f}",
                flush=True,
            )
            shares.append(share)
    return shares[1:]


def packing(model: Path, dtype: str, groups: Sequence[Sequence[Rollout]]) -> list[float]:
    """How many times as many tokens a second are learnt from groups whose prompt is shared."""
    network = load_pretrained(model, torch_dtype(dtype))
    found = [Group(tuple(rollouts), torch.zeros(len(rollouts)).numpy()) for rollouts in groups]

    def seconds(shares: bool) -> float:
        begin = time.perf_counter()
        for batch in rollout_batches(found[:1], 4096, shares=shares):
            inputs = to_inputs(batch.packed, "cpu")
            output = network(inputs.tokens_T, inputs.context.positions_T, inputs.context)
            output.hidden_TD.sum().backward()
        network.zero_grad(set_to_none=True)
        return time.perf_counter() - begin

    for shares in (True, False):
        seconds(shares)
    ratios = []
    for number in range(ROUNDS):
        order = (True, False) if number % 2 else (False, True)
        took = {shares: seconds(shares) for shares in order}
        ratios.append(took[False] / took[True])
        print(f"packing: {took[False]:.2f} s plain, {took[True]:.2f} s shared", flush=True)
    return ratios


class Sampling:
    """Rollouts, and the same engine without episodes."""

    def __init__(self, model: Path, dtype: str, stack: ExitStack) -> None:
        self._tokenizer = Tokenizer.load(model)
        self._profile, _ = detect_profile(self._tokenizer)
        self._environment = HouseKeeping(3, tokens=TOKENS)
        network = load_pretrained(model, torch_dtype(dtype))
        config = config_of(model, Path("unused"), dtype)
        clock = SystemClock()
        engines, _ = serve(network, "cpu", torch_dtype(dtype), config.rollouts, clock, stack)
        (engine,) = engines
        assert isinstance(engine, EngineThread)
        self._engine = engine
        actor = Actor(engines, self._tokenizer, self._profile, ActorConfig())
        self._producer = Producer(actor, TaskStream([self._environment], [1.0]), SIZE, 0)
        stack.callback(self._producer.close)

    def rollouts(self, first: int) -> list[list[Rollout]]:
        """Groups of the tasks from a number on."""
        tasks = [Assigned(self._environment, first + i) for i in range(GROUPS)]
        return self._producer.attempt(tasks, SIZE, 0, 1.0)

    def rate(self, first: int) -> float:
        """Tokens a second that rollouts sample."""
        begin = time.perf_counter()
        groups = self.rollouts(first)
        took = time.perf_counter() - begin
        return sum(one.num_sampled for group in groups for one in group) / took

    def offline_rate(self, first: int) -> float:
        """The same of requests that are all there from the beginning."""
        requests = [
            request for i in range(GROUPS) for request in self._requests(self._prompt(first + i))
        ]
        ends = frozenset(self._profile.stop_ids(self._tokenizer))
        assert all(request.end_token_ids == ends for request in requests)
        self._engine.resume().result()
        begin = time.perf_counter()
        self._engine.call(lambda: self._engine.engine.generate(requests)).result()
        took = time.perf_counter() - begin
        self._engine.pause().result()
        return sum(len(request.completion) for request in requests) / took

    def _prompt(self, number: int) -> tuple[int, ...]:
        episode = self._environment.begin(number)
        start = Conversation.start(self._tokenizer, episode.tools, self._profile)
        return tuple(start.extended(episode.opening).prompt_ids())

    def _requests(self, prompt: tuple[int, ...]) -> list[Request]:
        leader: Request | None = None
        found = []
        for sample in range(SIZE):
            request = Request(
                uuid.uuid4().hex,
                prompt,
                SamplingParams(temperature=1.0, max_tokens=TOKENS, seed=sample, logprobs=0),
                end_token_ids=frozenset(self._profile.stop_ids(self._tokenizer)),
                sample=sample,
                leader=leader,
            )
            leader = leader or request
            found.append(request)
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path)
    model = parser.parse_args().model or smollm2()
    apply_threads()
    allocator.install()
    dtype = choose_dtype("auto", "cpu").value
    shares = idle(model, dtype)
    with ExitStack() as stack:
        sampling = Sampling(model, dtype, stack)
        groups = sampling.rollouts(0)
        sampling.offline_rate(100)
        sampled = []
        for number in range(1, ROUNDS + 1):
            first = 1000 * number
            if number % 2:
                ours, offline = sampling.rate(first), sampling.offline_rate(first + 500)
            else:
                offline, ours = sampling.offline_rate(first + 500), sampling.rate(first)
            sampled.append(ours / offline)
            print(f"sampling: {ours:.1f} tokens/s, {offline:.1f} offline", flush=True)
    packed = packing(model, dtype, groups)
    prompt = int(groups[0][0].is_sampled_T.argmax())
    sizes = f"{GROUPS} groups of {SIZE}, prompts of about {prompt} tokens"
    length = mean(one.num_sampled for group in groups for one in group)
    told = f"SmolLM2-135M in {dtype}, {sizes}, {length:.0f} tokens an attempt"
    for name, claim, values, unit, target in (
        (
            "rl.idle_share",
            "share of a step in which no model pass, tool or scoring runs",
            shares, "share", "<= 0.15",
        ),
        (
            "rl.prefix_packing",
            "tokens a second learnt where a group's prompt is computed once, over plain packing",
            packed, "ratio", ">= 2",
        ),
        (
            "rl.rollout_vs_offline",
            "tokens a second of rollouts over the engine's with all requests at once",
            sampled, "ratio", ">= 0.9",
        ),
    ):  # fmt: skip
        value = median(values)
        record(
            name,
            claim,
            value,
            unit,
            low=min(values) * 0.9,
            high=max(values) * 1.1,
            runs=len(values),
            target=target,
            reference=Reference(name="target", value=float(target.split()[1]), source="ours"),
            command=COMMAND,
            note=f"{told}; rounds {', '.join(f'{v:.3f}' for v in sorted(values))}",
        )


if __name__ == "__main__":
    main()
