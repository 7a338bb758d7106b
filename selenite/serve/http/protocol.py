"""What all endpoints share of OpenAI's protocol: bodies, sampling fields, messages, usage, errors.

Unknown fields are passed over, as vLLM does. Known ones that would change the result and are not
supported are refused (``REFUSED``), never ignored.
"""

from __future__ import annotations

import logging
import secrets
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    model_validator,
)

from selenite.errors import ConfigError
from selenite.serve.attention_mode import AttentionMode
from selenite.serve.service import MakeGrammar, Options
from selenite.types import Message, SamplingParams, ToolCall, ToolSpec

logger = logging.getLogger(__name__)

REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "priority": ((0,), "requests run in order of arrival"),
    "suffix": (("",), "the models served here do not fill in the middle"),
    "best_of": ((1,), "ask for n completions and choose"),
    "use_beam_search": ((False,), "this server samples"),
    "length_penalty": ((1, 1.0), "it belongs to beam search"),
    "bad_words": (([],), "use logit_bias"),
    "allowed_token_ids": ((), "use structured_outputs.choice or structured_outputs.regex"),
    "prompt_logprobs": ((), "use echo with logprobs in /v1/completions, or /generate"),
    "truncate_prompt_tokens": ((), "shorten the prompt"),
    "prompt_embeds": ((), "send text or token ids"),
    "functions": (([],), "use tools"),
    "function_call": (("none",), "use tool_choice"),
    "guided_json": ((), "use response_format, or structured_outputs"),
    "guided_regex": ((), "use structured_outputs.regex"),
    "guided_choice": ((), "use structured_outputs.choice"),
    "guided_grammar": ((), "use structured_outputs"),
    "chat_template": ((), "the template belongs to the model"),
    "chat_template_kwargs": (({},), "the template takes none"),
    "documents": (([],), "put them into a message"),
    "add_generation_prompt": ((True,), "a reply is a new turn; use /v1/completions otherwise"),
    "echo": ((False,), "use /v1/completions"),
    "continue_final_message": ((False,), "use /v1/completions to continue a text"),
    "audio": ((), "text only"),
    "modalities": ((["text"],), "text only"),
    "web_search_options": ((), "this server has no search"),
    "previous_response_id": ((), "nothing is stored here: send the earlier turns in input"),
    "conversation": ((), "nothing is stored here: send the earlier turns in input"),
    "prompt": ((), "nothing is stored here"),
    "background": ((False,), "wait for the response, or stream it"),
}
"""Field to the values that change nothing, and why it is refused otherwise."""

_MOST_UNKNOWN = 100
_unknown: set[str] = set()  # fields that the log has named

Item = TypeVar("Item")
Items = Annotated[list[Item], Field(fail_fast=True)]
"""A list that its first fault ends: millions of faults in one body would each be described."""


def at_most(count: int) -> BeforeValidator:
    """Of a dictionary's entries, before they are looked at one by one; as ``Items``."""

    def check(value: Any) -> Any:
        if isinstance(value, dict) and len(value) > count:
            raise ValueError(f"has {len(value)} entries, and {count} is the most")
        return value

    return BeforeValidator(check)


Probability = Annotated[float, Field(ge=0, le=1)]
NumChoices = Annotated[int, Field(ge=1, le=128)]


class Body(BaseModel):
    """Base of all request bodies."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _refuse(cls, body: Any) -> Any:
        """Names the first field that is known and not supported; the log has the unknown ones."""
        for field, value in body.items() if isinstance(body, dict) else ():
            if field in cls.model_fields:
                continue
            if field not in REFUSED:
                _say_unknown(cls, field)
                continue
            harmless, why = REFUSED[field]
            if value is not None and value not in harmless:
                raise ValueError(f"{field} is not supported: {why}")
        return body


_PASSED_OVER = frozenset(
    {
        *("metadata", "prediction", "prompt_cache_key", "reasoning_effort", "safety_identifier"),
        *("service_tier", "store", "text", "user", "verbosity"),
    }
)
"""OpenAI's fields that a client may always send and that change nothing here."""


def _say_unknown(body: type[BaseModel], field: str) -> None:
    """Once for each name, and not for ever: clients choose them."""
    aliases = {known.alias for known in body.model_fields.values()}
    known = aliases | _PASSED_OVER
    if field in known or field in _unknown or len(_unknown) == _MOST_UNKNOWN:
        return
    _unknown.add(field)
    logger.warning("a request's field %.64r is not known here and was passed over", field)


class StructuredOutputs(Body):
    """vLLM's extension; one of the three."""

    json_schema: dict[str, JsonValue] | None = Field(default=None, alias="json")
    regex: str | None = Field(default=None, max_length=10_000)
    choice: Items[Annotated[str, Field(max_length=10_000)]] | None = Field(
        default=None, max_length=1000
    )


StopString = Annotated[str, Field(max_length=1000)]


class SamplingFields(Body):
    """How tokens are drawn: OpenAI's fields, and vLLM's names for further ones."""

    model: str | None = Field(default=None, description="None: the one that is served.")
    temperature: float = Field(default=1.0, ge=0, le=100)
    top_p: float = Field(default=1.0, gt=0, le=1)
    stop: StopString | Annotated[Items[StopString], Field(max_length=16)] | None = None
    stream: bool | None = False
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**64)
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    logit_bias: (
        Annotated[dict[str, Annotated[float, Field(ge=-100, le=100)]], at_most(1024)] | None
    ) = Field(default=None, max_length=1024)
    user: str | None = None
    # What OpenAI does not have.
    top_k: int = Field(default=0, ge=-1, description="0 and -1: all tokens.")
    min_p: Probability = 0.0
    repetition_penalty: float = Field(default=1.0, ge=0.01, le=100)
    min_tokens: int = Field(default=0, ge=0)
    stop_token_ids: Items[Annotated[int, Field(ge=0)]] = Field(default_factory=list, max_length=256)
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    cache_salt: str = Field(default="", description="Prefixes are shared within one salt only.")
    attention: AttentionMode | None = Field(
        default=None, description="What is read of the context; None: as the server has it."
    )
    structured_outputs: StructuredOutputs | None = None
    return_token_ids: bool = Field(default=False, description="Adds the ids of prompt and text.")

    @model_validator(mode="before")
    @classmethod
    def _null_is_not_given(cls, body: Any) -> Any:
        """Clients send null for what they leave at its default."""
        if not isinstance(body, dict):
            return body
        return {
            field: value
            for field, value in body.items()
            if value is not None
            or field not in cls.model_fields
            or cls.model_fields[field].is_required()
        }

    def stop_strings(self) -> tuple[str, ...]:
        """Raises ``ConfigError`` for an empty one."""
        strings = [self.stop] if isinstance(self.stop, str) else self.stop or []
        if not all(strings):
            raise ConfigError("stop: a stop string must not be empty")
        return tuple(strings)

    def options(
        self,
        max_tokens: int | None,
        logprobs: int | None = None,
        prompt_logprobs: int | None = None,
        grammar: MakeGrammar | None = None,
        n: int = 1,
    ) -> Options:
        """As the service takes them. ``max_tokens=None``: as many as fit."""
        seed = secrets.randbits(63) if self.seed is None else self.seed % 2**64
        try:
            params = SamplingParams(
                temperature=self.temperature if self.temperature >= 1e-6 else 0.0,
                top_k=max(0, self.top_k),
                top_p=self.top_p,
                min_p=self.min_p,
                max_tokens=2**62 if max_tokens is None else max_tokens,
                seed=seed,
                stop_token_ids=tuple(self.stop_token_ids),
                ignore_eos=self.ignore_eos,
                repetition_penalty=self.repetition_penalty,
                presence_penalty=self.presence_penalty,
                frequency_penalty=self.frequency_penalty,
                logit_bias=self._biases(),
                min_tokens=self.min_tokens,
                logprobs=logprobs,
                prompt_logprobs=prompt_logprobs,
            )
        except ValueError as error:
            raise ConfigError(str(error)) from error
        return Options(
            params,
            fill=max_tokens is None,
            n=n,
            stop=self.stop_strings(),
            include_stop=self.include_stop_str_in_output,
            salt=self.cache_salt,
            attention=self.attention,
            model=self.model,
            grammar=grammar or self._structured(),
        )

    def _biases(self) -> tuple[tuple[int, float], ...]:
        biases = self.logit_bias or {}
        for token in biases:
            if not (token.isascii() and token.isdigit() and len(token) <= 9):
                raise ConfigError(
                    f"logit_bias: {token[:40]!r} is no token id; its keys are ids in decimal digits"
                )
        return tuple((int(token), bias) for token, bias in biases.items())

    def _structured(self) -> MakeGrammar | None:
        wanted = self.structured_outputs
        if wanted is None:
            return None
        schema, regex, choice = wanted.json_schema, wanted.regex, wanted.choice
        if sum(part is not None for part in (schema, regex, choice)) != 1:
            raise ConfigError("structured_outputs: give one of json, regex and choice")
        if schema is not None:
            return lambda grammars: grammars.json_schema(schema)
        if regex is not None:
            return lambda grammars: grammars.regex(regex)
        assert choice is not None
        return lambda grammars: grammars.choice(choice)


class StreamOptions(Body):
    """Of a stream."""

    include_usage: bool | None = False
    """One more chunk at the end, without choices; the others have null."""
    continuous_usage_stats: bool | None = False
    """vLLM's: the tokens so far, in every chunk."""


class TextPart(Body):
    """A piece of a message's text."""

    type: Literal["text", "input_text", "output_text", "refusal"]
    text: str = ""


Content = str | Items[TextPart]


def text_of(content: Content | None) -> str:
    """A message's text."""
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part.text for part in content)


class FunctionCall(Body):
    """The tool and its arguments."""

    name: str = Field(min_length=1, max_length=256)
    arguments: str


class CallEntry(Body):
    """A call in an assistant's turn."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class ChatMessage(Body):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content | None = None
    name: str | None = None
    tool_calls: Items[CallEntry] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None

    def message(self) -> Message:
        """As the template takes it."""
        return Message(
            "system" if self.role == "developer" else self.role,
            text_of(self.content),
            name=self.name,
            tool_calls=tuple(
                ToolCall(call.function.name, call.function.arguments, call.id)
                for call in self.tool_calls or ()
            ),
            tool_call_id=self.tool_call_id,
            reasoning=self.reasoning_content or self.reasoning,
        )


class FunctionSpec(Body):
    """A tool's function."""

    name: str = Field(min_length=1, max_length=256)
    description: str | None = None
    parameters: dict[str, JsonValue] | None = None
    strict: bool | None = None

    def spec(self) -> ToolSpec:
        """Without parameters: an object of no members."""
        parameters = self.parameters or {"type": "object", "properties": {}}
        return ToolSpec(self.name, self.description or "", dict(parameters))


class Tool(Body):
    """A tool as offered to the model."""

    type: Literal["function"]
    function: FunctionSpec


class NamedFunction(Body):
    """A function by name."""

    name: str = Field(min_length=1)


class NamedTool(Body):
    """The tool that must be called."""

    type: Literal["function"]
    function: NamedFunction


class JsonSchemaFormat(Body):
    """A named schema."""

    name: str = Field(min_length=1)
    description: str | None = None
    json_schema: dict[str, JsonValue] = Field(alias="schema")
    strict: bool | None = None


class ResponseFormat(Body):
    """What the text must be."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None

    def grammar(self) -> MakeGrammar | None:
        """None: any text."""
        if self.type == "json_object":
            return lambda grammars: grammars.json_object()
        if self.type == "text":
            return None
        if self.json_schema is None:
            raise ConfigError("response_format.json_schema: must be there with type=json_schema")
        schema = dict(self.json_schema.json_schema)
        return lambda grammars: grammars.json_schema(schema)


class PromptDetails(BaseModel):
    """Of the prompt's tokens."""

    cached_tokens: int


class CompletionDetails(BaseModel):
    """Of drafts that were verified: those that were said, and those that were not."""

    accepted_prediction_tokens: int
    rejected_prediction_tokens: int


class Usage(BaseModel):
    """Tokens of a request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails


class ErrorBody(BaseModel):
    """OpenAI's error object."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(BaseModel):
    """The body of every answer that is no success."""

    error: ErrorBody
