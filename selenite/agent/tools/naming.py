"""How a domain names its tools and parameters: each keeps to one style, as real APIs do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from selenite.agent.values.kind import spoken

_SHORT = {
    "create": "new",
    "delete": "rm",
    "update": "set",
    "list": "ls",
    "search": "find",
    "get": "get",
    "count": "cnt",
    "transfer": "xfer",
    "duplicate": "dup",
}
_LONG = {
    "create": "create_new",
    "delete": "permanently_delete",
    "update": "update_existing",
    "get": "retrieve",
    "list": "list_all",
    "search": "search_for",
}


_PARTICLES = frozenset(
    ("back", "down", "in", "off", "on", "out", "over", "to", "under", "up", "away")
)


def doing(verb: str, thing: str) -> str:
    """A verb of several words with its object: "put the dish on menu", "clock in the shift"."""
    first, *rest = verb.split("_")
    if not rest:
        return f"{first} {thing}"
    if rest[0] not in _PARTICLES:
        return f"{spoken(verb)} of {thing}"
    return f"{spoken(verb)} {thing}" if len(rest) == 1 else f"{first} {thing} {' '.join(rest)}"


def singular(name: str) -> str:
    """Of several things, one."""
    if name.endswith("ies"):
        return f"{name[:-3]}y"
    if name.endswith(("sses", "shes", "ches", "xes")):
        return name[:-2]
    return name.removesuffix("s")


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def _plain(name: str) -> str:
    return name


@dataclass(frozen=True)
class Style:
    """``tool`` makes a name of a verb and a noun, both in snake case; ``param`` of a field."""

    name: str
    tool: Callable[[str, str], str]
    param: Callable[[str], str] = _plain


STYLES = {
    style.name: style
    for style in (
        Style("verb_noun", lambda verb, noun: f"{verb}_{noun}"),
        Style("camel", lambda verb, noun: _camel(f"{verb}_{noun}"), _camel),
        Style("noun_verb", lambda verb, noun: f"{noun}_{verb}"),
        Style("dotted", lambda verb, noun: f"{noun}.{verb}"),
        Style("dotted_camel", lambda verb, noun: f"{noun}.{_camel(verb)}", _camel),
        Style("kebab", lambda verb, noun: f"{verb}-{noun}".replace("_", "-")),
        Style("terse", lambda verb, noun: f"{_SHORT.get(verb, verb)}_{noun}"),
        Style("verbose", lambda verb, noun: f"{_LONG.get(verb, verb)}_{noun}"),
    )
}
"""By name. Verbs and nouns say the same in each."""
