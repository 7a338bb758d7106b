"""The programs that isolate, and how they are called.

    sh: joins the control groups ─► nsenter: the disk's mounts ─► setpriv: an unprivileged user
        ─► bwrap: namespaces, read-only system, seccomp ─► sh: says that all is set ─► the command

Each replaces the one before, so that the process that was started is bubblewrap's watcher in the
end, and its death is that of everything in the sandbox. Where this process is not root, the disk
has a user namespace of its own, and ``setpriv`` is not needed.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from selenite.agent.sandbox import seccomp
from selenite.agent.sandbox.limits import Limits
from selenite.errors import UnsupportedError

WORKING_DIRECTORY = "/sandbox"
WORK = "/sys/work"  # the working directory, in the disk's mounts (disk.py)
NOBODY = 65534  # user and group of the sandbox, inside; outside too, where this process is root
OWN_PROCESSES = 2  # bubblewrap's watcher and the first process of the sandbox
STARTED = b"\n"
"""First on stderr when all is set. Before it the programs above explain there why they failed."""

REMEDY = (
    "the kernel must let users without rights make namespaces (sysctl user.max_user_namespaces; "
    "on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0)"
)
_JOIN = """set -e
while [ "$1" != -- ]; do echo 0 > "$1"; shift; done
shift
exec "$@"
"""
_START = """set -e
ulimit -c 0
ulimit -n 1024
ulimit -f "$1"
shift
echo >&2
exec "$@"
"""
_SYSTEM = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_ETC = ("/etc/alternatives", "/etc/ld.so.cache")
_PROGRAMS = ("bwrap", "sh", "mount", "nsenter", "setpriv", "unshare")


@dataclass(frozen=True)
class Programs:
    """Where they are."""

    bwrap: str
    sh: str
    mount: str
    nsenter: str
    setpriv: str
    unshare: str


def find_programs() -> Programs:
    """Looks on PATH; raises ``UnsupportedError`` with what is missing and how to get it."""
    if sys.platform != "linux" or platform.machine() not in seccomp.KNOWN_MACHINES:
        raise UnsupportedError(
            f"{sys.platform} on {platform.machine()}: the sandbox runs on Linux, on "
            f"{' and '.join(seccomp.KNOWN_MACHINES)}"
        )
    found = {name: shutil.which(name) for name in _PROGRAMS}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        raise UnsupportedError(
            f"{', '.join(missing)} not on PATH; install bubblewrap and util-linux "
            "(apt-get install bubblewrap util-linux)"
        )
    return Programs(**{name: path for name, path in found.items() if path is not None})


def is_root() -> bool:
    """Whether this process may become another user."""
    return os.geteuid() == 0


def python_folders() -> tuple[Path, ...]:
    """Where the interpreter of this process lies, unless that is a part of the system."""
    prefix = Path(sys.base_prefix).resolve()
    return () if prefix.is_relative_to("/usr") else (prefix,)


def command_line(
    programs: Programs,
    limits: Limits,
    joins: Sequence[str],
    enters: Sequence[str],
    mounts: Sequence[tuple[str, str]],
    filter_fd: int,
    command: Sequence[str],
) -> list[str]:
    """The whole chain.

    Args:
        joins: files of control groups.
        enters: the call of ``nsenter`` that enters the disk's mounts.
        mounts: what is seen read-only in the sandbox (second), and where it lies there (first).
        filter_fd: an open file with the program of ``seccomp``.
    """
    drops = (programs.setpriv, f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--")
    return [
        *(programs.sh, "-c", _JOIN, "sh", *joins, "--", *enters),
        *(drops if is_root() else ()),
        *(programs.bwrap, *_isolation(limits, mounts), "--seccomp", str(filter_fd), "--"),
        # In blocks of 512 bytes, which are those of a standard shell.
        *("/bin/sh", "-c", _START, "sh", str(-(-limits.disk_bytes // 512)), *command),
    ]


def _isolation(limits: Limits, mounts: Sequence[tuple[str, str]]) -> list[str]:
    options = [
        *("--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"),
        *("--unshare-cgroup", "--new-session", "--die-with-parent", "--hostname", "sandbox"),
        *("--uid", str(NOBODY), "--gid", str(NOBODY), "--cap-drop", "ALL", "--clearenv"),
    ]
    for name, value in _environment().items():
        options += ["--setenv", name, value]
    options += ["--ro-bind", "/usr", "/usr"]
    for folder in _SYSTEM:
        if os.path.islink(folder):
            options += ["--symlink", os.readlink(folder), folder]
        else:
            options += ["--ro-bind-try", folder, folder]
    for path in _ETC:
        options += ["--ro-bind-try", path, path]
    size = ("--perms", "0700", "--size", str(limits.disk_bytes), "--tmpfs")
    options += ["--proc", "/proc", "--dev", "/dev", *size, "/tmp", *size, "/dev/shm"]
    for source, seen in mounts:
        options += ["--ro-bind", source, seen]
    return [
        *options,
        *("--bind", WORK, WORKING_DIRECTORY, "--chdir", WORKING_DIRECTORY),
        *("--remount-ro", "/dev", "--remount-ro", "/"),
    ]


def _environment() -> dict[str, str]:
    """All that a command sees of an environment: the same everywhere and at every run."""
    folders = [*(f"{folder}/bin" for folder in python_folders()), "/usr/local/bin", "/usr/bin"]
    return {
        "PATH": ":".join([*folders, "/bin"]),
        "HOME": WORKING_DIRECTORY,
        "USER": "sandbox",
        "TMPDIR": "/tmp",
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
