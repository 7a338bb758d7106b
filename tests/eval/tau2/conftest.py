"""tau2's domains, each in a process of its own in the sandbox."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from selenite.agent.sandbox.sandbox import availability
from selenite.errors import EndpointError
from selenite.eval.tau2.process import Process, running
from selenite.eval.tau2.run import Table
from selenite.eval.tau2.task import Domain, read_domain

OpenTable = Callable[[str, str, str], Table]


@pytest.fixture(scope="session")
def open_table() -> Iterator[OpenTable]:
    """A domain, a split and a mode; domains stay open for the session."""
    decision = availability()
    if not decision.value:
        pytest.skip(decision.reason)
    known: dict[tuple[str, str], tuple[Process, Domain]] = {}
    with ExitStack() as stack:

        def open(name: str, split: str, mode: str) -> Table:
            if (name, split) not in known:
                try:
                    process, described = stack.enter_context(running(name, split))
                except EndpointError as error:
                    pytest.skip(str(error))
                known[name, split] = process, read_domain(name, split, described)
            return Table(*known[name, split], mode)

        yield open
