"""What ``selenite rephrase`` is told."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from selenite.agent.models.config import ACCESS, EndpointConfig
from selenite.agent.rephrasing.fidelity import FidelityConfig
from selenite.config import Config
from selenite.data.sources import Source
from selenite.data.split import SplitConfig


class ModelConfig(EndpointConfig):
    """A model behind an OpenAI-compatible endpoint; see docs/models.md."""

    temperature: float | None = 0.8  # None: the endpoint's own
    max_tokens: int | None = Field(default=None, ge=1)  # of a reply; None: the endpoint's own


class RulesBackend(Config):
    """No model: forms, sentences and words are changed by rules."""

    kind: Literal["rules"] = "rules"
    weight: float = Field(default=1.0, gt=0)


class ModelBackend(ModelConfig):
    """A model that rewrites."""

    kind: Literal["model"] = "model"
    weight: float = Field(default=1.0, gt=0)


Backend = Annotated[RulesBackend | ModelBackend, Field(discriminator="kind")]


class RephrasingConfig(Config):
    """Rephrasings of documents. All but ``workers`` and the access to models decides the bytes."""

    out_dir: Path
    seed: int = Field(default=0, ge=0)
    sources: tuple[Source, ...] = Field(min_length=1)  # as in data
    max_bytes: int | None = Field(default=20_000_000, ge=1)  # of text, shared among the sources
    split: SplitConfig | None = SplitConfig()  # what it holds out is not rephrased; None: all is
    rounds: int = Field(default=2, ge=1, le=10)  # of each document; K2: at most 2, 10 in a trial
    chunk_chars: int = Field(default=1024, ge=200, le=16_384)  # K2's figure: 256 tokens
    context_chars: int = Field(
        default=16_384, ge=0
    )  # of what is written; K2's figure: 4,096 tokens
    tries: int = Field(default=3, ge=1)  # of a chunk
    most_kept: float = Field(default=0.0, ge=0, lt=1)  # of a document that may stay as it was
    least_chars: int = Field(default=200, ge=1)  # of a document
    least_prose: float = Field(default=0.5, ge=0, le=1)  # of a document; the rest is code, tables
    likeness: float = Field(default=0.8, gt=0, le=1)  # from which on data drops one of two texts
    fidelity: FidelityConfig = FidelityConfig()
    backends: tuple[Backend, ...] = Field(default=(RulesBackend(),), min_length=1)
    judge: ModelConfig | None = None
    most_failed: float = Field(default=0.1, ge=0, le=1)  # of a shard, by endpoints: more stop
    shard_documents: int = Field(default=64, ge=1)
    workers: int = Field(default=2, ge=1)

    @property
    def uses_models(self) -> bool:
        """Whether an endpoint is asked at all."""
        return self.judge is not None or any(one.kind == "model" for one in self.backends)

    def decisive(self) -> dict[str, Any]:
        """All that the rephrasings follow from."""
        access: dict[str, Any] = dict.fromkeys(ACCESS, True)
        unread: dict[str, Any] = {"out_dir": True, "workers": True, "most_failed": True}
        unread |= {"backends": {"__all__": access}, "judge": access}
        return self.model_dump(mode="json", exclude=unread)
