"""Work in a Git repository: some of the changes that are there, committed, here or on a branch.

The server of files is not beside it: who writes into ``.git`` has commands run.
"""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from selenite.rl.gym.mcp.job import Job, State, Words

_FOLDER = "/workspace"
_WHO = {
    f"GIT_{role}_{part}": value
    for role in ("AUTHOR", "COMMITTER")
    for part, value in (
        ("NAME", "Agent"),
        ("EMAIL", "agent@example.com"),
        ("DATE", "2026-01-05T12:00:00+0000"),
    )
}
_QUIET = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "LC_ALL": "C.UTF-8"}


def commit_some(rng: random.Random, words: Words) -> Job:
    """One or two of several changed files."""
    paths = _paths(rng, words)
    chosen = sorted(rng.sample(paths, rng.randint(1, 2)))
    message = _message(rng, words)
    request = (
        f"In the repository {_FOLDER}, commit the changes of {_listed(chosen)} with the message "
        f"“{message}”. The other changes stay uncommitted."
    )
    return _job(
        f"{rng.choice(words.please)} {request}",
        _Beginning(paths, ()),
        [("add", *chosen), ("commit", "-q", "-m", message)],
        [_call("git_add", files=chosen), _call("git_commit", message=message)],
    )


def commit_but(rng: random.Random, words: Words) -> Job:
    """Staged files but for one, which is taken back."""
    paths = _paths(rng, words)
    left, *chosen = rng.sample(paths, 3)
    message = _message(rng, words)
    request = (
        f"In the repository {_FOLDER}, everything is staged. Commit it with the message "
        f"“{message}”, but leave out {left}: its change stays, neither staged nor committed."
    )
    return _job(
        f"{rng.choice(words.please)} {request}",
        _Beginning(paths, paths),
        [("reset", "-q"), ("add", *chosen), ("commit", "-q", "-m", message)],
        [_call("git_reset"), _call("git_add", files=chosen), _call("git_commit", message=message)],
    )


def on_a_branch(rng: random.Random, words: Words) -> Job:
    """A new branch, on which a file is committed."""
    paths = _paths(rng, words)
    chosen = rng.choice(paths)
    name = f"{rng.choice(words.cities).lower()}-{rng.randint(2, 99)}"
    message = _message(rng, words)
    request = (
        f"In the repository {_FOLDER}, make a new branch {name}, and commit the change of {chosen} "
        f"there with the message “{message}”. Nothing else is committed, and main stays as it is."
    )
    return _job(
        f"{rng.choice(words.please)} {request}",
        _Beginning(paths, ()),
        [("checkout", "-q", "-b", name), ("add", chosen), ("commit", "-q", "-m", message)],
        [
            _call("git_create_branch", branch_name=name),
            _call("git_checkout", branch_name=name),
            _call("git_add", files=[chosen]),
            _call("git_commit", message=message),
        ],
    )


class _Beginning:
    """A commit of some files, all of them changed since, and some of the changes staged."""

    def __init__(self, paths: Sequence[str], staged: Sequence[str]) -> None:
        self._paths, self._staged = paths, staged

    def write(self, root: Path) -> None:
        """Makes it in an empty folder."""
        workspace = root / "workspace"
        workspace.mkdir()
        for path in self._paths:
            (workspace / path).write_text(f"{path}: first version\n")
        for command in (
            ("init", "-q", "-b", "main"),
            ("add", "."),
            ("commit", "-q", "-m", "Everything so far"),
        ):
            _git(workspace, *command)
        for path in self._paths:
            (workspace / path).write_text(f"{path}: second version\n")
        if self._staged:
            _git(workspace, "add", *self._staged)


def _job(
    request: str,
    beginning: _Beginning,
    commands: Sequence[Sequence[str]],
    calls: Sequence[tuple[str, Mapping[str, Any]]],
) -> Job:
    def finish(root: Path) -> None:
        for command in commands:
            _git(root / "workspace", *command)

    return Job("git", request, beginning.write, finish, _refs, calls)


def _refs(root: Path) -> State:
    """Of each branch or tag its commits, with their trees and messages, and what is not committed.
    Which branch is checked out counts too: it is a part of the state of what is not committed."""
    workspace = root / "workspace"
    state: dict[str, object] = {
        name: list(filter(None, _git(workspace, "log", "--format=%T %B", name, "--").splitlines()))
        for name in _git(workspace, "for-each-ref", "--format=%(refname)").splitlines()
    }
    state["uncommitted"] = _git(workspace, "status", "--porcelain", "--branch")
    return state


def _git(folder: Path, *arguments: str) -> str:
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), **_QUIET, **_WHO}
    done = subprocess.run(
        ["git", *arguments], cwd=folder, env=environment, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def _call(tool: str, **arguments: Any) -> tuple[str, Mapping[str, Any]]:
    return tool, {"repo_path": _FOLDER, **arguments}


def _paths(rng: random.Random, words: Words) -> list[str]:
    return sorted(f"{name}.txt" for name in rng.sample([*words.goods, *words.people], 5))


def _message(rng: random.Random, words: Words) -> str:
    return f"Correct what {rng.choice(words.people)} said of {rng.choice(words.goods)}"


def _listed(paths: Sequence[str]) -> str:
    return " and ".join(paths)
