"""From the trainer to the engine: the next version of the weights, in the same process.

A copy is made beside what serves (adapters merged, cast, packed as for any server), and the engine
takes it between two of its steps. Then both sides score the same probe: whatever differs more than
rounding does was not loaded as it was trained.
"""

from __future__ import annotations

import copy
import threading
import uuid
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from selenite.clock import Clock
from selenite.errors import SeleniteError
from selenite.model.lora import adapters, merge_lora
from selenite.model.pack import pack_weights
from selenite.model.transformer import Transformer
from selenite.ops.attention_context import packed_context
from selenite.ops.logprobs import token_logprobs
from selenite.serve.engine.loop import EngineThread
from selenite.serve.engine.request import Request
from selenite.types import IGNORED, SamplingParams

_MEAN_GAP = {torch.float32: 1e-3, torch.bfloat16: 5e-2}
"""The mean difference of the probe's log-probabilities that rounding may make."""


@dataclass(frozen=True)
class Handed:
    """How a hand-over went."""

    version: int
    seconds: float  # in which no step of the engine ran, and the copy before
    mean_gap: float  # of the probe's log-probabilities, trainer and engine
    max_gap: float


def served_copy(model: Transformer, dtype: torch.dtype) -> Transformer:
    """The model for an engine: all in ``dtype``, adapters merged, without gradients."""
    served = copy.deepcopy(model)
    if adapters(served):
        merge_lora(served)
    served.requires_grad_(False)
    return pack_weights(served.cast(dtype).eval())


class Bus(Protocol):
    """Takes the next version of the weights."""

    def publish(self, model: Transformer, version: int) -> Handed:
        """Serves the weights of ``model`` from now on, as ``version``."""
        ...


class Unserved:
    """A bus to nobody: for training from rollouts on disk."""

    def publish(self, model: Transformer, version: int) -> Handed:
        """Counts."""
        return Handed(version, 0.0, 0.0, 0.0)


class WeightBus:
    """Publishes a trainer's weights to an engine in the same process.

    Args:
        thread: runs the engine.
        probe: token ids that are scored after every hand-over; two at least.
        clock: for how long it takes.
    """

    def __init__(self, thread: EngineThread, probe: tuple[int, ...], clock: Clock) -> None:
        assert len(probe) > 1
        self._thread, self._probe, self._clock = thread, probe, clock

    def publish(self, model: Transformer, version: int) -> Handed:
        """Serves the weights of ``model`` from the engine's next step on.

        Requests in the middle go on under the new ones. Raises ``SeleniteError`` where trainer and
        engine disagree afterwards.
        """
        start = self._clock.now()
        dtype = self._thread.engine.runner.model.compute_dtype
        served = served_copy(model, dtype)
        self._thread.swap_weights(served, version, "recompute").result()
        seconds = self._clock.now() - start
        gaps_T = np.abs(self._by_engine() - self._by_trainer(model))
        handed = Handed(version, seconds, float(gaps_T.mean()), float(gaps_T.max()))
        if not handed.mean_gap <= _MEAN_GAP[dtype]:
            raise SeleniteError(
                f"weights version {version}: trainer and engine differ by {handed.mean_gap:.2g} in "
                f"the mean log-probability of a probe ({_MEAN_GAP[dtype]:g} is the bound); the "
                "engine does not serve what was trained"
            )
        return handed

    def _by_engine(self) -> np.ndarray:
        ended = threading.Event()
        params = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0)
        # A salt of its own: entries that are cached would not be computed anew.
        request = Request(uuid.uuid4().hex, self._probe, params, salt=uuid.uuid4().hex)

        def told(request: Request) -> None:
            if request.finish_reason is not None:
                ended.set()

        paused = self._thread.is_paused
        if paused:
            self._thread.resume().result()
        self._thread.submit(request, told).result()
        ended.wait()
        if paused:
            self._thread.pause().result()
        if request.error is not None:
            raise request.error
        return np.array([token.logprob for token in request.prompt_logprobs])

    @torch.no_grad()
    def _by_trainer(self, model: Transformer) -> np.ndarray:
        tokens_T = torch.tensor(self._probe, device=model.embed.weight.device)
        context = packed_context([len(self._probe)])
        output = model(tokens_T, context.positions_T, context)
        targets_T = torch.cat([tokens_T[1:], tokens_T.new_tensor([IGNORED])])
        logprobs_T = token_logprobs(output.hidden_TD, model.head_weight, targets_T)
        return logprobs_T[:-1].cpu().numpy()
