"""Other weights for a server that goes on serving: received and verified first, swapped at once.

The new weights are read beside the old ones: every file's SHA-256, every tensor's own checksum
where its file has them, names, shapes and config. Whatever is wrong leaves the old weights
serving. The swap itself is a pointer's, between two steps of the engine.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from pathlib import Path

from selenite import atomic
from selenite.errors import CheckpointError, ConfigError, OutOfMemoryError
from selenite.model.accounting import count_parameters
from selenite.model.hf_adapter import load_pretrained, read_config
from selenite.model.pack import pack_weights
from selenite.model.transformer import Transformer
from selenite.runtime import available_memory, mebibytes
from selenite.serve.engine.engine import AtSwap
from selenite.serve.engine.loop import EngineThread


@dataclass(frozen=True)
class WeightVersion:
    """Which weights are served."""

    version: int
    sha256: str | None  # of the directory that they came from; None: those of the start


@dataclass(frozen=True)
class Prepared:
    """New weights, verified, beside the old ones."""

    model: Transformer
    sha256: str


class WeightUpdater:
    """Updates the weights of an engine's thread, one update at a time."""

    def __init__(self, thread: EngineThread) -> None:
        self._thread = thread
        self._busy = threading.Lock()
        self.current = WeightVersion(thread.engine.weight_version, None)

    def update(
        self,
        directory: Path,
        version: int | None = None,
        sha256: str | None = None,
        running: AtSwap = "recompute",
    ) -> WeightVersion:
        """Blocks until the new weights serve.

        Args:
            directory: a model directory, the model's own but for the weights.
            version: reported with each token from then on; None: the next number.
            sha256: what ``directory_sha256`` must give; None: not compared.
            running: what happens to requests in the middle (``Engine.swap_weights``).

        Raises:
            ConfigError: a version that is not above the current one, another update at work.
            CheckpointError: a directory that is damaged, of another model, or not the one meant;
                a path that cannot be read.
            OutOfMemoryError: no room for two models.
        """
        if not self._busy.acquire(blocking=False):
            raise ConfigError("update: another update of the weights is at work; wait for its end")
        try:
            engine = self._thread.engine
            version = engine.weight_version + 1 if version is None else version
            if version <= engine.weight_version:
                raise ConfigError(
                    f"version={version}: must be above {engine.weight_version}, which is served"
                )
            try:
                prepared = prepare(directory, engine.runner.model, sha256)
            except OSError as error:
                raise CheckpointError(
                    f"path: cannot be read ({error.strerror or error}); give a model directory"
                ) from error
            self._thread.swap_weights(prepared.model, version, running).result()
            self.current = WeightVersion(version, prepared.sha256)
            return self.current
        finally:
            self._busy.release()


def prepare(directory: Path, served: Transformer, sha256: str | None) -> Prepared:
    """Reads and verifies the weights of ``directory`` for the place of those that are served."""
    config = read_config(directory)
    if config != served.config:
        differing = [
            name
            for name in type(config).model_fields
            if getattr(config, name) != getattr(served.config, name)
        ]
        raise CheckpointError(
            f"{directory}: another model than the one that is served (different: "
            f"{', '.join(differing)}); start another server for it"
        )
    needed = 4 * count_parameters(config).total
    available = available_memory()
    if needed > available.num_bytes:
        raise OutOfMemoryError(
            f"new weights take {mebibytes(needed)} beside the old ones while they are read, but "
            f"there are only {mebibytes(available.num_bytes)} ({available.limit}); start the "
            "server with a smaller --kv-cache-tokens"
        )
    found = directory_sha256(directory)
    if sha256 is not None and sha256.lower() != found:
        raise CheckpointError(
            f"{directory}: its SHA-256 is {found}, not {sha256}; copy the directory again"
        )
    model = load_pretrained(directory).to(served.embed.weight.device).cast(served.compute_dtype)
    pack_weights(model, served.is_int8)
    return Prepared(model, found)


def directory_sha256(directory: Path) -> str:
    """SHA-256 (hex) over the names and SHA-256 of a directory's safetensors files, by name."""
    files = sorted(directory.glob("*.safetensors"))
    lines = [f"{path.name} {atomic.sha256(path)}\n" for path in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
