"""Log-probabilities of tokens as OpenAI writes them: with text and bytes."""

from __future__ import annotations

from pydantic import BaseModel

from selenite.serve.engine.request import SampledToken
from selenite.serve.service import Service


class TopLogprob(BaseModel):
    """A token and its log-probability."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob):
    """The token that was drawn, and the likeliest ones."""

    top_logprobs: list[TopLogprob]


class TokenWords:
    """Tokens as text and bytes."""

    def __init__(self, service: Service) -> None:
        self._tokenizer = service.tokenizer
        self._vocabulary = service.vocabulary
        self._texts: dict[int, str] = {}  # of the tokens that were asked for

    def text(self, id: int) -> str:
        """U+FFFD stands for bytes that are only a part of a character."""
        text = self._texts.get(id)
        if text is None:
            text = self._texts[id] = self._tokenizer.decode([id])
        return text

    def logprob(self, token: SampledToken) -> TokenLogprob:
        """The token with the likeliest ones beside it."""
        assert token.logprob is not None, "log-probabilities were not asked for"
        drawn = self._entry(token.token_id, token.logprob)
        top = [self._entry(id, logprob) for id, logprob in token.top]
        return TokenLogprob(**drawn.model_dump(), top_logprobs=top)

    def _entry(self, id: int, logprob: float) -> TopLogprob:
        spelled = list(self._vocabulary[id]) if id < len(self._vocabulary) else []
        return TopLogprob(token=self.text(id), logprob=logprob, bytes=spelled)
