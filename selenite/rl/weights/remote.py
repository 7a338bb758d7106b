"""Weights for engines in other processes: written once, read by each.

Where they are written is a store's: ``shared_memory.SharedMemoryStore`` on this machine,
``ray_store.RayStore`` on any of Ray's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from selenite.model.transformer import Transformer
from selenite.rl.remote.engine import RemoteEngine
from selenite.rl.remote.messages import Weights
from selenite.rl.weights.bus import StagingError


class Store(Protocol):
    """Keeps the version that serves, and the next one beside it."""

    def write(self, model: Transformer, version: int) -> Weights:
        """Writes a version in the place of the next one."""
        ...

    def keep(self) -> None:
        """What was written last serves from now on; the place of the one before is free."""
        ...


class Remote:
    """A ``Transport`` to engines in other processes."""

    def __init__(self, engines: Sequence[RemoteEngine], store: Store) -> None:
        self._engines, self._store = engines, store
        self._staged: Weights | None = None

    def stage(self, model: Transformer, version: int) -> None:
        """Raises ``StagingError`` where an engine refuses the version, or dies over it."""
        weights = self._store.write(model, version)
        futures = [engine.stage(weights) for engine in self._engines]
        errors = [error for error in (future.exception() for future in futures) if error]
        if errors:
            for engine in self._engines:
                engine.discard().result()
            raise StagingError(
                f"weights version {version} was not taken by {len(errors)} of "
                f"{len(self._engines)} engines ({errors[0]})"
            ) from errors[0]
        self._staged = weights

    def commit(self) -> None:
        """Raises ``UnavailableError`` where an engine has ended for good."""
        assert self._staged is not None
        # From here on an engine that dies begins anew with the new version.
        self._store.keep()
        for future in [engine.commit(self._staged) for engine in self._engines]:
            future.result()
        self._staged = None
