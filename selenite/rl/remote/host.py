"""The engine's side of an engine in another process: it serves one, and tells news of it.

Calls come one after another, from one thread; news are fetched by another one.
"""

from __future__ import annotations

import os
import queue
from typing import Any

import numpy as np

from selenite.errors import UnavailableError
from selenite.model.transformer import Transformer
from selenite.rl.remote.messages import Accepted, HostSettings, Progress, Sent, portable
from selenite.rl.weights.flat import Manifest, layout, read, verify, views
from selenite.rl.weights.in_process import can_refill
from selenite.runtime import apply_threads, enable_batch_invariant
from selenite.serve.engine.engine import Engine
from selenite.serve.engine.loop import EngineThread
from selenite.serve.engine.request import Request

HEARTBEAT = 5.0  # seconds after which there are news, if only that there are none


class Host:
    """An engine, running. It must be the first in its process that computes.

    Args:
        settings: of the engine.
        manifest: of the weights that it begins with.
        buffer: that holds them (uint8); they are copied.
        is_paused: whether it waits for ``resume``.

    Raises ``CheckpointError`` for weights that are damaged or of another model.
    """

    def __init__(
        self, settings: HostSettings, manifest: Manifest, buffer: np.ndarray, is_paused: bool
    ) -> None:
        os.environ["OMP_NUM_THREADS"] = str(settings.threads)  # read by the engine's thread, too
        apply_threads()
        if settings.batch_invariant:
            enable_batch_invariant()
        self._settings = settings
        self._layout = layout(settings.model, settings.dtype)
        self._staged: tuple[Transformer, int] | None = None
        self._spare: Transformer | None = None
        self._outbox = queue.SimpleQueue[Any]()
        self._requests = dict[str, Request]()
        model = self._read(manifest, buffer)
        engine = Engine(model, settings.engine)
        engine.swap_weights(model, manifest.version, "abort")
        self._thread = EngineThread(engine)
        self._thread.start()
        if is_paused:
            self.pause()

    def ready(self) -> None:
        """Answered once it serves."""

    def submit(self, sent: Sent) -> None:
        """Queues a request: ``Accepted``, then ``Progress`` until its end, are news."""
        request = Request(
            sent.id,
            sent.prompt,
            sent.params,
            end_token_ids=sent.end_token_ids,
            sample=sent.sample,
            salt=sent.salt,
            # One that has ended left its prompt in the cache.
            leader=self._requests.get(sent.leader) if sent.leader is not None else None,
            wants_routing=sent.wants_routing,
        )
        tokens = rows = 0  # that were told

        def tell(request: Request) -> None:
            nonlocal tokens, rows
            new, tokens = tuple(request.completion[tokens:]), len(request.completion)
            new_ids, rows = tuple(request.expert_ids[rows:]), len(request.expert_ids)
            has_ended = request.finish_reason is not None
            self._outbox.put(
                Progress(
                    request.id,
                    new,
                    new_ids,
                    tuple(request.prompt_logprobs) if has_ended else (),
                    request.finish_reason,
                    None if request.error is None else portable(request.error),
                )
            )
            if has_ended:
                self._requests.pop(request.id, None)

        self._requests[sent.id] = request
        queued = self._thread.submit(request, tell)

        def accepted(_: object) -> None:
            error = queued.exception()
            if error is not None:
                self._requests.pop(sent.id, None)
            self._outbox.put(Accepted(sent.id, None if error is None else portable(error)))

        queued.add_done_callback(accepted)

    def abort(self, request_id: str) -> None:
        """Ends a request, unless it has ended."""
        request = self._requests.get(request_id)
        if request is not None:
            self._thread.abort(request)

    def pause(self) -> None:
        """Runs no more steps until ``resume``."""
        self._thread.pause().result()

    def resume(self) -> None:
        """Runs steps again."""
        self._thread.resume().result()

    def stage(self, manifest: Manifest, buffer: np.ndarray) -> None:
        """Verifies a version and copies it beside what serves; raises ``CheckpointError``."""
        self._staged = self._read(manifest, buffer), manifest.version

    def discard(self) -> None:
        """What is staged is not wanted."""
        if self._staged is not None:
            self._retire(self._staged[0])
            self._staged = None

    def commit(self, manifest: Manifest, buffer: np.ndarray) -> None:
        """Serves a version from the next step on. One that began with it serves it already; one
        that began anew after it was staged takes it from the buffer."""
        engine = self._thread.engine
        if engine.weight_version == manifest.version:
            return
        if self._staged is None:
            self.stage(manifest, buffer)
        assert self._staged is not None
        model, version = self._staged
        assert version == manifest.version
        retired = engine.runner.model
        self._thread.swap_weights(model, version, "recompute").result()
        self._staged = None
        self._retire(retired)

    def news(self) -> list[Any]:
        """What is new, once anything is, or nothing after ``HEARTBEAT``.

        Raises ``UnavailableError`` once the engine has failed and that is told.
        """
        found = list[Any]()
        try:
            found.append(self._outbox.get(timeout=HEARTBEAT))
            while True:
                found.append(self._outbox.get_nowait())
        except queue.Empty:
            if not found and not self._thread.is_alive:
                raise UnavailableError("the engine failed; its log says why") from None
            return found

    def tell(self, item: Any) -> None:
        """Adds to the news."""
        self._outbox.put(item)

    def stop(self) -> None:
        """Ends the engine."""
        self._thread.stop()

    def _read(self, manifest: Manifest, buffer: np.ndarray) -> Transformer:
        verify(manifest, buffer, self._layout)
        values = views(buffer, self._layout)
        settings, spare = self._settings, self._spare
        self._spare = None
        return read(settings.model, settings.device, settings.dtype, values, spare)

    def _retire(self, model: Transformer) -> None:
        self._spare = model if can_refill(model) else None
