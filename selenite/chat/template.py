"""Conversations to text and to token ids, through a chat template (jinja2, sandboxed).

The K2 template stands in ``templates/k2.jinja``. Those of other models come from their Hugging
Face tokenizer folders and see what ``transformers`` gives them, with two differences: arguments
of calls are the JSON text that the model wrote, never a table, and there is no ``strftime_now``,
for a prompt must not change overnight. ``encode_conversation`` gives the special tokens that the
template writes their ids, and never those that a message, tool or name spells.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from itertools import count
from typing import TYPE_CHECKING, Any, NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from selenite.chat.openai_form import message_entry, tool_entry
from selenite.errors import TokenizerError
from selenite.types import Message, ToolSpec

if TYPE_CHECKING:
    from selenite.chat.tokenizer import Tokenizer


def k2_template() -> str:
    """The source of the K2 template."""
    return _shipped("k2")


def compact_template(is_k2: bool) -> str:
    """A template with short declarations of tools: K2's with these in the place of JSON, or ChatML
    with calls in Hermes' form."""
    tools = _shipped("tools")
    if not is_k2:
        return tools + _shipped("compact")
    before, after = k2_template().split("{{ tools | tojson(separators=(',', ':')) }}")
    return f"{tools}{before}{{{{ declarations(tools) }}}}{after}"


def _shipped(name: str) -> str:
    return files("selenite.chat").joinpath(f"templates/{name}.jinja").read_text(encoding="utf-8")


def render(
    template: str,
    messages: Sequence[Message],
    tools: Sequence[ToolSpec] = (),
    *,
    add_generation_prompt: bool = False,
    variables: Mapping[str, Any] | None = None,
) -> str:
    """The conversation as text, special tokens by name.

    ``variables`` are further names for the template (``Tokenizer.roles``). Raises
    ``TokenizerError`` when the template is malformed or refuses the conversation.
    """
    conversation = [message_entry(message) for message in messages]
    offered = [tool_entry(tool) for tool in tools]
    return _render(template, conversation, offered, add_generation_prompt, variables or {})


def encode_conversation(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    tools: Sequence[ToolSpec] = (),
    *,
    add_generation_prompt: bool = False,
) -> list[int]:
    """Token ids of the conversation under the tokenizer's own template.

    Where a message spells a special token, a place-holder stands for it while the template runs,
    so every special token in the rendering was written by the template. (A template that glues
    two parts of the input together with nothing between could still form one; K2's does not.)
    """
    if tokenizer.chat_template is None:
        raise TokenizerError(
            "the tokenizer has no chat template; add chat_template.jinja to its folder"
        )
    rendering = Rendering(tokenizer, tokenizer.chat_template, messages, tools)
    return rendering.encode(rendering.text(len(messages), add_generation_prompt))


class Rendering:
    """The first turns of one conversation as text, as many as are asked for, and as ids.

    The text carries place-holders for special tokens that messages spell, the same in each
    rendering, so that texts can be compared and cut; ``encode`` gives their ids.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: str,
        messages: Sequence[Message],
        tools: Sequence[ToolSpec],
    ) -> None:
        conversation: Any = [message_entry(message) for message in messages]
        offered: Any = [tool_entry(tool) for tool in tools]
        self._tokenizer, self._template = tokenizer, template
        self._specials = tokenizer.special_tokens
        self._mask = _Mask(self._specials, json.dumps([conversation, offered], ensure_ascii=False))
        self._conversation = [self._mask.hide(entry) for entry in conversation]
        self._offered = [self._mask.hide(entry) for entry in offered]

    def text(self, count: int, add_generation_prompt: bool = False) -> str:
        """The first ``count`` messages. Raises ``TokenizerError`` where the template refuses."""
        return _render(
            self._template,
            self._conversation[:count],
            self._offered,
            add_generation_prompt,
            self._tokenizer.roles,
        )

    def parts(self, text: str) -> list[str]:
        """``text`` cut at special tokens: pieces of text, some empty, and names in turn."""
        return self._mask.special_pattern.split(text)

    def encode(self, text: str) -> list[int]:
        """Ids of a text of this rendering, or of a part of one."""
        ids: list[int] = []
        for place, part in enumerate(self.parts(text)):
            if place % 2:
                ids.append(self._specials[part])
            elif part:
                ids.extend(self._tokenizer.encode(self._mask.show(part)))
        return ids


class _Mask:
    """Replaces special tokens in untrusted strings by words that occur nowhere in them."""

    def __init__(self, specials: Mapping[str, int], untrusted: str) -> None:
        longest_first = sorted(specials, key=len, reverse=True)
        self.special_pattern = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")
        taken = set(re.findall("hidden([0-9]+)x", untrusted))  # once: a text can spell many
        salt = next(number for number in count() if str(number) not in taken)
        # Letters and digits only, so that no escaping in a template can alter them.
        self._words = {name: f"hidden{salt}x{index}x" for index, name in enumerate(longest_first)}
        self._names = {word: name for name, word in self._words.items()}
        self._word_pattern = re.compile("|".join(map(re.escape, self._names)))

    def hide(self, value: Any) -> Any:
        """``value`` (JSON-like) with every special token in its strings and keys replaced."""
        if isinstance(value, str):
            return self.special_pattern.sub(lambda match: self._words[match[0]], value)
        if isinstance(value, dict):
            return {self.hide(key): self.hide(entry) for key, entry in value.items()}
        if isinstance(value, list):
            return [self.hide(entry) for entry in value]
        return value

    def show(self, text: str) -> str:
        """The inverse of ``hide`` on rendered text."""
        return self._word_pattern.sub(lambda match: self._names[match[0]], text)


def _render(
    template: str,
    conversation: list[Any],
    tools: list[Any],
    add_generation_prompt: bool,
    variables: Mapping[str, Any],
) -> str:
    try:
        return _compile(template).render(
            messages=conversation,
            tools=tools or None,
            add_generation_prompt=add_generation_prompt,
            **variables,
        )
    except (TemplateError, TypeError, ValueError, ArithmeticError) as error:
        raise TokenizerError(
            f"the chat template cannot render this conversation ({error}); mend the conversation, "
            "or the template in the tokenizer's folder"
        ) from error


@lru_cache(maxsize=8)  # compiling takes longer than rendering
def _compile(template: str) -> Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    return environment.from_string(template)


class _Generation(Extension):
    """``{% generation %}...{% endgeneration %}``: marks what the model wrote; changes no text."""

    tags = {"generation"}  # noqa: RUF012 (the base class declares it so)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as is: jinja2's own filter escapes ``<`` and ``>`` for HTML."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _refuse(message: str) -> NoReturn:
    """What templates call to reject a conversation."""
    raise TemplateError(message)
