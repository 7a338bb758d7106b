"""How a model family talks: its tool calls, its reasoning section, what ends a reply, its template.

A profile is chosen from the vocabulary and the template (``detect_profile``), or by name from
``PROFILES``.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from importlib.resources import files

from selenite.chat.call_format import CallFormat
from selenite.chat.hermes_calls import BEGIN as HERMES_BEGIN
from selenite.chat.hermes_calls import HermesFormat
from selenite.chat.k2_calls import SECTION_BEGIN, K2Format
from selenite.chat.tokenizer import Tokenizer
from selenite.errors import TokenizerError

_SMOLLM2_MARK = "named SmolLM"


@dataclass(frozen=True)
class Reasoning:
    """The section in which a model thinks before it answers."""

    begin: str = "<think>"
    end: str = "</think>"
    padding: str = "\n"  # characters beside the markers that belong to neither side


@dataclass(frozen=True)
class ChatProfile:
    """What ``ReplyParser`` and ``Conversation`` know about a model family."""

    name: str
    calls: CallFormat | None  # None: the model knows no tools
    reasoning: Reasoning | None = None
    stop: tuple[str, ...] = ()  # special tokens that end a reply, besides the vocabulary's own
    template_file: str | None = None  # under templates/; None: the tokenizer's own template

    def template(self, tokenizer: Tokenizer) -> str:
        """The source of the chat template; raises ``TokenizerError`` where there is none."""
        if self.template_file is not None:
            path = files("selenite.chat").joinpath("templates", self.template_file)
            return path.read_text(encoding="utf-8")
        if tokenizer.chat_template is None:
            raise TokenizerError(
                "the tokenizer has no chat template; add chat_template.jinja to its folder"
            )
        return tokenizer.chat_template

    def stop_ids(self, tokenizer: Tokenizer) -> tuple[int, ...]:
        """Ids that end a reply: the profile's, and the vocabulary's end token."""
        known = tokenizer.special_tokens
        names = [*self.stop, tokenizer.roles.get("eos_token", "")]
        return tuple(dict.fromkeys(known[name] for name in names if name in known))

    def check_vocabulary(self, tokenizer: Tokenizer) -> None:
        """Raises ``TokenizerError`` where the vocabulary lacks a token that calls are made of."""
        for name in self.calls.tokens if self.calls else ():
            if name not in tokenizer.special_tokens:
                raise TokenizerError(
                    f"the profile {self.name!r} needs the special token {name!r}, which this "
                    "vocabulary lacks; choose the profile that belongs to the model: "
                    + ", ".join(PROFILES)
                )


K2 = ChatProfile("k2", K2Format(), stop=("<|im_end|>", "[EOS]", "[EOT]"))
K2_THINKING = dataclasses.replace(K2, name="k2-thinking", reasoning=Reasoning(padding=""))
HERMES = ChatProfile("hermes", HermesFormat(), stop=("<|im_end|>", "<|endoftext|>"))
HERMES_THINKING = dataclasses.replace(HERMES, name="hermes-thinking", reasoning=Reasoning())
SMOLLM2 = dataclasses.replace(HERMES, name="smollm2", template_file="smollm2.jinja")
PLAIN = ChatProfile("plain", None)

PROFILES: dict[str, ChatProfile] = {
    profile.name: profile for profile in (K2, K2_THINKING, HERMES, HERMES_THINKING, SMOLLM2, PLAIN)
}


def detect_profile(tokenizer: Tokenizer) -> tuple[ChatProfile, str]:
    """The profile of a model's tokenizer, and why it was chosen."""
    template = tokenizer.chat_template or ""
    thinks = Reasoning.begin in tokenizer.special_tokens or Reasoning.begin in template
    if SECTION_BEGIN in tokenizer.special_tokens:
        return (K2_THINKING if thinks else K2), f"the vocabulary has {SECTION_BEGIN}"
    if HERMES_BEGIN in template:
        return (HERMES_THINKING if thinks else HERMES), f"the template writes {HERMES_BEGIN}"
    if _SMOLLM2_MARK in template:
        return SMOLLM2, "the template is SmolLM2's, which has no tools"
    return PLAIN, "neither the vocabulary nor the template has a format of calls that is known"
