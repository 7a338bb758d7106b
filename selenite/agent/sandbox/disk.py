"""The working directory of a session: a file system in memory, of limited size.

The kernel bounds it, which it does for no directory of an ordinary disk: files that were removed
while open, and those that a watcher would find too late, count as well. It is mounted in a mount
namespace where nothing but a run of the session sees it, and which lives as long as this process
holds it open: whatever ends this process, nothing of it remains.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from selenite.agent.sandbox.bubblewrap import NOBODY, REMEDY, WORK, Programs, is_root
from selenite.agent.sandbox.limits import Limits
from selenite.errors import UnsupportedError

# Over /sys, which is everywhere and which no run sees. What is bound below it is where a user
# without privileges finds it, whatever the folders above it in its own place allow.
_MAKE = """set -e
mount=$1; options=$2
shift 2
$mount -t tmpfs -o "$options" sandbox /sys
cd /sys
number=0
names=
for _; do names="$names $number"; number=$((number + 1)); done
mkdir work aside $names
number=0
for folder; do
  $mount --rbind "$folder" $number
  number=$((number + 1))
done
echo made
read -r _
"""


class Disk:
    """Raises ``UnsupportedError`` with the reason where it cannot be made.

    Args:
        folders: what runs see read-only, at the same paths.
    """

    def __init__(self, programs: Programs, limits: Limits, folders: Sequence[Path]) -> None:
        self._nsenter = programs.nsenter
        self._namespaces = ["mnt"] if is_root() else ["user", "mnt"]
        user = [] if is_root() else ["--user", "--map-root-user"]
        options = f"size={limits.disk_bytes},nr_inodes={limits.num_files},mode=755,nosuid,nodev"
        maker = subprocess.Popen(
            [
                *(programs.unshare, *user, "--mount", "--", programs.sh, "-c", _MAKE, "sh"),
                *(programs.mount, options, *map(str, folders)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.mounts = [(f"/sys/{number}", str(folder)) for number, folder in enumerate(folders)]
        self._open: list[int] = []  # the namespaces, then the working directory
        with maker:
            assert maker.stdin is not None
            assert maker.stdout is not None
            assert maker.stderr is not None
            try:
                if maker.stdout.readline():
                    self._hold(Path("/proc", str(maker.pid)))
                    return
                reason = maker.stderr.read().decode(errors="replace").strip()
            finally:
                maker.stdin.close()
        raise UnsupportedError(
            f"no private file system can be mounted: {reason}; run as root with the right to mount "
            f"(CAP_SYS_ADMIN), or as a user: then {REMEDY}"
        )

    @property
    def root(self) -> int:
        """A descriptor of the working directory."""
        return self._open[-1]

    @property
    def enters(self) -> list[str]:
        """The call that enters the disk's mounts, before what is to run there."""
        options = [
            f"--{'mount' if kind == 'mnt' else kind}=/proc/{os.getpid()}/fd/{descriptor}"
            for kind, descriptor in zip(self._namespaces, self._open, strict=False)
        ]
        return [self._nsenter, "--preserve-credentials", *options, "--"]

    def close(self) -> None:
        """Ends the file system; a second time it does nothing."""
        while self._open:
            os.close(self._open.pop())

    def _hold(self, maker: Path) -> None:
        """Keeps what a process has made."""
        for kind in self._namespaces:
            self._open.append(os.open(maker / "ns" / kind, os.O_RDONLY))
        self._open.append(os.open(maker / f"root{WORK}", os.O_RDONLY | os.O_DIRECTORY))
        if is_root():
            os.fchown(self.root, NOBODY, NOBODY)
