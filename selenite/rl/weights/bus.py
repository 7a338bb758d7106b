"""From the trainer to the engines: the next version of the weights, in two phases.

    stage   the version is laid beside what serves, and each engine verifies its own
    commit  all engines take it between two of their steps, or none does

Then trainer and engines score the same probe: whatever differs more than rounding does was not
loaded as it was trained. Kimi K2, section 3.4.2, updates its engines likewise; the two phases are
ours.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from selenite.clock import Clock
from selenite.errors import SeleniteError, UnavailableError
from selenite.model.transformer import Transformer
from selenite.ops.attention_context import packed_context
from selenite.ops.logprobs import token_logprobs
from selenite.rl.engines import RolloutEngine
from selenite.serve.engine.request import Request
from selenite.types import IGNORED, SamplingParams

logger = logging.getLogger(__name__)

_MEAN_GAP = {torch.float32: 1e-3, torch.bfloat16: 5e-2}
"""The mean difference of the probe's log-probabilities that rounding may make."""


class StagingError(UnavailableError):
    """An engine could not take the next version; all go on with the one that they have."""


@dataclass(frozen=True)
class Handed:
    """How a hand-over went."""

    version: int  # that serves now
    seconds: float  # of both phases, in which no step of an engine need run
    mean_gap: float  # of the probe's log-probabilities, trainer and engine: the worst engine's
    max_gap: float
    failures: int = 0  # hand-overs in a row that failed, this one included


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


class Transport(Protocol):
    """Carries weights to engines."""

    def stage(self, model: Transformer, version: int) -> None:
        """Lays a version beside what serves and has each engine verify it.

        Raises ``StagingError`` where one cannot take it: nothing is staged then.
        """
        ...

    def commit(self) -> None:
        """All engines serve what was staged, each from its next step on."""
        ...


class WeightBus:
    """Publishes a trainer's weights to the engines of its rollouts.

    Args:
        engines: that act.
        transport: to them.
        dtype: that the engines compute in.
        probe: token ids that are scored after every hand-over; two at least.
        clock: for how long it takes.
        most_stale: versions that what serves may be behind because hand-overs failed.
    """

    def __init__(
        self,
        engines: Sequence[RolloutEngine],
        transport: Transport,
        dtype: torch.dtype,
        probe: tuple[int, ...],
        clock: Clock,
        most_stale: int,
    ) -> None:
        assert len(probe) > 1
        self._engines, self._transport, self._dtype = engines, transport, dtype
        self._probe, self._clock, self._most_stale = probe, clock, most_stale
        self._served = 0
        self._failures = 0

    def publish(self, model: Transformer, version: int) -> Handed:
        """Serves the weights of ``model`` from the engines' next step on.

        Requests in the middle go on under the new ones. Where an engine cannot take them, the old
        ones go on serving on all, and that is what is returned.

        Raises ``StagingError`` where what serves would be more than ``most_stale`` versions behind,
        ``SeleniteError`` where trainer and an engine disagree afterwards.
        """
        start = self._clock.now()
        try:
            self._transport.stage(model, version)
        except StagingError as error:
            self._failures += 1
            if version - self._served > self._most_stale:
                raise
            logger.warning("%s; version %d goes on serving", error, self._served)
            return Handed(self._served, self._clock.now() - start, 0.0, 0.0, self._failures)
        self._transport.commit()
        seconds = self._clock.now() - start
        self._served, self._failures = version, 0
        ours_T = self._by_trainer(model)
        gaps = [np.abs(self._by_engine(engine) - ours_T) for engine in self._engines]
        mean_gap = float(max(gaps_T.mean() for gaps_T in gaps))
        if not mean_gap <= _MEAN_GAP[self._dtype]:
            raise SeleniteError(
                f"weights version {version}: trainer and engine differ by {mean_gap:.2g} in "
                f"the mean log-probability of a probe ({_MEAN_GAP[self._dtype]:g} is the bound); "
                "the engine does not serve what was trained"
            )
        return Handed(version, seconds, mean_gap, float(max(gaps_T.max() for gaps_T in gaps)))

    def _by_engine(self, engine: RolloutEngine) -> np.ndarray:
        paused = engine.is_paused
        if paused:
            engine.resume().result()
        try:
            while True:
                try:
                    return self._scored(engine)
                except UnavailableError:  # it begins anew, with these weights
                    if not engine.is_alive:
                        raise
        finally:
            if paused:
                engine.pause().result()

    def _scored(self, engine: RolloutEngine) -> np.ndarray:
        ended = threading.Event()
        params = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0)
        # A salt of its own: entries that are cached would not be computed anew.
        request = Request(uuid.uuid4().hex, self._probe, params, salt=uuid.uuid4().hex)

        def told(request: Request) -> None:
            if request.finish_reason is not None:
                ended.set()

        engine.submit(request, told).result()
        ended.wait()
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
