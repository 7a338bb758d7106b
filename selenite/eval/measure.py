"""A model on a suite: served if it is not yet, asked, and judged."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rich.progress import Progress

from selenite.client.child_server import child_server
from selenite.client.endpoint import Endpoint
from selenite.clock import SystemClock
from selenite.errors import ConfigError
from selenite.eval.ask import AskOptions, ask, check_errors
from selenite.eval.question import Answer, Suite
from selenite.eval.scoreboard import Result, score
from selenite.log import CONSOLE


@dataclass(frozen=True)
class Target:
    """Who is measured: a model directory, or a server that runs."""

    directory: Path | None
    url: str | None
    api_key: str | None = None
    model: str | None = None  # as the server names it; None: its first
    allow_remote: bool = False

    @property
    def title(self) -> str:
        """For people and for files."""
        if self.directory is not None:
            return self.directory.resolve().name
        return (self.model or "server").replace("/", "-")

    def fingerprint(self) -> str:
        """SHA-256 over the files that decide what it answers; of a server, its address."""
        digest = hashlib.sha256()
        if self.directory is None:
            digest.update(str(self.url).encode())
            return digest.hexdigest()
        files = sorted(
            path
            for pattern in ("*.safetensors", "*.json", "*.jinja")
            for path in self.directory.glob(pattern)
            if path.name not in ("summary.json", "corpora.json")
        )
        if not files:
            raise ConfigError(f"{self.directory}: no model; give a directory with its files")
        for path in files:
            digest.update(f"{path.name} ".encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()


@contextmanager
def serving(target: Target, concurrency: int) -> Iterator[tuple[Endpoint, str]]:
    """The target's endpoint and the model's name there; a directory is served for the block."""
    with ExitStack() as stack:
        if target.directory is not None:
            with CONSOLE.status(f"starting a server of {target.directory}"):
                options = ("--max-num-seqs", str(concurrency))
                endpoint = stack.enter_context(child_server(target.directory, options))
        else:
            endpoint = Endpoint.parse(target.url or "", target.api_key)
            endpoint.require_loopback(target.allow_remote)
        yield endpoint, target.model or endpoint.served_model()


def asked(
    suite: Suite, target: Target, out: Path, guided: Sequence[bool], options: AskOptions
) -> list[dict[str, Answer]]:
    """The target's answers in each mode: with calls held to their grammar, and without.

    Raises ``DataError`` where more than one request in 200 fails: then there is no score.
    """
    found = list[dict[str, Answer]]()
    with ExitStack() as stack:
        endpoint, model = stack.enter_context(serving(target, options.concurrency))
        progress = stack.enter_context(Progress(console=CONSOLE, transient=True))
        for is_guided in guided:
            name = f"{suite.name}: {_name(target, is_guided)}"
            bar = progress.add_task(name, total=len(suite.questions))
            own = replace(options, model=model, guided=is_guided)
            answers = ask(
                suite.questions,
                endpoint,
                out / target.title,
                own,
                SystemClock(),
                partial(progress.advance, bar),
            )
            check_errors(answers)
            found.append(answers)
    return found


def _name(target: Target, is_guided: bool) -> str:
    return f"{target.title}, guided" if is_guided else target.title


def measure(
    suite: Suite,
    target: Target,
    out: Path,
    guided: Sequence[bool],
    concurrency: int,
    max_tokens: int,
) -> list[Result]:
    """A result for each mode. Raises what ``asked`` raises."""
    options = AskOptions(
        target.model or "", target.fingerprint(), max_tokens=max_tokens, concurrency=concurrency
    )
    found = asked(suite, target, out, guided, options)
    return [
        score(
            suite, _name(target, is_guided), answers, replace(options, guided=is_guided).decisive()
        )
        for is_guided, answers in zip(guided, found, strict=True)
    ]
