"""What a completion must follow: JSON, a schema, a pattern, a choice, or the tools' schemas.

Compiled by xgrammar into masks over the vocabulary. A special token counts only as itself: no text
of a grammar can be written with it, and free text around tool calls holds none. Where the model
writes calls with special tokens (K2), those trigger the schema; elsewhere the opening text does.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from selenite.chat.profile import ChatProfile
from selenite.chat.tokenizer import Tokenizer
from selenite.clock import Clock, SystemClock
from selenite.errors import ConfigError, MissingExtraError
from selenite.serve.grammar_process import GrammarProcess, Kind
from selenite.serve.object_schema import object_schema
from selenite.types import ToolSpec

if TYPE_CHECKING:
    import xgrammar

Format = dict[str, Any]  # a node of xgrammar's structural tags

# A small model can write spaces for ever; one between tokens is what json.dumps writes.
_WHITESPACE = 1
# Of processor time; hardly a grammar takes a hundredth of it. All requests wait for each one's.
_BURST_SECONDS = 0.1
_TOKEN_SECONDS = 0.005
_NAMING_SECONDS = 2.0  # for finding the tool whose schema is to blame
# 0xfe begins no UTF-8 sequence, so no text of a grammar matches a special token.
_SPECIAL = b"\xfe"
_CONTROL = frozenset(range(32))
_TAB = 9
_PARTING = frozenset({_TAB, 10, 13})  # tab and line ends may stand between JSON's tokens


@dataclass(frozen=True)
class Surrogates:
    """Tokens that together spell half a surrogate pair, which is no UTF-8; xgrammar allows it."""

    begun_by: frozenset[int]  # end with the byte 0xed
    ended_by: list[int]  # begin with 0xa0 to 0xbf

    @classmethod
    def of(cls, vocabulary: Sequence[bytes]) -> Surrogates:
        """By the bytes of each token."""
        tokens = [(i, entry) for i, entry in enumerate(vocabulary) if entry]
        begun_by = frozenset(i for i, entry in tokens if entry[-1] == 0xED)
        return cls(begun_by, [i for i, entry in tokens if 0xA0 <= entry[0] <= 0xBF])


@dataclass(frozen=True)
class CallBounds:
    """Where calls begin and end, and the tokens that none may hold though the text around may.

    xgrammar lets tabs into JSON strings of bounded length, where they are not allowed.
    """

    vocabulary: Sequence[bytes]
    begin: bytes
    end: bytes
    never: list[int]


class TokenGrammar:
    """A compiled grammar at one place of one completion (``engine.request.Grammar``).

    Both methods raise ``ConfigError`` once it has taken too much of the engine's time: a text that
    can be read in ever more ways makes each token slower than the one before.
    """

    def __init__(
        self,
        matcher: xgrammar.GrammarMatcher,
        vocab_size: int,
        never: Sequence[int],
        surrogates: Surrogates,
        calls: CallBounds | None = None,
    ) -> None:
        import xgrammar

        self._matcher = matcher
        self._vocab_size = vocab_size
        self._never = list(never)
        self._surrogates = surrogates
        self._calls = calls
        self._is_in_call = False
        self._tail = b""  # of the text, as long as the start of a marker may be
        self._last: int | None = None
        self._granted = _BURST_SECONDS
        self._bits = xgrammar.allocate_token_bitmask(1, vocab_size)

    def allowed_V(self) -> np.ndarray | None:
        """bool ``[V]``: tokens that may come next; None: all of them."""
        begun = time.thread_time()
        is_restricted = self._matcher.fill_next_token_bitmask(self._bits)
        self._charge(time.thread_time() - begun)
        if not is_restricted:
            return None
        bits = np.unpackbits(self._bits.numpy().view(np.uint8), bitorder="little")
        allowed_V = bits[: self._vocab_size].astype(bool)
        allowed_V[self._never] = False
        if self._last in self._surrogates.begun_by:
            allowed_V[self._surrogates.ended_by] = False
        if self._calls and self._is_in_call:
            allowed_V[self._calls.never] = False
        return allowed_V

    def accept(self, token: int) -> None:
        """Moves on by a sampled token, which was allowed."""
        begun = time.thread_time()
        accepted = self._matcher.accept_token(token)
        assert accepted, f"the grammar's own mask allowed token {token}"
        self._last = token
        if self._calls:
            self._follow(self._calls, self._calls.vocabulary[token])
        self._granted += _TOKEN_SECONDS
        self._charge(time.thread_time() - begun)

    def _follow(self, calls: CallBounds, text: bytes) -> None:
        self._tail += text
        while (marker := calls.end if self._is_in_call else calls.begin) in self._tail:
            self._is_in_call = not self._is_in_call
            self._tail = self._tail.partition(marker)[2]
        self._tail = self._tail[-len(marker) :]

    def _charge(self, seconds: float) -> None:
        self._granted -= seconds
        if self._granted < 0:
            raise ConfigError(
                "the grammar: following it takes the server too long here, since the text can be "
                "read in very many ways; simplify it"
            )


class GrammarFactory:
    """Compiles grammars for a vocabulary; what was compiled before is kept.

    Args:
        tokenizer: of the model.
        vocab_size: logits of the model; it can be more than the tokenizer has tokens.
        profile: how the model writes calls, and what ends its replies.

    Raises ``MissingExtraError`` without xgrammar.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, profile: ChatProfile) -> None:
        try:
            import xgrammar
        except ModuleNotFoundError as error:
            raise MissingExtraError("xgrammar", "serve", "structured output") from error
        self._special = tokenizer.special_tokens
        self._stop = profile.stop_ids(tokenizer)
        self._profile = profile
        self._vocab_size = vocab_size
        vocabulary = tokenizer.vocabulary()
        # xgrammar lets control characters into JSON strings, where they are not allowed.
        control = [(i, _CONTROL & {*entry}) for i, entry in enumerate(vocabulary)]
        self._control = [i for i, found in control if found - _PARTING]
        self._off_line = [i for i, found in control if found]
        self._surrogates = Surrogates.of(vocabulary)
        for name, index in self._special.items():
            vocabulary[index] = _SPECIAL + name.encode()
        self._vocabulary = vocabulary
        self._tabbed = [i for i, found in control if _TAB in found]
        info = xgrammar.TokenizerInfo(
            vocabulary,
            xgrammar.VocabType.RAW,
            vocab_size=vocab_size,
            stop_token_ids=list(self._stop),
        )
        self._process = GrammarProcess(info)
        self._clock: Clock = SystemClock()

    def start(self) -> None:
        """Starts the process that compiles, so that the first grammar need not wait for it."""
        self._process.start()

    def close(self) -> None:
        """Ends the process that compiles."""
        self._process.close()

    def json_object(self) -> TokenGrammar:
        """Any JSON object."""
        return self.json_schema({"type": "object"})

    def json_schema(self, schema: dict[str, Any]) -> TokenGrammar:
        """JSON of this schema on one line; raises ``ConfigError`` for one that cannot be compiled.

        One line is what Moonshot's verifier asks of a formatted text, and holds no tabs.
        """
        return self._tagged(_json(schema), "the JSON schema", self._off_line)

    def regex(self, pattern: str) -> TokenGrammar:
        """Text that the pattern matches whole; raises ``ConfigError`` for a broken one."""
        return self._compiled("regex", pattern, f"the regular expression {pattern[:80]!r}")

    def choice(self, choices: Sequence[str]) -> TokenGrammar:
        """One of these texts; raises ``ConfigError`` where there are none or one is empty."""
        if not choices or not all(choices):
            raise ConfigError(f"choice={list(choices)}: give at least one text, and no empty one")
        texts = [{"type": "const_string", "value": text} for text in choices]
        return self._tagged({"type": "or", "elements": texts}, "the choice")

    def tools(
        self,
        tools: Sequence[ToolSpec],
        choice: Literal["auto", "required"] | str,
        parallel: bool = True,
    ) -> TokenGrammar:
        """Calls whose arguments follow the tools' schemas.

        Args:
            tools: what may be called.
            choice: ``auto``: text with any calls in it; ``required``: one call or more and nothing
                else; or the name of the one tool to call once.
            parallel: False: nothing follows the first call.

        Raises ``ConfigError`` for an unknown name, a model without a format of calls, and a schema
        that cannot be compiled, naming the tool.
        """
        named = choice not in ("auto", "required")
        offered = [tool for tool in tools if not named or tool.name == choice]
        if not offered:
            known = ", ".join(tool.name for tool in tools) or "none"
            raise ConfigError(f"tool_choice={choice!r}: there is no such tool (offered: {known})")
        if self._profile.calls is None:
            raise ConfigError(
                f"tools: the profile {self._profile.name!r} has no format of tool calls; start the "
                "server with the profile of the model, or leave out tools"
            )
        calls = self._calls(offered, choice == "auto", one=named or not parallel)
        bounds = self._bounds(offered[0])
        if len(offered) == 1:
            return self._tagged(calls, f"the schema of {offered[0].name!r}", calls=bounds)
        try:
            return self._tagged(calls, "the tools", calls=bounds)
        except ConfigError:
            end = self._clock.now() + _NAMING_SECONDS
            for tool in offered:  # which one is it?
                if self._clock.now() > end:  # all together were too much; others wait
                    break
                self._tagged(_arguments(tool), f"the schema of {tool.name!r}")
            raise

    def _calls(self, tools: Sequence[ToolSpec], is_auto: bool, one: bool) -> Format:
        assert self._profile.calls is not None
        section = self._profile.calls.section
        if section is not None:
            calls = [self._token_call(tool) for tool in tools]
            any_call = {"type": "or", "elements": calls} if len(calls) > 1 else calls[0]
            content = any_call if one else {"type": "plus", "content": any_call}
            begin, end = (self._token(name) for name in section)
            if not is_auto:
                return _sequence(begin, content, end)
            opener = self._special[section[0]]
            return {
                "type": "token_triggered_tags",
                "trigger_tokens": [opener],
                "tags": [{"type": "tag", "begin": begin, "content": content, "end": end}],
                "exclude_tokens": sorted({*self._special.values()} - {opener, *self._stop}),
                "stop_after_first": one,
            }
        return {
            "type": "triggered_tags",
            "triggers": [self._profile.calls.trigger],
            "tags": [self._text_call(tool) for tool in tools],
            "at_least_one": not is_auto,
            "stop_after_first": one,
        }

    def _bounds(self, tool: ToolSpec) -> CallBounds:
        assert self._profile.calls is not None
        sign = _SPECIAL if self._profile.calls.section else b""
        begin = sign + self._profile.calls.trigger.encode()
        end = sign + self._profile.calls.tag(tool.name).end.encode()
        return CallBounds(self._vocabulary, begin, end, self._tabbed)

    def _token_call(self, tool: ToolSpec) -> Format:
        """``begin`` and the other parts, special tokens as tokens and the rest as text."""
        assert self._profile.calls is not None
        tag = self._profile.calls.tag(tool.name)
        opener = self._profile.calls.trigger
        return _sequence(
            self._token(opener),
            {"type": "const_string", "value": tag.begin.removeprefix(opener)},
            {"type": "regex", "pattern": tag.index_pattern},
            self._token(tag.arguments_begin),
            _arguments(tool),
            self._token(tag.end),
        )

    def _text_call(self, tool: ToolSpec) -> Format:
        assert self._profile.calls is not None
        tag = self._profile.calls.tag(tool.name)
        content = _arguments(tool)
        return {"type": "tag", "begin": tag.begin, "content": content, "end": tag.end}

    def _token(self, name: str) -> Format:
        return {"type": "token", "token": self._special[name]}

    def _tagged(
        self,
        content: Format,
        what: str,
        never: Sequence[int] | None = None,
        calls: CallBounds | None = None,
    ) -> TokenGrammar:
        tag = {"type": "structural_tag", "format": content}
        never = self._control if never is None else never
        if content["type"] == "triggered_tags":
            # Free text with triggers of text would take a special token's bytes.
            never = [*never, *sorted({*self._special.values()} - {*self._stop})]
        return self._compiled("structural_tag", json.dumps(tag), what, never, calls)

    def _compiled(
        self,
        kind: Kind,
        source: str,
        what: str,
        never: Sequence[int] = (),
        calls: CallBounds | None = None,
    ) -> TokenGrammar:
        import xgrammar

        try:
            matcher = xgrammar.GrammarMatcher(self._process.compile(kind, source))
        except ConfigError as error:
            raise _not_compiled(what, error) from error
        return TokenGrammar(matcher, self._vocab_size, never, self._surrogates, calls)


def _json(schema: dict[str, Any]) -> Format:
    return {"type": "json_schema", "json_schema": schema, "max_whitespace_cnt": _WHITESPACE}


def _arguments(tool: ToolSpec) -> Format:
    try:
        return _json(object_schema(tool.parameters))
    except ConfigError as error:
        raise _not_compiled(f"the schema of {tool.name!r}", error) from error


def _not_compiled(what: str, error: ConfigError) -> ConfigError:
    return ConfigError(f"{what} cannot be compiled: {error}; mend or simplify it")


def _sequence(*elements: Format) -> Format:
    return {"type": "sequence", "elements": list(elements)}
