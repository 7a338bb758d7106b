"""Prefix reuse: a radix tree of published pages, by what they hold.

A page's key is a hash chain: of its parent's key and its own tokens, from a root that names all
else that the entries depend on (model, weight version, dtype, layout, adapter, salt). Only full
pages are published. Pages that nobody else holds are given up when the pool runs short: the one
used longest ago first, and a page never before those that come after it.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from selenite.serve.cache.pages import PagePool


def root_key(*parts: str) -> bytes:
    """The key that chains of a namespace start with."""
    return hashlib.sha256("\0".join(parts).encode()).digest()


def page_key(parent: bytes, tokens: Sequence[int]) -> bytes:
    """The key of a page that holds ``tokens`` after what ``parent`` stands for."""
    return hashlib.sha256(parent + np.asarray(tokens, dtype="<i8").tobytes()).digest()


class PageKeys:
    """Keys of a sequence's full pages, each hashed once; the sequence may only grow."""

    def __init__(self, root: bytes, page_size: int) -> None:
        self.root = root
        self._page_size = page_size
        self._keys: list[bytes] = []

    def first(self, count: int, tokens: Sequence[int]) -> list[bytes]:
        """Of the first ``count`` pages of ``tokens``, which all are full."""
        size = self._page_size
        assert count * size <= len(tokens), (count, size, len(tokens))
        for page in range(len(self._keys), count):
            parent = self._keys[-1] if self._keys else self.root
            self._keys.append(page_key(parent, tokens[page * size : (page + 1) * size]))
        return self._keys[:count]


@dataclass(eq=False)
class _Node:
    key: bytes
    page: int
    parent: _Node | None  # None: first page of a sequence
    num_children: int = 0


class PrefixCache:
    """Published pages of ``pool``. The cache is a holder of each of them."""

    def __init__(self, pool: PagePool) -> None:
        self.pool = pool
        # The page used longest ago first; of pages used together, those behind come before.
        self._nodes: OrderedDict[bytes, _Node] = OrderedDict()
        self.queries = 0  # tokens that were looked up
        self.hits = 0  # tokens found

    def __len__(self) -> int:
        return len(self._nodes)

    def match(self, keys: Sequence[bytes]) -> list[int]:
        """Pages of the longest published beginning of ``keys``; the caller becomes a holder."""
        found: list[_Node] = []
        for key in keys:
            node = self._nodes.get(key)
            if node is None:
                break
            found.append(node)
        self._use(found)
        pages = [node.page for node in found]
        self.pool.hold(pages)
        return pages

    def publish(self, keys: Sequence[bytes], pages: list[int]) -> None:
        """Makes the first pages of a sequence known, ``pages`` being its own.

        Where the same was published before, the sequence goes on with that page, and its own copy
        is released: ``pages`` is changed in place.
        """
        path: list[_Node] = []
        for index, key in enumerate(keys):
            node = self._nodes.get(key)
            if node is None:
                parent = path[-1] if path else None
                node = self._nodes[key] = _Node(key, pages[index], parent)
                if parent is not None:
                    parent.num_children += 1
                self.pool.hold([node.page])
            elif node.page != pages[index]:
                self.pool.hold([node.page])
                self.pool.release([pages[index]])
                pages[index] = node.page
            path.append(node)
        self._use(path)

    def count(self, queries: int, hits: int) -> None:
        """Of a sequence that starts: tokens looked up, and tokens found."""
        self.queries += queries
        self.hits += hits

    def num_idle(self) -> int:
        """Pages that ``evict`` could give up: whoever holds a page holds those before it."""
        return sum(self.pool.holders(node.page) == 1 for node in self._nodes.values())

    def evict(self, count: int) -> int:
        """Gives up to ``count`` pages back to the pool that only the cache holds; how many."""
        given_up: list[_Node] = []
        for node in self._nodes.values():
            if len(given_up) == count:
                break
            if node.num_children == 0 and self.pool.holders(node.page) == 1:
                given_up.append(node)
                if node.parent is not None:  # it comes later, and may now be idle itself
                    node.parent.num_children -= 1
        for node in given_up:
            del self._nodes[node.key]
        self.pool.release([node.page for node in given_up])
        return len(given_up)

    def clear(self) -> None:
        """Forgets everything; pages that others hold stay theirs."""
        self.pool.release(self.pages())
        self._nodes.clear()

    def pages(self) -> list[int]:
        """The pages that the cache holds."""
        return [node.page for node in self._nodes.values()]

    def _use(self, path: Sequence[_Node]) -> None:
        for node in reversed(path):
            self._nodes.move_to_end(node.key)
