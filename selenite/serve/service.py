"""Between HTTP and the engine: prompts in, completions out, as typed records.

Text work (templates, tokenising, compiling grammars) is done on worker threads, never on the
engine's. Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

from selenite.chat.conversation import Conversation
from selenite.errors import ConfigError, OverloadedError, UnavailableError
from selenite.serve.attention_mode import AttentionMode
from selenite.serve.choice_text import ChoiceText, Parser, PlainText
from selenite.serve.config import ServeConfig
from selenite.serve.conversations import Conversations
from selenite.serve.embedding import AT_ONCE, embed
from selenite.serve.engine.engine import Engine
from selenite.serve.engine.loop import EngineThread
from selenite.serve.engine.pooling import Pooling
from selenite.serve.engine.request import Grammar, Request
from selenite.serve.gated_grammar import AfterReasoning
from selenite.serve.generation import Choice, Generation, timed_out
from selenite.serve.grammar import GrammarFactory
from selenite.serve.load import LoadedModel
from selenite.serve.timelines import Timelines
from selenite.serve.weight_update import WeightUpdater
from selenite.types import FinishReason, Message, SamplingParams, ToolSpec

MakeGrammar = Callable[[GrammarFactory], Grammar]
"""Compiles what the text must follow; raises ``ConfigError`` where that is not possible."""

_MAX_CHOICES = 128
_GRAMMAR_SECONDS = 60.0


@dataclass(frozen=True)
class Options:
    """How completions are drawn and where they stop."""

    params: SamplingParams
    fill: bool = False  # ``params.max_tokens`` is not meant: as many tokens as there is room for
    n: int = 1
    stop: tuple[str, ...] = ()
    include_stop: bool = False
    salt: str = ""
    attention: AttentionMode | None = None  # what rows read; None: as the server has it
    model: str | None = None  # one of ``Service.names``; None: the model itself
    grammar: MakeGrammar | None = None


@dataclass(frozen=True)
class ChatRequest:
    """A conversation to be answered."""

    messages: tuple[Message, ...]
    options: Options
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: str = "none"  # none, auto, required, or the name of a tool
    parallel_calls: bool = True  # False: the first call ends the reply
    constrained: bool = True  # False: calls (tool_choice auto) are written without a grammar


@dataclass(frozen=True)
class CompletionRequest:
    """Prompts to be continued, each ``options.n`` times."""

    prompts: tuple[str | tuple[int, ...], ...]
    options: Options
    add_special_tokens: bool = True  # the start token before a text


@dataclass(frozen=True)
class Load:
    """What a service has to do now."""

    running: int
    waiting: int
    open: int  # completions that clients wait for
    pages: int
    pages_in_use: int  # by running completions; what only the prefix cache holds is free


@dataclass(frozen=True)
class _Prompt:
    """A prompt as the engine takes it."""

    ids: tuple[int, ...]
    parsers: Sequence[Parser]  # one for each of ``Options.n``
    grammar: Callable[[], Grammar | None]
    compiles: bool  # there is a grammar: it takes time
    conversation: Conversation | None = None
    banned_ids: frozenset[int] = frozenset()


class Service:
    """A loaded model and its running engine.

    ``listeners`` are told every completion that ended or was left. Use on one event loop.
    """

    def __init__(self, loaded: LoadedModel, config: ServeConfig) -> None:
        self.loaded = loaded
        self.config = config
        self.tokenizer = loaded.tokenizer
        self.profile = loaded.profile
        self.vocabulary = loaded.tokenizer.vocabulary()  # bytes of each token
        self._longest_token = max(map(len, self.vocabulary))  # bytes
        self.engine = Engine(loaded.model, loaded.engine, model_id=loaded.name)
        for name, directory in config.adapters.items():
            self.engine.load_adapter(name, directory)
        self.thread = EngineThread(self.engine)
        self.weights = WeightUpdater(self.thread)
        self.timelines = Timelines(self.engine.clock, loaded.name)
        self.listeners: list[Callable[[Choice], None]] = [self.timelines.end]
        self.created = int(datetime.now(UTC).timestamp())
        self.num_open = 0  # completions that have not ended
        self.is_draining = False
        special = self.tokenizer.special_tokens
        openers = self.profile.calls.openers if self.profile.calls else ()
        # Where no tool may be called, they are never sampled.
        self._call_openers = frozenset(special[name] for name in openers if name in special)
        self._conversations = Conversations(
            self.tokenizer, self.profile, config.conversation_tokens, self._max_characters
        )
        self._grammars = GrammarFactory(
            self.tokenizer, loaded.model.config.vocab_size, self.profile
        )
        # Waits for the process that compiles; tokenising must not wait with it.
        self._grammar_worker = ThreadPoolExecutor(1, "grammar")
        self._seconds = 1.0  # of a completion, a moving average
        self._idle = asyncio.Event()
        self._idle.set()

    def start(self) -> None:
        """Starts the engine's thread, and the process that compiles grammars."""
        self.engine.warm_up()
        self.thread.start()
        self._grammars.start()

    @property
    def names(self) -> list[str]:
        """What clients can ask for: the model, then its adapters."""
        return [self.loaded.name, *self.config.adapters]

    @property
    def max_tokens(self) -> int:
        """Of a prompt and its completion together."""
        config = self.loaded.engine
        cached = config.num_pages * config.page_size
        return min(self.loaded.model.config.max_positions, cached)

    @property
    def _max_characters(self) -> int:
        """A longer text has more tokens than ``max_tokens``: encoding it would take the memory of a
        hundred bytes for each."""
        return self.max_tokens * self._longest_token

    def load(self) -> Load:
        """Read beside the engine's thread: the numbers may be a step old."""
        scheduler, pool = self.engine.scheduler, self.engine.pool
        running = list(scheduler.running)
        used = {page for request in running for page in list(request.pages)}
        waiting = len(scheduler.waiting)
        return Load(len(running), waiting, self.num_open, pool.num_pages, len(used))

    async def chat(self, request: ChatRequest) -> Generation:
        """Starts answering a conversation."""
        self._admit(request.options.n)
        prompt = await asyncio.to_thread(self._chat_prompt, request)
        return await self._generate([prompt], request.options)

    async def complete(self, request: CompletionRequest) -> Generation:
        """Starts continuing prompts."""
        self._admit(request.options.n * len(request.prompts))
        prompts = await asyncio.to_thread(self._plain_prompts, request)
        return await self._generate(prompts, request.options)

    async def embed(
        self,
        inputs: Sequence[str | tuple[int, ...]],
        pooling: Pooling,
        model: str | None = None,
        salt: str = "",
        attention: AttentionMode | None = None,
    ) -> tuple[list[list[float]], int]:
        """A vector for each input, and the tokens of all."""
        count = min(len(inputs), AT_ONCE)
        self._admit(count)
        prompts = await asyncio.to_thread(lambda: [self._ids(one, True) for one in inputs])
        self._begin(count)
        try:
            async with asyncio.timeout(self.config.request_timeout):
                adapter = self._adapter(model)
                vectors = await embed(self.thread, prompts, pooling, adapter, salt, attention)
        except TimeoutError as error:
            raise timed_out(self.config.request_timeout) from error
        finally:
            self._end(count)
        return vectors, sum(map(len, prompts))

    def chat_ids(
        self, messages: Sequence[Message], tools: Sequence[ToolSpec], add_generation_prompt: bool
    ) -> list[int]:
        """The ids of a conversation."""
        conversation = self._conversations.open(messages, tools)
        return conversation.prompt_ids() if add_generation_prompt else list(conversation.ids)

    def text_ids(self, text: str, add_special_tokens: bool) -> list[int]:
        """The ids of a text, the start token before it where the vocabulary adds one."""
        return (self.tokenizer.prompt_ids if add_special_tokens else self.tokenizer.encode)(text)

    def _ids(self, prompt: str | tuple[int, ...], add_special_tokens: bool) -> tuple[int, ...]:
        if isinstance(prompt, str):
            if len(prompt) > self._max_characters:
                raise ConfigError(
                    f"the prompt has {len(prompt)} characters, which are more than "
                    f"{self.max_tokens} tokens, the most that there is room for; shorten it"
                )
            return tuple(self.text_ids(prompt, add_special_tokens))
        return prompt

    async def drain(self, timeout: float) -> None:
        """Takes nothing new and waits for what runs, then ends what is left."""
        self.is_draining = True
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        except TimeoutError:
            await asyncio.to_thread(self.thread.stop)

    def close(self) -> None:
        """Ends the engine's thread."""
        self.thread.stop()
        self._grammar_worker.shutdown(wait=False, cancel_futures=True)
        self._grammars.close()

    def _admit(self, count: int) -> None:
        """Raises the reason why ``count`` more completions are not taken."""
        if not self.thread.is_alive:
            raise UnavailableError("the engine failed; the server must be started again")
        if self.is_draining:
            raise UnavailableError("the server is shutting down and takes no new requests")
        room = self.config.max_running + self.config.max_waiting
        if count > min(_MAX_CHOICES, room):
            raise ConfigError(
                f"n={count}: at most {min(_MAX_CHOICES, room)} completions in a request; send more "
                "requests"
            )
        if self.num_open + count > room:
            queued = max(1, self.num_open - self.config.max_running)
            seconds = math.ceil(self._seconds * queued / self.config.max_running)
            raise OverloadedError(
                f"{self.num_open} completions run or wait, and {room} is the most; try again in "
                f"{seconds} s, or start the server with a larger --max-num-seqs",
                retry_after=min(60, max(1, seconds)),
            )

    def _chat_prompt(self, request: ChatRequest) -> _Prompt:
        options = request.options
        offered = request.tool_choice != "none"
        conversation = self._conversations.open(request.messages, request.tools, options.salt)
        ids = tuple(conversation.prompt_ids())

        parsers = [conversation.parser(tools_offered=offered) for _ in range(options.n)]
        in_reasoning = parsers[0].in_reasoning
        return _Prompt(
            ids,
            parsers,
            lambda: self._chat_grammar(request, in_reasoning),
            request.options.grammar is not None or (offered and request.constrained),
            conversation,
            frozenset() if offered else self._call_openers,
        )

    def _chat_grammar(self, request: ChatRequest, in_reasoning: bool) -> Grammar | None:
        """What a reply must follow; none of it holds for reasoning."""
        vocab_size = self.loaded.model.config.vocab_size
        grammar: Grammar
        if request.options.grammar is not None:
            grammar = request.options.grammar(self._grammars)
        elif request.tool_choice != "none" and request.constrained:
            grammar = self._grammars.tools(
                request.tools, request.tool_choice, request.parallel_calls
            )
        else:
            return None
        if self.profile.reasoning is None:
            return grammar
        return AfterReasoning(
            grammar, self.profile.reasoning, self.tokenizer, vocab_size, in_reasoning
        )

    def _plain_prompts(self, request: CompletionRequest) -> list[_Prompt]:
        make = request.options.grammar
        return [
            _Prompt(
                self._ids(prompt, request.add_special_tokens),
                [PlainText(self.tokenizer) for _ in range(request.options.n)],
                lambda: None if make is None else make(self._grammars),
                make is not None,
            )
            for prompt in request.prompts
        ]

    async def _generate(self, prompts: Sequence[_Prompt], options: Options) -> Generation:
        choices: list[Choice] = []
        for prompt in prompts:
            choices += await self._choices(prompt, options, len(choices))
        generation = Generation(
            uuid.uuid4().hex,
            self.thread,
            choices,
            self.engine.clock,
            self.config.request_timeout,
            self._ended,
        )
        self._admit(len(choices))  # others may have come meanwhile
        self._begin(len(choices))
        await generation.submit()
        self.timelines.begin(generation)
        return generation

    async def _choices(self, prompt: _Prompt, options: Options, first: int) -> list[Choice]:
        """``options.n`` completions of a prompt; the first computes it for all."""
        params = self._params(prompt, options)
        ends = frozenset(self.profile.stop_ids(self.tokenizer))
        choices: list[Choice] = []
        for sample, parser in enumerate(prompt.parsers):
            text = ChoiceText(
                parser,
                options.stop,
                options.include_stop,
                frozenset(params.stop_token_ids) - ends,
                params.min_tokens,
            )
            request = Request(
                id=uuid.uuid4().hex,
                prompt=prompt.ids,
                params=params if sample == 0 else _unscored(params),
                end_token_ids=ends,
                sample=sample,
                salt=options.salt,
                adapter=self._adapter(options.model),
                attention=options.attention,
                grammar=await self._compile(prompt.grammar) if prompt.compiles else None,
                banned_ids=prompt.banned_ids,
                stops=text.hook,
                leader=choices[0].request if choices else None,
            )
            choices.append(Choice(first + sample, request, text, prompt.conversation))
        return choices

    def _params(self, prompt: _Prompt, options: Options) -> SamplingParams:
        if not options.fill:
            return options.params
        room = self.max_tokens - len(prompt.ids)
        if room < 1:
            raise ConfigError(
                f"the prompt has {len(prompt.ids)} tokens, and prompt and completion together have "
                f"at most {self.max_tokens}; shorten the conversation"
            )
        if options.params.min_tokens > room:
            raise ConfigError(
                f"min_tokens={options.params.min_tokens}: there is room for {room} after the "
                "prompt; lower it"
            )
        return dataclasses.replace(options.params, max_tokens=room)

    async def _compile(self, make: Callable[[], Grammar | None]) -> Grammar | None:
        loop = asyncio.get_running_loop()
        try:
            # Not wait_for: on Python 3.11 it can swallow that the client has gone.
            async with asyncio.timeout(_GRAMMAR_SECONDS):
                return await loop.run_in_executor(self._grammar_worker, make)
        except TimeoutError as error:
            raise OverloadedError(
                f"the grammars of others were compiled for {_GRAMMAR_SECONDS:g} seconds; try again",
                retry_after=10,
            ) from error

    def _begin(self, count: int) -> None:
        self.num_open += count
        self._idle.clear()

    def _end(self, count: int) -> None:
        self.num_open -= count
        if not self.num_open:
            self._idle.set()

    def _adapter(self, model: str | None) -> str | None:
        return model if model in self.config.adapters else None

    def _ended(self, choice: Choice) -> None:
        self._end(1)
        if choice.end is not None and choice.ended_at is not None:
            seconds = choice.ended_at - choice.request.arrival
            self._seconds += 0.1 * (seconds - self._seconds)
        self._remember(choice)
        for listener in self.listeners:
            listener(choice)

    def _remember(self, choice: Choice) -> None:
        """Keeps the conversation, if what its reader has is what the model wrote."""
        if choice.conversation is None or choice.end is None:
            return
        request, reply = choice.request, choice.reply
        if choice.text.stop_string is not None or reply.malformed:
            return
        if choice.end.reason is FinishReason.LENGTH and choice.end.has_calls:
            return  # the section of calls may be open
        sampled = [token.token_id for token in request.completion]
        self._conversations.remember(choice.conversation, sampled, reply, request.salt)


def _unscored(params: SamplingParams) -> SamplingParams:
    """The prompt is scored once for all of its samples."""
    return dataclasses.replace(params, prompt_logprobs=None)
