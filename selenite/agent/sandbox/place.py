"""Where this process can make control groups.

In version 1 below its own groups, so that the bounds of those hold as well. In version 2 a group
with processes cannot have bounded ones below it; there they are made beside it, or further up.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from selenite.agent.sandbox.cgroup import REMEDY, Cgroup, Place, prefix
from selenite.agent.sandbox.limits import Limits
from selenite.errors import UnsupportedError


def find_place() -> Place:
    """The first place where a group can be made and bounded; removes what killed processes left.

    Raises ``UnsupportedError`` with the reasons where there is none.
    """
    reasons = []
    for place in _candidates():
        _remove_leftovers(place)
        try:
            if place.version == 2:
                _hand_down(place.memory)
            Cgroup(place, Limits(), 0).remove()
        except (OSError, UnsupportedError) as error:
            reasons.append(str(error).removesuffix(f"; {REMEDY}"))
        else:
            return place
    found = "; ".join(reasons) or "no control groups for memory and processes are mounted"
    raise UnsupportedError(f"{found}; {REMEDY}")


def _candidates() -> Iterator[Place]:
    own = _own_groups()
    if {"memory", "pids", "cpuacct"} <= own.keys():
        yield Place(1, own["memory"], own["pids"], own["cpuacct"])
    folder = own.get("")
    while folder is not None and (folder / "cgroup.procs").exists():
        yield Place(2, folder, folder, folder)
        folder = folder.parent


def _own_groups() -> dict[str, Path]:
    """The directories of this process's groups by controller; version 2's under an empty name."""
    found = {}
    mounts = list(_mounts())
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, group = line.split(":", 2)
        for name in names.split(","):
            for kind, options, root, point in mounts:
                if kind == "cgroup" and name in options if name else kind == "cgroup2":
                    found[name] = Path(os.path.normpath(point / os.path.relpath(group, root)))
    return found


def _mounts() -> Iterator[tuple[str, list[str], str, Path]]:
    """Kind, options, root and mount point of what is mounted."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ")
        root, point = left.split(" ")[3:5]
        yield kind, options.split(","), root, Path(point)


def _remove_leftovers(place: Place) -> None:
    for folder in (place.memory, place.pids, place.cpu):
        for left in folder.glob(f"{prefix()}*"):
            pid = left.name.removeprefix(prefix()).partition("-")[0]
            if not Path("/proc", pid).exists():
                with contextlib.suppress(OSError):  # somebody else's, or just removed by another
                    left.rmdir()


def _hand_down(folder: Path) -> None:
    """Lets the groups below have bounds on memory and processes, unless they have."""
    control = folder / "cgroup.subtree_control"
    missing = {"memory", "pids"} - set(control.read_text().split())
    if missing:
        control.write_text(" ".join(f"+{name}" for name in sorted(missing)))
