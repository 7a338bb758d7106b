"""``/tokenize`` and ``/detokenize``: the server's own view of a text, or of a conversation."""

from __future__ import annotations

from pydantic import BaseModel, Field

from selenite.errors import ConfigError
from selenite.serve.http.protocol import Body, ChatMessage, Items, Tool
from selenite.serve.service import Service


class TokenizeBody(Body):
    """A text, or a conversation under the model's template."""

    model: str | None = None
    prompt: str | None = Field(default=None, max_length=2**22)
    messages: Items[ChatMessage] | None = None
    tools: Items[Tool] | None = None
    add_special_tokens: bool = True
    add_generation_prompt: bool = True

    def ids(self, service: Service) -> list[int]:
        """Raises ``ConfigError`` for neither, or both."""
        if (self.prompt is None) == (not self.messages):
            raise ConfigError("prompt: give a prompt, or messages")
        if self.prompt is not None:
            return service.text_ids(self.prompt, self.add_special_tokens)
        messages = [message.message() for message in self.messages or ()]
        tools = [tool.function.spec() for tool in self.tools or ()]
        return service.chat_ids(messages, tools, self.add_generation_prompt)


class Tokenized(BaseModel):
    """The ids."""

    count: int
    max_model_len: int
    tokens: list[int]


class DetokenizeBody(Body):
    """Ids."""

    model: str | None = None
    tokens: Items[int] = Field(max_length=2**22)

    def text(self, service: Service) -> str:
        """Special tokens by name. Raises ``ConfigError`` for an id that is no token."""
        size = service.tokenizer.vocab_size
        wrong = [id for id in self.tokens if not 0 <= id < size]
        if wrong:
            raise ConfigError(f"tokens: {wrong[0]} is not in the vocabulary of {size}")
        return service.tokenizer.decode(self.tokens)


class Detokenized(BaseModel):
    """The text."""

    prompt: str
