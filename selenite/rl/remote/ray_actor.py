"""A channel to an engine in an actor of Ray's, on any of its machines; weights come through Ray's
object store.

Ray starts by itself on this machine, or is the cluster that ``RAY_ADDRESS`` names.
"""

from __future__ import annotations

import os
import warnings
from concurrent.futures import Future
from contextlib import ExitStack
from types import ModuleType
from typing import Any

from selenite.errors import MissingExtraError
from selenite.rl.remote.engine import SILENCE, START_SECONDS, EngineDiedError, Start
from selenite.rl.remote.host import Host
from selenite.rl.remote.messages import HostSettings, Weights


def import_ray() -> ModuleType:
    """The package; raises ``MissingExtraError`` without it."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody asked for reports of usage
    try:
        import ray
    except ModuleNotFoundError as error:
        raise MissingExtraError("ray", "ray", "engines as actors of Ray's") from error
    return ray


def start_ray(stack: ExitStack) -> None:
    """Starts Ray, or connects to it, unless that is done; ``stack`` ends it."""
    ray = import_ray()
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=True)
        stack.callback(ray.shutdown)


class RayChannel:
    """A ``Channel``. Arguments as ``ProcessChannel``'s, but for the places."""

    def __init__(self, settings: HostSettings, weights: Weights, is_paused: bool) -> None:
        self._ray = import_ray()
        on_device = {"num_gpus": 1} if settings.device.startswith("cuda") else {}
        # Calls come one after another; news are waited for beside them.
        actor = self._ray.remote(
            num_cpus=1, max_restarts=0, concurrency_groups={"news": 1}, **on_device
        )(_actor_class())
        self._actor = actor.remote(settings, weights.manifest, weights.place, is_paused)
        self._get(self._actor.ready.remote(), START_SECONDS)

    def call(self, method: str, *arguments: Any) -> Future[Any]:
        """``Channel.call``."""
        future: Future[Any] = Future()
        errors = self._ray.exceptions

        def told(done: Future[Any]) -> None:
            error = done.exception()
            if error is None:
                future.set_result(done.result())
            elif isinstance(error, errors.RayActorError):
                future.set_exception(EngineDiedError(_first_line(error)))
            elif isinstance(error, errors.RayTaskError):
                future.set_exception(error.cause)
            else:
                future.set_exception(error)

        getattr(self._actor, method).remote(*arguments).future().add_done_callback(told)
        return future

    def news(self) -> list[Any]:
        """``Channel.news``."""
        found = self._get(self._actor.news.remote(), SILENCE)
        assert isinstance(found, list)
        return found

    def close(self) -> None:
        """Kills the actor: it has nothing to lose."""
        self._ray.kill(self._actor)

    def _get(self, reference: Any, seconds: float) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference, timeout=seconds)
        except errors.GetTimeoutError as error:
            self.close()
            raise EngineDiedError(f"silent for {seconds:g} s; has Ray a core for it?") from error
        except (errors.RayActorError, errors.RayTaskError) as error:
            raise EngineDiedError(_first_line(error)) from error


def _actor_class() -> type[Host]:
    """``Host``, with news in a thread of its own."""
    ray = import_ray()

    class EngineActor(Host):
        def __init__(self, *arguments: Any) -> None:
            # Ray's objects cannot be written, and are not: weights are copied out of them.
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            super().__init__(*arguments)

        @ray.method(concurrency_group="news")
        def news(self) -> list[Any]:
            return super().news()

    return EngineActor


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def in_ray(settings: HostSettings) -> Start:
    """Starts engines as actors."""

    def start(weights: Weights, is_paused: bool) -> RayChannel:
        return RayChannel(settings, weights, is_paused)

    return start
