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

    def match(self, root: bytes, tokens: Sequence[int]) -> list[int]:
        """Pages of the longest published prefix of ``tokens``; the caller becomes a holder.

        At least one token is left over: its logits have to be computed.
        """
        size = self.pool.page_size
        found: list[_Node] = []
        key = root
        for first in range(0, (len(tokens) - 1) // size * size, size):
            key = page_key(key, tokens[first : first + size])
            if key not in self._nodes:
                break
            found.append(self._nodes[key])
        self._use(found)
        pages = [node.page for node in found]
        self.pool.hold(pages)
        self.queries += len(tokens)
        self.hits += len(pages) * size
        return pages

    def publish(self, root: bytes, tokens: Sequence[int], pages: list[int]) -> None:
        """Makes the full pages of a sequence known, ``pages`` being its own.

        Where the same was published before, the sequence goes on with that page, and its own copy
        is released: ``pages`` is changed in place.
        """
        size = self.pool.page_size
        path: list[_Node] = []
        key = root
        for index in range(len(tokens) // size):
            key = page_key(key, tokens[index * size : (index + 1) * size])
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
