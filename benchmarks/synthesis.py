"""The repository of tools that one seed makes, and trajectories a second, on one core.

    python -m benchmarks.synthesis

Tools and signatures are counted again from the tools' JSON alone. A trajectory is written, proved,
played and judged by every judge; those that a judge rejects are not counted. Rows: synth.tools,
synth.signatures, synth.build_minutes, synth.trajectories_per_second, synth.accepted,
synth.defects_found.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence

from benchmarks.results import record
from selenite.agent.episodes.defects import Defect
from selenite.agent.episodes.episode import play_script
from selenite.agent.judges.verdict import judge
from selenite.agent.ontology.acceptance import Repository, build
from selenite.agent.tasks.author import make_task
from selenite.agent.tools.tool import signature
from selenite.agent.world.setting import known_domain
from selenite.clock import SystemClock

SEED = 7
DOMAINS = 1000
BATCHES, BATCH = 7, 500
CONTRASTS = 1000  # tasks that are spoilt in every way
COMMAND = "python -m benchmarks.synthesis"


def write_repository(clock: SystemClock, domains: int) -> Repository:
    begun = clock.now()
    repository = build(SEED, domains)
    minutes = (clock.now() - begun) / 60
    names, signatures = set(), set()
    for number in repository.numbers:
        for tool in known_domain(SEED, number).tools:
            written = tool.record()
            names.add((written["domain"], written["name"]))
            signatures.add(signature(written))
    admitted = f"{len(repository.numbers)} of {domains} domains"
    rows = (
        ("tools", "Executable tools, distinct by domain and name", len(names), "tools", 20_000),
        (
            "signatures",
            "Distinct tools without names and prose",
            len(signatures),
            "signatures",
            8000,
        ),
    )
    for id, claim, count, unit, target in rows:
        record(
            f"synth.{id}",
            f"{claim}, of one seed",
            count,
            unit,
            low=count,
            high=count,
            runs=1,
            target=f">= {target}",
            reference=None,
            command=COMMAND,
            note=admitted,
        )
    record(
        "synth.build_minutes",
        "Building the repository on one core, each tool tried in 50 states",
        minutes,
        "minutes",
        low=minutes / 2,
        high=minutes * 2,
        runs=1,
        target="<= 10",
        reference=None,
        command=COMMAND,
        note=admitted,
    )
    return repository


def write_speed(clock: SystemClock, domains: Sequence[int]) -> None:
    speeds, accepted = [], 0
    for batch in range(BATCHES):
        begun, kept = clock.now(), 0
        for number in range(batch * BATCH, (batch + 1) * BATCH):
            trajectory = play_script(make_task(SEED, number, domains))
            kept += trajectory is not None and judge(trajectory).passes
        speeds.append(kept / (clock.now() - begun))
        accepted += kept
    speed = statistics.median(speeds)
    record(
        "synth.trajectories_per_second",
        "Verified trajectories a second on one core: tasks proved, episodes played and judged",
        speed,
        "trajectories/s",
        low=min(speeds) / 2,
        high=max(speeds) * 2,
        runs=BATCHES,
        target=">= 200",
        reference=None,
        command=COMMAND,
        note=f"batches of {BATCH}: {min(speeds):.0f} to {max(speeds):.0f}",
    )
    share = accepted / (BATCHES * BATCH)
    record(
        "synth.accepted",
        "Episodes of the scripted agent that every judge accepts",
        share,
        "fraction",
        low=share,
        high=share,
        runs=BATCHES * BATCH,
        target=">= 0.95",
        reference=None,
        command=COMMAND,
    )


def write_calibration(domains: Sequence[int]) -> None:
    """How many of the spoilt episodes some judge rejects, by defect."""
    found = {}
    for defect in Defect:
        spoilt = [play_script(make_task(SEED, n, domains), defect) for n in range(CONTRASTS)]
        rejected = [not judge(each).passes for each in spoilt if each is not None]
        found[defect.value] = (sum(rejected), len(rejected))
    least = min(caught / all for caught, all in found.values())
    record(
        "synth.defects_found",
        "Contrast episodes that the judges reject, of the defect that they reject least",
        least,
        "fraction",
        low=least,
        high=least,
        runs=sum(count for _, count in found.values()),
        target=">= 0.98",
        reference=None,
        command=COMMAND,
        note=", ".join(f"{name} {caught} of {count}" for name, (caught, count) in found.items()),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--domains", type=int, default=DOMAINS, help="that are tried")
    arguments = parser.parse_args()
    clock = SystemClock()
    repository = write_repository(clock, arguments.domains)
    write_speed(clock, repository.numbers)
    write_calibration(repository.numbers)


if __name__ == "__main__":
    main()
