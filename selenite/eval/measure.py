"""A model on a suite: served if it is not yet, asked, and judged."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

from rich.progress import Progress

import selenite
from selenite.client.child_server import child_server
from selenite.client.endpoint import Endpoint
from selenite.clock import SystemClock
from selenite.errors import ConfigError
from selenite.eval.ask import AskOptions, ask, check_errors
from selenite.eval.question import Answer, Suite
from selenite.eval.scoreboard import Result, score
from selenite.log import CONSOLE
from selenite.serve.attention_mode import LAYERS

_SOURCES = (".py", ".cpp", ".h", ".jinja")
_ENGINE = ("serve", "model", "ops", "chat")
"""Folders of the package that decide what our own server answers."""


@dataclass(frozen=True)
class Target:
    """Who is measured: a model directory, or a server that runs."""

    directory: Path | None
    url: str | None
    api_key: str | None = None
    model: str | None = None  # as the server names it; None: its first
    allow_remote: bool = False
    tag: str = field(default_factory=lambda: secrets.token_hex(8))
    """Of a server's answers: what it serves is not known, so that answers are used again only
    under the same tag."""

    @property
    def title(self) -> str:
        """For people."""
        if self.directory is not None:
            return self.directory.resolve().name
        return (self.model or "server").replace("/", "-")

    @property
    def folder(self) -> str:
        """For files: of this model alone."""
        return f"{self.title}-{self.fingerprint[:8]}"

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over what decides the answers: the model's files and our engine's sources; of a
        server, its address and the tag."""
        digest = hashlib.sha256()
        if self.directory is None:
            digest.update(f"{self.url} {self.model} {self.tag}".encode())
            return digest.hexdigest()
        files = sorted(
            path
            for pattern in ("*.safetensors", "*.json", "*.jinja")
            for path in self.directory.glob(pattern)
            if path.name not in ("summary.json", "corpora.json", LAYERS)
        )
        if not files:
            raise ConfigError(f"{self.directory}: no model; give a directory with its files")
        package = Path(selenite.__file__).parent
        sources = [path for name in _ENGINE for path in sorted((package / name).rglob("*.*"))]
        for path in (*files, *(path for path in sources if path.suffix in _SOURCES)):
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


_TURN = 256  # questions that a server answers in one mode before they are asked in the next

Modes = Sequence[bool | None]
"""With calls held to a grammar, and without; None: as a server of others does it."""


def modes_of(target: Target, free: bool) -> Modes:
    """The modes in which a target can be asked."""
    if target.directory is None:
        return (None,)
    return (True, False) if free else (True,)


def asked(
    suite: Suite, target: Target, out: Path, modes: Modes, options: AskOptions
) -> list[tuple[AskOptions, dict[str, Answer]]]:
    """The target's answers in each mode, and how they were asked for.

    Raises ``DataError`` where more than one request in 200 fails: then there is no score.
    """
    found = [(replace(options, guided=guided), dict[str, Answer]()) for guided in modes]
    with ExitStack() as stack:
        endpoint, model = stack.enter_context(serving(target, options.concurrency))
        progress = stack.enter_context(Progress(console=CONSOLE, transient=True))
        names = [f"{suite.name}: {_name(target, guided)}" for guided in modes]
        bars = [progress.add_task(name, total=len(suite.questions)) for name in names]
        # By turns: a prompt that was computed for one mode is still known in the next.
        for first in range(0, len(suite.questions), _TURN):
            for bar, (own, answers) in zip(bars, found, strict=True):
                answers |= ask(
                    suite.questions[first : first + _TURN],
                    endpoint,
                    out / target.folder,
                    replace(own, model=model),
                    SystemClock(),
                    partial(progress.advance, bar),
                )
        for _, answers in found:
            check_errors(answers)
    return [(replace(own, model=model), answers) for own, answers in found]


def _name(target: Target, guided: bool | None) -> str:
    return f"{target.title}, guided" if guided else target.title


def measure(
    suite: Suite, target: Target, out: Path, modes: Modes, concurrency: int, max_tokens: int
) -> list[Result]:
    """A result for each mode. Raises what ``asked`` raises."""
    options = AskOptions("", target.fingerprint, max_tokens=max_tokens, concurrency=concurrency)
    return [
        score(suite, _name(target, own.guided), answers, own.decisive())
        for own, answers in asked(suite, target, out, modes, options)
    ]
