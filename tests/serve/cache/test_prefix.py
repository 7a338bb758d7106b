"""Pages and prefixes against a naive model of who holds what."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from selenite.serve.cache.pages import PagePool
from selenite.serve.cache.prefix import PageKeys, PrefixCache, page_key, root_key

SIZE = 2
ROOTS = (root_key("a"), root_key("b"))
# Few values, so that prefixes are often common.
TOKENS = st.lists(st.integers(0, 1), min_size=1, max_size=9)


def keys(root: bytes, tokens: list[int], size: int = SIZE) -> list[bytes]:
    return PageKeys(root, size).first(len(tokens) // size, tokens)


class PoolAndPrefixes(RuleBasedStateMachine):
    """Sequences come with whatever prefix is published, publish theirs and go, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = PagePool(num_pages=12, page_size=SIZE)
        self.prefix = PrefixCache(self.pool)
        self.sequences: list[tuple[bytes, list[int], list[int]]] = []
        # What a page's entries were computed from. The oracle of every match.
        self.content: dict[int, tuple[bytes, tuple[int, ...]]] = {}

    @rule(root=st.sampled_from(ROOTS), tokens=TOKENS)
    def begin(self, root: bytes, tokens: list[int]) -> None:
        pages = self.prefix.match(keys(root, tokens[:-1]))
        for index, page in enumerate(pages):
            assert self.content[page] == (root, tuple(tokens[: (index + 1) * SIZE]))
        missing = self.pool.pages_for(len(tokens)) - len(pages)
        if missing > self.pool.num_free:
            self.prefix.evict(missing - self.pool.num_free)
        new = self.pool.allocate(missing)
        if new is None:
            self.pool.release(pages)
            return
        for index, page in enumerate([*pages, *new]):
            self.content[page] = root, tuple(tokens[: (index + 1) * SIZE])
        self.sequences.append((root, tokens, [*pages, *new]))

    @precondition(lambda self: self.sequences)
    @rule(data=st.data())
    def publish(self, data: st.DataObject) -> None:
        root, tokens, pages = data.draw(st.sampled_from(self.sequences))
        self.prefix.publish(keys(root, tokens), pages)
        found = self.prefix.match(keys(root, tokens))
        self.pool.release(found)
        assert found == pages[: len(tokens) // SIZE]

    @precondition(lambda self: self.sequences)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        sequence = data.draw(st.sampled_from(self.sequences))
        self.sequences.remove(sequence)
        self.pool.release(sequence[2])

    @rule(count=st.integers(0, 5))
    def evict(self, count: int) -> None:
        before = self.pool.num_free
        idle = self.prefix.num_idle()
        freed = self.prefix.evict(count)
        assert freed == min(count, idle)
        assert self.pool.num_free == before + freed
        if freed < count:
            # What is left is held by a sequence, or stands before such a page.
            used = {page for _, _, pages in self.sequences for page in pages}
            assert set(self.prefix.pages()) <= used

    @rule()
    def clear(self) -> None:
        self.prefix.clear()
        assert len(self.prefix) == 0

    @invariant()
    def everything_is_accounted_for(self) -> None:
        self.pool.check_integrity([*(p for _, _, p in self.sequences), self.prefix.pages()])


PoolAndPrefixes.TestCase.settings = settings(max_examples=200, stateful_step_count=40)
TestPoolAndPrefixes = PoolAndPrefixes.TestCase


def test_the_prefix_used_longest_ago_goes_first_and_ends_before_beginnings():
    pool = PagePool(num_pages=6, page_size=1)
    prefix = PrefixCache(pool)
    kept = {}
    for name, tokens in {"old": [1, 2], "new": [1, 3], "other": [4]}.items():
        pages = pool.allocate(len(tokens))
        assert pages is not None
        prefix.publish(keys(ROOTS[0], tokens, 1), pages)
        pool.release(pages)
        kept[name] = tokens
    assert len(prefix) == 4  # the first token is stored once

    def found(tokens: list[int]) -> int:
        pages = prefix.match(keys(ROOTS[0], tokens, 1))
        pool.release(pages)
        return len(pages)

    assert prefix.evict(1) == 1
    assert (found([1, 2]), found([1, 3]), found([4])) == (1, 2, 1)
    assert prefix.evict(1) == 1  # [4] was used after [1, 3], which was used after [1]
    assert prefix.evict(9) == 2
    assert len(prefix) == 0
    assert pool.num_free == 6


def test_a_page_with_an_idle_parent_that_somebody_else_holds_stays():
    pool = PagePool(num_pages=4, page_size=1)
    prefix = PrefixCache(pool)
    pages = pool.allocate(2)
    assert pages is not None
    prefix.publish(keys(ROOTS[0], [1, 2], 1), pages)
    assert prefix.evict(2) == 0
    pool.release(pages)
    assert prefix.evict(2) == 2


def test_duplicates_are_given_up_for_the_published_page():
    pool = PagePool(num_pages=4, page_size=2)
    prefix = PrefixCache(pool)
    first, second = pool.allocate(1), pool.allocate(2)
    assert first is not None
    assert second is not None
    prefix.publish(keys(ROOTS[0], [1, 2]), first)
    own = second[1]
    prefix.publish(keys(ROOTS[0], [1, 2, 3]), second)
    assert second == [first[0], own]
    assert pool.holders(first[0]) == 3
    pool.check_integrity([first, second, prefix.pages()])


def test_keys_depend_on_all_that_came_before():
    assert page_key(ROOTS[0], [1, 2]) != page_key(ROOTS[1], [1, 2])
    assert page_key(page_key(ROOTS[0], [1]), [2]) != page_key(page_key(ROOTS[0], [3]), [2])
    assert root_key("a", "b") != root_key("ab", "")
    assert root_key("a", "", "b") != root_key("a", "b", "")


def test_keys_grow_with_their_sequence():
    tokens = [5, 6, 7, 8]
    grown = PageKeys(ROOTS[0], SIZE)
    assert grown.first(1, tokens[:3]) == keys(ROOTS[0], tokens[:2])
    assert grown.first(2, tokens) == keys(ROOTS[0], tokens)
    assert grown.first(1, tokens) == keys(ROOTS[0], tokens)[:1]


def test_too_many_pages_are_refused_whole():
    pool = PagePool(num_pages=3, page_size=4)
    assert pool.pages_for(0) == 0
    assert pool.pages_for(5) == 2
    assert pool.allocate(4) is None
    assert pool.num_free == 3
    pages = pool.allocate(3)
    assert pages is not None
    assert sorted(pages) == [0, 1, 2]
    pool.release(pages)
    with pytest.raises(AssertionError):
        pool.release([0])
