"""Installs MCP servers, each into a place of its own in the user's cache: a virtual environment, or
a folder of npm packages. Their pins conflict with ours and with each other.

    python -m selenite.agent.mcp.install filesystem git

A finished place is kept: it is named for the server's pins. A stamp is written last, so that an
interrupted installation starts anew.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from selenite.agent.mcp.catalogue import INSTALLED, SHIPPED, Catalogue, Server, read_catalogue
from selenite.agent.mcp.launch import Launch
from selenite.errors import SeleniteError, StorageError, UnsupportedError

_SECONDS = 900  # for one installation


def launch_of(catalogue: Catalogue, name: str) -> Launch:
    """How a server is started, after it was installed if it was not.

    Raises ``ConfigError`` for an unknown name, and what ``install`` raises.
    """
    server = catalogue.find(name)
    habits = (server.environment, server.effects, server.failures)
    launch = Launch(name, server.command, *habits)
    return launch.filled({INSTALLED: install(name, server)})


def install(name: str, server: Server) -> Path:
    """Installs a server unless that is done, and returns its place.

    Raises ``UnsupportedError`` where a program that it needs is missing, and where pip or npm fail;
    ``StorageError`` when the cache cannot be written.
    """
    for program in (*server.programs, *(["npm"] if server.registry == "npm" else [])):
        if shutil.which(program) is None:
            raise UnsupportedError(
                f"the MCP server {name!r} needs the program {program!r}, which is not on the PATH; "
                "install it, or leave this server out"
            )
    place = _place(name, server)
    stamp = place / "finished"
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be installing the same
            if not stamp.exists():
                shutil.rmtree(place, ignore_errors=True)
                for command in _commands(server, place):
                    _run(name, command)
                stamp.touch()
    except OSError as error:
        raise StorageError(f"{place}: no server can be installed there ({error})") from error
    return place


def _commands(server: Server, place: Path) -> list[list[str]]:
    if server.registry == "pypi":
        pip = [str(place / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
        return [
            [sys.executable, "-m", "venv", str(place)],
            [*pip, "install", "-q", *server.requirements],
        ]
    # No package of a server needs to run code while it is installed.
    quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    return [["npm", "install", "--prefix", str(place), *quiet, *server.requirements]]


def _place(name: str, server: Server) -> Path:
    cache_home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    made_of = repr((server.registry, server.requirements, sys.version_info[:2]))
    key = hashlib.sha256(made_of.encode()).hexdigest()[:16]
    return Path(cache_home) / "selenite" / "mcp" / f"{name}-{key}"


def _run(name: str, command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise UnsupportedError(
            f"the MCP server {name!r} was not installed after {_SECONDS} s; "
            "check the connection to the package index"
        ) from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()[-4:]
        raise UnsupportedError(
            f"the MCP server {name!r} cannot be installed: {command[0]} ended with exit code "
            f"{done.returncode}; it said: {' | '.join(said) or 'nothing'}"
        )


def main(arguments: list[str]) -> int:
    """Installs the named servers, or all; the exit code is that of the last error."""
    parser = argparse.ArgumentParser(prog="python -m selenite.agent.mcp.install")
    parser.add_argument("names", nargs="*", help="servers of the file; none: all of them")
    parser.add_argument("--servers", type=Path, default=SHIPPED, help="a TOML file of servers")
    given = parser.parse_args(arguments)
    failed = 0
    try:
        catalogue = read_catalogue(given.servers)
        chosen = {name: catalogue.find(name) for name in given.names or catalogue.servers}
    except SeleniteError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    for name, server in chosen.items():
        try:
            print(f"{name}: {install(name, server)} ({server.license})", flush=True)
        except SeleniteError as error:
            print(f"error: {error}", file=sys.stderr)
            failed = error.exit_code
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
