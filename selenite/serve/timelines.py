"""What became of the last requests, and when: for the web page's panel and ``/requests``.

Holds no text and no token ids: of requests that ended only the numbers are kept.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from selenite.clock import Clock
from selenite.serve.generation import Choice, Generation
from selenite.types import FinishReason

KEPT = 100


@dataclass(frozen=True)
class Timeline:
    """One completion. Times are seconds since the service began, by the engine's clock."""

    id: str  # of the request; the id of its answer ends in it
    index: int  # among the completions of that request
    model: str
    arrival: float
    first_scheduled: float | None  # None: it waits, or never ran
    first_token: float | None
    last_token: float | None
    ended: float | None  # None: it is open
    prompt_tokens: int
    cached_tokens: int  # of the prompt, found in the prefix cache
    completion_tokens: int
    preemptions: int
    finish_reason: FinishReason | None  # None: it is open; ``abort``: whoever asked has left


class Timelines:
    """Open completions and the last ``KEPT`` that ended. Use on the service's event loop."""

    def __init__(self, clock: Clock, model: str) -> None:
        self._clock = clock
        self._model = model
        self._began = clock.now()
        self._open: dict[Choice, str] = {}  # to the id of its request
        self._ended: deque[Timeline] = deque(maxlen=KEPT)
        self._prompt_tokens = 0
        self._completion_tokens = 0
        self.num_ended = 0

    @property
    def now(self) -> float:
        """Seconds since the service began."""
        return self._clock.now() - self._began

    @property
    def num_prompt_tokens(self) -> int:
        """Of all completions that were ever scheduled."""
        return self._prompt_tokens + sum(map(_num_prompt_tokens, self._open))

    @property
    def num_completion_tokens(self) -> int:
        """Written so far, by open completions too."""
        return self._completion_tokens + sum(len(choice.token_times) for choice in self._open)

    def begin(self, generation: Generation) -> None:
        """Its requests are the engine's now."""
        self._open |= dict.fromkeys(generation.choices, generation.id)

    def end(self, choice: Choice) -> None:
        """A completion ended or was left; one that never began is no request."""
        id = self._open.pop(choice, None)
        if id is None:
            return
        timeline = self._timeline(choice, id, is_open=False)
        self._ended.append(timeline)
        self._prompt_tokens += _num_prompt_tokens(choice)
        self._completion_tokens += timeline.completion_tokens
        self.num_ended += 1

    def last(self) -> list[Timeline]:
        """The one that came last first."""
        opened = [self._timeline(choice, id, is_open=True) for choice, id in self._open.items()]
        return sorted([*opened, *self._ended], key=lambda it: (-it.arrival, it.id, it.index))

    def _timeline(self, choice: Choice, id: str, is_open: bool) -> Timeline:
        request, times = choice.request, list(choice.token_times)
        since = self._since
        ended = self._clock.now() if choice.ended_at is None else choice.ended_at
        reason = request.finish_reason or FinishReason.ABORT  # left: the engine ends it soon
        return Timeline(
            id=id,
            index=choice.index,
            model=request.adapter or self._model,
            arrival=request.arrival - self._began,
            first_scheduled=since(request.first_scheduled),
            first_token=since(times[0] if times else None),
            last_token=since(times[-1] if times else None),
            ended=None if is_open else since(ended),
            prompt_tokens=len(request.prompt),
            cached_tokens=request.cached,
            completion_tokens=len(times),
            preemptions=request.preemptions,
            finish_reason=None if is_open else reason,
        )

    def _since(self, time: float | None) -> float | None:
        return None if time is None else time - self._began


def _num_prompt_tokens(choice: Choice) -> int:
    return 0 if choice.request.first_scheduled is None else len(choice.request.prompt)
