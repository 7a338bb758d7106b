"""A source document, and what is looked up in it again and again."""

from __future__ import annotations

from functools import cached_property

from selenite.agent.rephrasing.facts import Evidence, code_and_prose
from selenite.agent.rephrasing.language import language_of
from selenite.agent.rephrasing.names import WORD, is_coined, names_in, plain, small_words_in
from selenite.agent.rephrasing.numerals import dates_in


class Original:
    """A document that is rephrased."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.evidence = Evidence(text)

    def names_of(self, chunk: str) -> frozenset[str]:
        """The names in a chunk, at the start of a sentence too: other places show that they are."""
        return frozenset(plain(match[0]) for match in WORD.finditer(chunk)) & self._names

    @cached_property
    def language(self) -> str:
        """Of its prose; empty: not decided."""
        return language_of(self._prose)

    @cached_property
    def small_words(self) -> frozenset[str]:
        """Words that it writes with a small letter, somewhere."""
        return small_words_in(self._prose)

    @cached_property
    def _prose(self) -> str:
        _, prose = code_and_prose(self.text)
        return dates_in(prose)[1]  # a month is no name

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(
            name
            for name in names_in(self._prose)
            if is_coined(name) or name.lower() not in self.small_words
        )
