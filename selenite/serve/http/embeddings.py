"""``/v1/embeddings``. Extension field: ``pooling``, last or mean."""

from __future__ import annotations

import base64
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, Field

from selenite.errors import ConfigError
from selenite.serve.attention_mode import AttentionMode
from selenite.serve.engine.pooling import Pooling
from selenite.serve.http.completions import Prompts, prompts_of
from selenite.serve.http.protocol import Body
from selenite.serve.service import Service


class EmbeddingBody(Body):
    """The request."""

    input: Prompts
    model: str | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = None
    pooling: Pooling = "last"
    cache_salt: str = ""
    attention: AttentionMode | None = None
    user: str | None = None

    async def response(self, service: Service) -> Embeddings:
        """Computes the vectors. Raises ``ConfigError`` for a size that the model does not have."""
        size = service.loaded.model.config.hidden_size
        if self.dimensions not in (None, size):
            raise ConfigError(f"dimensions={self.dimensions}: this model's vectors have {size}")
        vectors, num_tokens = await service.embed(
            prompts_of(self.input), self.pooling, self.model, self.cache_salt, self.attention
        )
        data = [
            Embedding(index=index, embedding=self._encoded(vector))
            for index, vector in enumerate(vectors)
        ]
        usage = EmbeddingUsage(prompt_tokens=num_tokens, total_tokens=num_tokens)
        return Embeddings(data=data, model=self.model or service.loaded.name, usage=usage)

    def _encoded(self, vector: list[float]) -> list[float] | str:
        if self.encoding_format == "float":
            return vector
        return base64.b64encode(np.array(vector, dtype="<f4").tobytes()).decode()


class Embedding(BaseModel):
    """A vector: numbers, or base64 of little-endian float32."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(BaseModel):
    """Tokens of all inputs."""

    prompt_tokens: int
    total_tokens: int


class Embeddings(BaseModel):
    """The answer."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage
