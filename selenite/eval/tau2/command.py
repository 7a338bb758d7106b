"""What ``selenite eval tau2`` does: its domains in one mode, and one result file of them all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from selenite.errors import ConfigError
from selenite.eval.measure import Target
from selenite.eval.question import Suite
from selenite.eval.tau2.measure import Options, measure, opened
from selenite.eval.tau2.next_action import next_action
from selenite.eval.tau2.report import headline, table, write
from selenite.eval.tau2.run import LLM, MODES, NEXT_ACTION


def check(options: Options, user: Target | None) -> None:
    """Raises ``ConfigError`` for what does not go together."""
    if options.mode not in MODES:
        raise ConfigError(f"--mode {options.mode}: must be one of {', '.join(MODES)}")
    if (options.mode == LLM) != (user is not None):
        raise ConfigError("--mode llm needs --user-url, the server that plays the user, alone")
    if options.mode == NEXT_ACTION and options.trials > 1:
        raise ConfigError(
            f"--trials {options.trials}: next-action asks once, greedily; leave it out"
        )


def suites(domains: Sequence[str], split: str | None, limit: int | None) -> Iterator[Suite]:
    """The questions of ``next-action``, a suite of each domain."""
    for name in domains:
        with opened(name, split, limit) as (process, domain):
            suite = next_action(process, domain)
        yield suite


def play(
    domains: Sequence[str],
    split: str | None,
    target: Target | None,
    user: Target | None,
    out: Path,
    options: Options,
) -> tuple[Table, list[str]]:
    """Plays and writes; gives what is to be printed: a table, and lines below it, of which the last
    one is the result file. Raises what ``measure`` raises."""
    measured = [measure(name, split, target, user, out, options) for name in domains]
    protocol: dict[str, object] = asdict(options) | {"domains": list(domains), "split": split}
    del protocol["concurrency"]
    folder = "bounds"
    if target is not None:
        folder, protocol["fingerprint"] = target.folder, target.fingerprint
    if user is not None:
        protocol["user"] = user.fingerprint
    name = hashlib.sha256(json.dumps(protocol, sort_keys=True).encode()).hexdigest()[:8]
    path = out / folder / f"tau2-{options.mode}-{name}.json"
    write(path, measured, protocol, options.trials)
    mean = None if target is None else headline(measured, target.title, options.trials)
    lines = [str(path)]
    if target is not None and mean is not None:
        lines.insert(0, f"{target.title}: mean lift {mean:.3f}, airline and mock left out")
    return table(measured, options.mode, options.trials), lines
