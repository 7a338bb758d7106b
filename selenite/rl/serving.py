"""The engines that act in a run, and the way of the weights to them.

One engine in the trainer's process, or several in processes of their own: children that read the
weights from shared memory, or actors of Ray's that fetch them from its object store.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import torch

from selenite.clock import Clock
from selenite.model.transformer import Transformer
from selenite.rl.config import RolloutConfig
from selenite.rl.engines import RolloutEngine
from selenite.rl.remote.engine import RemoteEngine, Start
from selenite.rl.remote.messages import HostSettings
from selenite.rl.remote.process import in_children
from selenite.rl.remote.ray_actor import in_ray, start_ray
from selenite.rl.weights.bus import Transport
from selenite.rl.weights.in_process import InProcess, served_copy
from selenite.rl.weights.ray_store import RayStore
from selenite.rl.weights.remote import Remote, Store
from selenite.rl.weights.shared_memory import SharedMemoryStore
from selenite.runtime import is_batch_invariant, plan_threads
from selenite.serve.engine.engine import Engine, EngineConfig
from selenite.serve.engine.loop import EngineThread

_PAGE = 16  # tokens


def serve(
    model: Transformer,
    device: str,
    dtype: torch.dtype,
    rollouts: RolloutConfig,
    clock: Clock,
    stack: ExitStack,
) -> tuple[Sequence[RolloutEngine], Transport]:
    """Engines that serve ``model`` as version 0, running, and a way to hand them the next one.

    ``stack`` ends them. Raises ``StorageError`` without shared memory for the weights,
    ``MissingExtraError`` without Ray where that is asked for.
    """
    settings = EngineConfig(
        num_pages=-(-rollouts.cache_tokens // _PAGE),
        page_size=_PAGE,
        max_running=rollouts.at_once,
        records_routing=rollouts.routing == "replay",
    )
    if rollouts.engines == 0:
        thread = EngineThread(Engine(served_copy(model, dtype), settings, clock=clock))
        thread.start()
        stack.callback(thread.stop)
        return [thread], InProcess(thread)
    host = HostSettings(
        model.config,
        dtype,
        device,
        settings,
        int(plan_threads(rollouts.engines).value),
        is_batch_invariant(),
    )
    store: Store
    begin: Start
    if rollouts.ray:
        start_ray(stack)
        store, begin = RayStore(model, dtype), in_ray(host)
    else:
        store = SharedMemoryStore(model, dtype)
        stack.callback(store.close)
        begin = in_children(host, store.files)
    weights = store.write(model, 0)
    store.keep()
    longest = min(model.config.max_positions, settings.num_pages * settings.page_size)
    engines = [RemoteEngine(begin, weights, longest, clock) for _ in range(rollouts.engines)]
    for engine in engines:
        engine.start()
        stack.callback(engine.stop)
    return engines, Remote(engines, store)
