"""What runs in the next step: continuous batching under a token budget.

Sequences that decode come first, one token each; what is left of the budget goes to prompts, in
chunks, in order of arrival. Pages are taken as tokens need them. When they run short, unused
prefixes are given up, and then the request that came last is preempted: it gives all its pages
back and computes them again later, with the tokens that it has.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from selenite.clock import Clock
from selenite.serve.cache.pages import PagePool
from selenite.serve.cache.prefix import PageKeys, PrefixCache, root_key
from selenite.serve.engine.request import Chunk, Request, Status


class Scheduler:
    """Waiting and running requests, and their pages.

    Args:
        pool: the pages.
        prefix: published prefixes in the same pool.
        clock: for the time of first scheduling.
        max_step_tokens: rows of a step at most.
        max_running: sequences that run at once at most.
        adapter_key: what entries that an adapter computed depend on.
    """

    def __init__(
        self,
        pool: PagePool,
        prefix: PrefixCache,
        clock: Clock,
        max_step_tokens: int,
        max_running: int,
        adapter_key: Callable[[str | None], str] = lambda name: name or "",
    ) -> None:
        self.pool = pool
        self.prefix = prefix
        self.clock = clock
        self.max_step_tokens = max_step_tokens
        self.max_running = max_running
        self.namespace: tuple[str, ...] = ()  # what all entries depend on; set by the engine
        self.adapter_key = adapter_key
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []  # in order of their (last) start
        self.num_preemptions = 0
        self.biased: list[int] = []
        """Pages that held merged slots and were given back: whoever has them next needs their
        biases to be zero."""
        self._last_adapter: str | None = None
        self._short: Request | None = None
        """Has found too few pages. Nothing starts before it: small requests of other adapters would
        take every page that comes free."""

    def add(self, request: Request) -> None:
        """Puts a request at the end of the queue."""
        self.waiting.append(request)

    def schedule(self) -> list[Chunk]:
        """The next step, with pages for all of its tokens; empty where nothing can run.

        All requests of a step have the same adapter; adapters in use take turns.
        """
        in_use = list(dict.fromkeys(r.adapter for r in (*self.running, *self.waiting)))
        if self._last_adapter in in_use:
            after = in_use.index(self._last_adapter) + 1
            in_use = in_use[after:] + in_use[:after]
        for adapter in in_use:
            chunks = self._schedule(adapter)
            if chunks:
                self._last_adapter = adapter
                return chunks
        return []

    def advance(self, chunks: Iterable[Chunk]) -> None:
        """After a step, before new tokens are appended: its entries are stored now."""
        for chunk in chunks:
            request, size = chunk.request, self.pool.page_size
            # What rests on entries of rows that chose tokens, or on merged ones, is not what others
            # would compute.
            is_clean = chunk.selection is None and request.merged == 0
            if is_clean and chunk.start <= request.clean:
                request.clean = chunk.stop
            request.computed = chunk.stop
            full = min(request.clean, len(request.tokens) - request.drafts) // size
            if request.publishes and full > request.published:
                self.prefix.publish(self._keys(request, full), request.pages)
                request.published = full

    def finish(self, request: Request) -> None:
        """Takes a request out, wherever it is; its pages are released."""
        if request.status is Status.RUNNING:
            self.running.remove(request)
        elif request.status is Status.WAITING:
            self.waiting.remove(request)
        if self._short is request:
            self._short = None
        request.status = Status.FINISHED
        self._release(request)

    def preempt(self, request: Request) -> None:
        """Takes a running request's pages and puts it at the head of the queue."""
        self._begin_again(request)
        request.preemptions += 1
        self.num_preemptions += 1

    def to_be_compressed(self) -> list[Request]:
        """Running requests that have too many slots."""
        return [request for request in self.running if request.is_to_be_compressed]

    def exchange(self, request: Request, num_slots: int) -> bool:
        """Gives a request's pages back, and takes others for its merged entries, of which nobody
        else hears; by eviction and preemption if it must be. False where the request itself was
        preempted."""
        self._release(request)
        pages = self._allocate(self.pool.pages_for(num_slots), request, [])
        if pages is None:
            return False
        request.pages = pages
        request.merged = request.computed - num_slots
        request.compressions += 1
        return True

    def check_integrity(self) -> None:
        """Asserts that every page is accounted for."""
        held = [request.pages for request in self.running]
        assert not any(request.pages for request in self.waiting)
        self.pool.check_integrity([*held, self.prefix.pages()])

    def _schedule(self, adapter: str | None) -> list[Chunk]:
        self._correct(adapter)
        chunks = self._decodes(adapter)
        budget = self.max_step_tokens - len(chunks)
        for request in self._running(adapter, prefilled=False):
            if budget > 0 and request.status is Status.RUNNING:
                budget -= self._prefill(request, budget, chunks)
        while budget > 0 and len(self.running) < self.max_running:
            first = self._short or next((r for r in self.waiting if r.adapter == adapter), None)
            if first is None or first.adapter != adapter or _follows(first):
                break
            if not self._start(first):
                self._short = first
                break
            self._short = None
            budget -= self._prefill(first, budget, chunks)
        return chunks

    def _correct(self, adapter: str | None) -> None:
        """Has entries computed anew, where they are many that rest on part of what was said.

        Those of rows that chose tokens become a prompt (cache correction of TidalDecode, arXiv
        2410.05076, section 3.3), as do those of drafts, which are verified by it. A request whose
        slots were merged begins again, from what the prefix cache still has of its prompt.
        """
        for request in self._running(adapter, prefilled=True):
            every = request.reading.correct_every
            if every is not None and request.computed - request.clean >= every:
                request.computed = request.clean
            if request.is_to_be_verified:
                request.computed = request.clean
            if request.merged and request.reading.compression is not None:
                every = request.reading.compression.mode.refresh_every
                if every is not None and request.computed - request.clean >= every:
                    self._begin_again(request)

    def _begin_again(self, request: Request) -> None:
        self.running.remove(request)
        self._release(request)
        request.drop_drafts()
        request.status = Status.WAITING
        request.computed = request.clean = request.merged = request.compressions = 0
        request.queries.clear()
        request.sums = None
        request.publishes = True  # all of its entries will be of one kind again
        self.waiting.appendleft(request)
        self._short = None  # it came earlier

    def _running(self, adapter: str | None, prefilled: bool) -> list[Request]:
        return [r for r in self.running if r.adapter == adapter and r.is_prefilled == prefilled]

    def _decodes(self, adapter: str | None) -> list[Chunk]:
        chunks: list[Chunk] = []
        for request in self._running(adapter, prefilled=True):
            if request.status is not Status.RUNNING:  # preempted for one before it
                continue
            if len(chunks) == self.max_step_tokens:
                break
            position = len(request.tokens) - 1
            if self._grow(request, position + 1, chunks):
                chunks.append(Chunk(request, position, position + 1))
        return chunks

    def _prefill(self, request: Request, budget: int, chunks: list[Chunk]) -> int:
        """Adds as much of the request as the budget allows; rows added."""
        stop = min(request.computed + budget, len(request.tokens))
        if not self._grow(request, stop, chunks):
            return 0
        chunks.append(Chunk(request, request.computed, stop))
        return stop - request.computed

    def _start(self, request: Request) -> bool:
        """Moves a waiting request to the running ones if there are pages for its tokens.

        All of them, although the first chunk needs fewer: half a prompt that waits for pages
        would keep those it has from the sequences that decode.
        """
        size = self.pool.page_size
        request.known = len(request.tokens)
        found: list[int] = []
        if not request.needs_every_row:
            # One token at least is left over: its logits have to be computed.
            left = max(1, Chunk(request, 0, len(request.tokens)).num_queries)
            found = self.prefix.match(self._keys(request, (len(request.tokens) - left) // size))
        missing = self.pool.pages_for(len(request.tokens)) - len(found)
        if missing > self.pool.num_free + self.prefix.num_idle():
            self.pool.release(found)
            return False
        if missing > self.pool.num_free:
            self.prefix.evict(missing - self.pool.num_free)
        self.prefix.count(len(request.tokens), len(found) * size)
        self.waiting.remove(request)
        request.pages, request.published = found, len(found)
        request.computed = request.clean = len(found) * size
        request.status = Status.RUNNING
        if request.first_scheduled is None:
            request.cached = request.computed
            request.first_scheduled = self.clock.now()
        self.running.append(request)
        return True

    def _grow(self, request: Request, num_tokens: int, chunks: list[Chunk]) -> bool:
        """Pages for so many tokens; False where the request itself was preempted."""
        missing = self.pool.pages_for(num_tokens - request.merged) - len(request.pages)
        pages = self._allocate(max(0, missing), request, chunks)
        if pages is None:
            return False
        request.pages += pages
        return True

    def _allocate(self, count: int, request: Request, chunks: list[Chunk]) -> list[int] | None:
        """Pages for a request, by eviction and preemption if it must be; None where the request
        itself was the one to preempt. Chunks of those that were preempted are taken out."""
        while count > self.pool.num_free:
            if self.prefix.evict(count - self.pool.num_free):
                continue
            victim = self.running[-1]
            self.preempt(victim)
            chunks[:] = [chunk for chunk in chunks if chunk.request is not victim]
            if victim is request:
                return None
        return self.pool.allocate(count)

    def _release(self, request: Request) -> None:
        if request.merged:
            self.biased += request.pages
        self.pool.release(request.pages)
        request.pages = []

    def _keys(self, request: Request, count: int) -> list[bytes]:
        """Of the request's first pages; hashed anew where weights or adapter are others now."""
        # Above the first layer, entries depend on what rows read.
        routing = request.reading.routing
        reads = "" if routing is None else str(routing)
        root = root_key(*self.namespace, self.adapter_key(request.adapter), reads, request.salt)
        if request.keys is None or request.keys.root != root:
            request.keys = PageKeys(root, self.pool.page_size)
        return request.keys.first(count, request.tokens)


def _follows(request: Request) -> bool:
    """Whether the request waits for its leader, whose prompt will soon be in the prefix cache."""
    leader = request.leader
    return leader is not None and leader.status is not Status.FINISHED and not leader.completion
