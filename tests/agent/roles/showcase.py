"""SmolLM2-135M on our own server as a weak author: what code takes of it, and what it refuses.

python -m tests.agent.roles.showcase [tasks] [role ...]
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from selenite.agent.episodes.episode import play_script
from selenite.agent.ontology.archetypes import categories
from selenite.agent.roles.outcomes import Outcomes
from selenite.agent.roles.play import judge_roles, play_roles, propose_archetype
from selenite.agent.roles.role import Role
from selenite.agent.roles.roles import Roles, open_roles
from tests.agent.roles.stub import config_of, task_of
from tests.fixtures.server import KEY, ServerProcess
from tests.fixtures.smollm2 import smollm2

AUTHORS = (Role.TASK_AUTHOR, Role.AGENT_AUTHOR, Role.USER, Role.JUDGE)
NAME = "smollm2-135m-instruct"
_EACH = 7  # numbers from one task to the next, so that domains differ


def main() -> None:
    count, *names = sys.argv[1:] or ["8"]
    chosen = tuple(map(Role, names)) or AUTHORS
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / NAME
        model.symlink_to(smollm2(), target_is_directory=True)
        os.environ["SELENITE_API_KEY"] = KEY
        server = ServerProcess(model)
        try:
            config = config_of(
                server.url,
                *chosen,
                model=NAME,
                api_key_env="SELENITE_API_KEY",
                timeout=300,
                repairs=1,
                votes=1,
                max_tokens=200,
                temperature=0.2,
            )
            with open_roles(config, seed=6) as roles:
                show(roles, [_EACH * number for number in range(int(count))])
        finally:
            if server.process.poll() is not None:
                sys.stderr.write(server.output())
            server.stop()


def show(roles: Roles, numbers: list[int]) -> None:
    """Plays tasks, and prints what was said in other words and what came of it all."""
    console, whole, passed = Console(width=100), Outcomes(), 0
    known = categories()
    for number in numbers:
        task = task_of(number)
        trajectory, outcomes = play_roles(task, roles, number)
        verdict, votes = judge_roles(trajectory, roles, number)
        archetype, proposals = propose_archetype(known[number % len(known)], roles, 6, number)
        for part in (outcomes, votes, proposals):
            part.check_integrity()
            whole.add(part)
        passed += verdict.passes
        script = play_script(task)
        assert script is not None
        console.print(f"{trajectory.id}: {verdict.reason or 'passes'} {dict(trajectory.models)}")
        is_taken = {"agent_author", "task_author", "user"} & trajectory.models.keys()
        for old, new in zip(script.messages[:2], trajectory.messages[:2], strict=True):
            if is_taken and old != new:
                console.print(f"  {old.content!r}\n  -> {new.content!r}", markup=False)
        if archetype is not None:
            console.print(f"  {archetype}", markup=False)
    table = Table("role", "asked", "accepted", "kept", "failed", "objections")
    for role, counts in whole.record()["roles"].items():
        table.add_row(role, *(str(counts[name.header]) for name in table.columns[1:]))
    totals = roles.ledger.totals()
    totals.check_integrity()
    console.print(table)
    console.print(f"{passed} of {len(numbers)} trajectories pass; votes {dict(whole.splits)}")
    console.print(f"{totals.calls} calls, {totals.counts['requests']} requests, {totals.faults}")


if __name__ == "__main__":
    main()
