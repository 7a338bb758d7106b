"""A sandbox for code of strangers and of models: real execution that harms nothing.

    Sandbox.run(command, files, stdin) ─► Outcome                  everything is new at each run
    Sandbox.session(directory) ─► Session.run(...) ─► Outcome      files stay between runs

``bubblewrap.py`` isolates, ``cgroup.py`` bounds, ``disk.py`` holds the working directory,
``process.py`` runs. Where one of them cannot be had, nothing is run (docs/sandbox.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path

from selenite.agent.sandbox import bubblewrap
from selenite.agent.sandbox.bubblewrap import NOBODY, WORKING_DIRECTORY, Programs
from selenite.agent.sandbox.cgroup import Place
from selenite.agent.sandbox.limits import KilledBy, Limits
from selenite.agent.sandbox.place import find_place
from selenite.agent.sandbox.session import Outcome, Session
from selenite.errors import ConfigError, UnsupportedError
from selenite.types import Decision

_DEFAULT = Limits()
_RESERVED = ("/dev", "/proc", "/sys", WORKING_DIRECTORY)
_TRIAL = Limits(seconds=20, memory_bytes=16 * 2**20, processes=4, disk_bytes=2**20)
_TRIALS = {  # what crosses a bound of the above, by little
    KilledBy.PROCESSES: "for i in 1 2 3 4 5 6; do sleep 20 & done; wait",
    KilledBy.MEMORY: "head -c 40000000 /dev/zero | tail -c 30000000 | wc -c",
}


def availability() -> Decision:
    """What isolates and bounds runs here, tried out once with small bounds; "": nothing can."""
    try:
        programs = bubblewrap.find_programs()
        place = _proven_place(programs)
    except UnsupportedError as error:
        return Decision("", str(error))
    user = f"user {NOBODY}" if bubblewrap.is_root() else "this user's own rights"
    return Decision(
        "bubblewrap",
        f"{programs.bwrap} with {user}, bounded by control groups of version {place.version}, "
        "whose bounds on processes and on memory held when tried",
    )


class Sandbox:
    """Runs commands of which nothing is trusted. For any number of threads.

    Args:
        limits: of each run.
        readable: directories that runs see read-only at the same paths, besides the system and
            this process's Python; everybody must be allowed to read them.

    Raises ``ConfigError`` for a directory that is none or that lies where the sandbox's own are.
    """

    def __init__(self, limits: Limits = _DEFAULT, readable: Sequence[Path] = ()) -> None:
        for folder in readable:
            is_ours = any(folder.is_relative_to(ours) for ours in _RESERVED)
            if is_ours or not folder.is_absolute() or folder == Path("/") or not folder.is_dir():
                raise ConfigError(
                    f"readable: {str(folder)!r} must be the absolute path of a directory, other "
                    f"than / and not below {', '.join(_RESERVED)}"
                )
        self.limits = limits
        self._readable = tuple(readable)

    def run(
        self,
        command: Sequence[str],
        files: Mapping[str, bytes | str] | None = None,
        stdin: bytes | str = b"",
        collect: Sequence[str] = (),
    ) -> Outcome:
        """Runs a command in a working directory with nothing but ``files``.

        Args:
            command: program and arguments; no shell reads them.
            files: contents by relative path; text becomes UTF-8.
            collect: names or shell patterns of the files that the outcome brings. A pattern is
                compared with whole paths: ``*`` stands for any text, slashes too.

        Raises ``ConfigError`` for arguments that make no sense, ``StorageError`` where the files
        do not fit into ``limits.disk_bytes``, and ``UnsupportedError`` with reason and remedy
        where the run cannot be isolated: then nothing was run.
        """
        with self.session() as session:
            return session.run(command, files, stdin, collect)

    def session(self, directory: Path | None = None) -> Session:
        """A working directory for several runs, with a copy of ``directory`` in it.

        Raises what ``run`` raises.
        """
        programs = bubblewrap.find_programs()
        place = _proven_place(programs)
        with ExitStack() as stack:
            session = stack.enter_context(Session(programs, place, self.limits, self._readable))
            if directory is not None:
                session.load(directory)
            stack.pop_all()  # it stays open
        return session


@cache
def _proven_place(programs: Programs) -> Place:
    """Where groups are made, after their bounds were seen to hold.

    Raises ``UnsupportedError`` where they cannot be made or do not hold.
    """
    place = find_place()
    for bound, script in _TRIALS.items():
        with Session(programs, place, _TRIAL, ()) as session:
            outcome = session.run(["sh", "-c", script])
        if outcome.was_killed_by is not bound:
            raise UnsupportedError(
                f"the bound on {bound} does not hold here: a run that crosses it ended with "
                f"{outcome.was_killed_by or outcome.exit_code}; the kernel must be built with "
                "control groups for memory and processes"
            )
    return place
