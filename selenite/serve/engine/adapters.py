"""LoRA adapters by name, of which one at most is in the model at a time."""

from __future__ import annotations

from pathlib import Path

from selenite.errors import ConfigError
from selenite.model.layers import Adapter
from selenite.model.lora import put_adapters, take_adapters
from selenite.model.lora_files import load_lora, read_lora_config
from selenite.model.transformer import Transformer


class Adapters:
    """The adapters that a model's requests may name."""

    def __init__(self, model: Transformer) -> None:
        self._model = model
        self._loaded: dict[str, dict[str, Adapter]] = {}
        self._in_use: str | None = None
        self._num_loaded = 0
        self._generations: dict[str, int] = {}

    def load(self, name: str, directory: Path) -> None:
        """Reads an adapter; it takes part when a step's requests name it."""
        if name in self._loaded:
            raise ConfigError(f"adapter {name!r} is loaded already; unload it first")
        self.use(None)
        targets = read_lora_config(directory, self._model).targets
        if "head" in targets and self._model.config.tie_embeddings:
            raise ConfigError(
                f"adapter {name!r} changes the head, which this model shares with its embedding; "
                "merge it (selenite convert) and serve the merged model"
            )
        load_lora(self._model, directory)
        self._loaded[name] = take_adapters(self._model)
        self._num_loaded += 1
        self._generations[name] = self._num_loaded

    def unload(self, name: str) -> None:
        """Forgets an adapter."""
        self.check(name)
        self.use(None)
        del self._loaded[name]

    def use(self, name: str | None) -> None:
        """Puts an adapter into the model; None: takes out what is in it."""
        if name == self._in_use:
            return
        take_adapters(self._model)
        if name is not None:
            put_adapters(self._model, self._loaded[name])
        self._in_use = name

    def move_to(self, model: Transformer) -> None:
        """From now on the adapters go into another model."""
        self.use(None)
        self._model = model

    def key(self, name: str | None) -> str:
        """What entries depend on: another adapter may be loaded under the same name."""
        return "" if name is None else f"{name} {self._generations[name]}"

    def check(self, name: str | None) -> None:
        """Raises ``ConfigError`` for an adapter that is not loaded."""
        if name is not None and name not in self._loaded:
            known = ", ".join(self._loaded) or "none"
            raise ConfigError(f"adapter {name!r} is not loaded (loaded: {known})")
