"""Tools over MCP: real servers, broken ones, and worlds served to others.

Broken servers are small scripts that speak JSON-RPC themselves, and so can break its rules.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import time
import tomllib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp import Client, StdioServerParameters

from selenite.agent.mcp import install
from selenite.agent.mcp.catalogue import Catalogue, Server, read_catalogue
from selenite.agent.mcp.directory import EpisodeDirectory
from selenite.agent.mcp.launch import Launch
from selenite.agent.mcp.names import shown_names
from selenite.agent.mcp.serve import event_line, world_server
from selenite.agent.mcp.toolbox import Toolbox
from selenite.agent.ontology.evolve import make_domain
from selenite.agent.randomness import stream
from selenite.agent.tools.tool import Effect
from selenite.agent.world.reply import Code
from selenite.agent.world.sample import draw_arguments, sample_world
from selenite.agent.world.world import World
from selenite.chat.schema import ToolSchemas
from selenite.config import validate
from selenite.errors import ConfigError, EndpointError, StorageError, UnsupportedError
from selenite.types import ToolCall

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "mcp.md"

SCRIPT = """
import json, os, sys, time
open(sys.argv[1], "w").write(str(os.getpid()))
TOOLS = [{"name": "act", "inputSchema": {"type": "object"}}]

def send(id, **message):
    print(json.dumps({"jsonrpc": "2.0", "id": id, **message}), flush=True)

def text(words, **more):
    return {"content": [{"type": "text", "text": words}], **more}

def hello(id, params):
    result = {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}}}
    send(id, result=result | {"serverInfo": {"name": "script", "version": "1"}})

def tools(id):
    send(id, result={"tools": TOOLS})

def call(id, name, arguments):
    send(id, result=text("done"))

#changes
for line in sys.stdin:
    message = json.loads(line)
    id, params = message.get("id"), message.get("params", {})
    match message["method"]:
        case "initialize": hello(id, params)
        case "tools/list": tools(id)
        case "tools/call": call(id, params["name"], params.get("arguments"))
        case "ping": send(id, result={})
"""

MakeScript = Callable[..., Launch]


@pytest.fixture
def script(tmp_path: Path) -> MakeScript:
    """Makes a server of a script, with some of its functions written anew."""

    def make(changes: str = "", name: str = "script", **habits: Any) -> Launch:
        path = tmp_path / f"{name}.py"
        path.write_text(SCRIPT.replace("#changes", textwrap.dedent(changes)))
        command = (sys.executable, "-S", "-E", str(path), str(tmp_path / f"{name}.pid"))
        return Launch(name, command, **habits)

    return make


def is_running(pid_file: Path) -> bool:
    """Whether a process is there; one that is only not yet reaped is not, and one that was ended
    before it wrote its number is not either."""
    if not pid_file.exists() or not pid_file.read_text():
        return False
    status = Path("/proc") / pid_file.read_text() / "stat"
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


# --- names, the catalogue, installation


NAMES = st.text(st.sampled_from("ab1_-./ é"), max_size=5) | st.text(max_size=80)


@given(st.sets(st.tuples(st.sampled_from(["a", "b-c"]), NAMES), max_size=12), st.randoms())
def test_shown_names_are_a_bijection_that_depends_on_no_order(
    pairs: set[tuple[str, str]], rng: Any
) -> None:
    table = shown_names(pairs)
    assert sorted(table.values()) == sorted(pairs)
    assert all(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", name) for name in table)
    shuffled = sorted(pairs)
    rng.shuffle(shuffled)
    assert shown_names(shuffled) == table


def test_names_that_are_good_stay_and_others_say_where_they_come_from() -> None:
    offered = [("fs", "read"), ("db", "read"), ("fs", "a.b"), ("db", "a_b_2"), ("db", "list-all")]
    assert shown_names([*offered, ("fs", "a-b")]) == {
        "fs_read": ("fs", "read"),
        "db_read": ("db", "read"),
        "fs_a_b": ("fs", "a-b"),
        "fs_a_b_2": ("fs", "a.b"),
        "a_b_2": ("db", "a_b_2"),
        "list_all": ("db", "list-all"),
    }


SERVER = {
    "registry": "npm",
    "package": "p",
    "version": "1.2.3",
    "license": "MIT",
    "command": ["node", "{installed}/x.js", "{workspace}"],
}


def test_a_wrong_catalogue_is_refused(tmp_path: Path) -> None:
    def errors(**changes: Any) -> str:
        with pytest.raises(ConfigError) as caught:
            validate(Catalogue, {"servers": {"one": SERVER | changes}}, "file.toml")
        return str(caught.value)

    assert "did you mean servers.one.license" in errors(licence="MIT")
    assert "{workdir} is unknown; known: {installed}" in errors(command=["x", "{workdir}"])
    assert "servers.one.registry" in errors(registry="conda")
    assert "servers.one.effects" in errors(effects={"act": "reading"})
    with pytest.raises(ConfigError, match=r"no MCP server 'gti'; known: filesystem, memory"):
        read_catalogue().find("gti")
    with pytest.raises(ConfigError, match=r"named '\.\./x'"):
        Launch("../x", ("true",))


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for npm, which notes each use; the file ``fails`` makes it fail."""
    program = tmp_path / "bin" / "npm"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/uses\nmkdir -p "$3/node_modules"\n'
        f'test ! -e {tmp_path}/fails || {{ echo "E404 no such package" >&2; exit 3; }}\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def test_a_server_is_installed_once_and_again_after_a_failure(npm: Path) -> None:
    server = validate(Server, SERVER, "here")
    (npm / "fails").touch()
    with pytest.raises(UnsupportedError, match=r"'one' cannot be installed.*exit code 3.*E404"):
        install.install("one", server)
    (npm / "fails").unlink()
    with ThreadPoolExecutor(4) as pool:
        places = set(pool.map(lambda _: install.install("one", server), range(4)))
    uses = (npm / "uses").read_text().splitlines()
    assert len(places) == 1
    assert len(uses) == 2  # one failed
    assert uses[1].endswith(" p@1.2.3")
    newer = server.model_copy(update={"version": "1.2.4"})
    assert install.install("one", newer) not in places


def test_the_installer_says_what_is_missing(npm: Path, capsys: Any, monkeypatch: Any) -> None:
    catalogue = npm / "servers.toml"
    catalogue.write_text(
        '[servers.one]\nregistry = "npm"\npackage = "p"\nversion = "1"\nlicense = "MIT"\n'
        'command = ["nodule"]\nprograms = ["nodule"]\n'
    )
    assert install.main(["--servers", str(catalogue)]) == UnsupportedError.exit_code
    assert "'one' needs the program 'nodule', which is not on the PATH" in capsys.readouterr().err
    assert install.main(["two", "--servers", str(catalogue)]) == ConfigError.exit_code
    assert "no MCP server 'two'; known: one" in capsys.readouterr().err


# --- the directory of an episode


def test_the_digest_sees_names_kinds_modes_and_contents_and_nothing_else(tmp_path: Path) -> None:
    one, two = EpisodeDirectory(tmp_path / "one"), EpisodeDirectory(tmp_path / "two")
    for directory, names in ((one, "abc"), (two, "cba")):
        for name in names:
            (directory.workspace / name).write_text(name)
    os.utime(one.workspace / "a", (1, 1))
    (one.root / "home" / "x").write_text("not state")
    assert one.digest() == two.digest()
    seen = {one.digest()}
    changes: list[Callable[[Path], object]] = [
        lambda folder: (folder / "a").write_text("b"),
        lambda folder: (folder / "a").rename(folder / "d"),
        lambda folder: (folder / "b").chmod(0o755),
        lambda folder: (folder / "empty").mkdir(),
        lambda folder: (folder / "link").symlink_to("nowhere"),
        lambda folder: os.mkfifo(folder / "pipe"),  # reading it would wait for ever
        lambda folder: (one.private("script") / "graph").write_text("x"),
    ]
    for change in changes:
        change(one.workspace)
        assert one.digest() not in seen
        seen.add(one.digest())


def test_an_episode_begins_with_a_snapshot(tmp_path: Path) -> None:
    before = EpisodeDirectory(tmp_path / "one")
    (before.workspace / "folder").mkdir()
    (before.workspace / "folder" / "a").write_text("a")
    (before.private("script") / "graph").write_text("x")
    before.snapshot(tmp_path / "kept")
    after = EpisodeDirectory(tmp_path / "two", start=tmp_path / "kept")
    assert after.digest() == before.digest()
    with pytest.raises(StorageError, match="kept: no snapshot can be written"):
        before.snapshot(tmp_path / "kept")
    with pytest.raises(StorageError, match="home: no snapshot"):
        EpisodeDirectory(tmp_path / "three", start=before.root / "home")


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_digest_of_a_repository_is_of_what_is_staged_and_committed(tmp_path: Path) -> None:
    def git(directory: EpisodeDirectory, *arguments: str, when: int = 0) -> None:
        who = {
            f"GIT_{role}_{part}": "a"
            for role in ("AUTHOR", "COMMITTER")
            for part in ("NAME", "EMAIL")
        }
        dates = {f"GIT_{role}_DATE": "2026-01-05T12:00:00" for role in ("AUTHOR", "COMMITTER")}
        environment = os.environ | directory.environment() | who | dates
        folder = directory.workspace
        subprocess.run(["git", *arguments], cwd=folder, env=environment, check=True)

    digests = []
    for name in ("one", "two"):
        found, directory = [], EpisodeDirectory(tmp_path / name)
        git(directory, "init", "-q", "-b", "main")
        (directory.workspace / "a").write_text("1")
        git(directory, "add", "a")
        git(directory, "commit", "-q", "-m", "first")
        found.append(directory.digest())
        (directory.workspace / "a").write_text("2")
        git(directory, "add", "a")
        found.append(directory.digest())
        git(directory, "reset", "-q")
        found.append(directory.digest())
        os.utime(directory.workspace / "a", (1, 1))
        git(directory, "status", "--porcelain")  # notes the new time in the index
        assert directory.digest() == found[-1]
        digests.append(found)
    assert digests[0] == digests[1]
    assert len(set(digests[0])) == 3


# --- what servers answer


def reply(script: MakeScript, result: str, **limits: Any) -> tuple[Code | None, dict[str, Any]]:
    """The reply to a call whose answer is made by the expression ``result``."""
    launch = script(f"def call(id, name, arguments): send(id, {result})", failures=("Oops: ",))
    with Toolbox([launch], **limits) as toolbox:
        found = toolbox.call("act", {})
        assert toolbox.call("act", {}) == found  # it is alive
    return found.code, found.content


@pytest.mark.parametrize(
    ("result", "code", "content"),
    [
        ("result=text('fine')", None, "fine"),
        ("result=text('it broke', isError=True)", Code.FAILED_PRECONDITION, "it broke"),
        ("result=text('Oops: no table')", Code.FAILED_PRECONDITION, "Oops: no table"),
        (
            "result=text('MCP error -32602: bad path', isError=True)",
            Code.INVALID_ARGUMENT,
            "MCP error -32602: bad path",
        ),
        ("error={'code': -32602, 'message': 'no'}", Code.INVALID_ARGUMENT, "no"),
        ("error={'code': -32601, 'message': 'no'}", Code.UNKNOWN_TOOL, "no"),
        # The code with which the SDK says that a connection is closed.
        ("error={'code': -32000, 'message': 'busy'}", Code.FAILED_PRECONDITION, "busy"),
        ("result={'content': []}", None, ""),
        (
            "result={'content': [{'type': 'text', 'text': 'a'},"
            " {'type': 'image', 'data': 'AAAA', 'mimeType': 'image/png'}]}",
            None,
            "a\n[image: image/png, 4 characters of base64]",
        ),
    ],
)
def test_both_ways_to_refuse_and_all_results_are_read(
    script: MakeScript, result: str, code: Code | None, content: Any
) -> None:
    found = reply(script, result)
    expected = (
        {"content": content} if code is None else {"error": {"code": code, "message": content}}
    )
    assert found == (code, expected)


def test_a_structured_result_and_a_refusal_of_our_form_are_taken_as_they_are(
    script: MakeScript,
) -> None:
    structured = "result=text('short', structuredContent={'a': [1, None, 2.5]})"
    assert reply(script, structured) == (None, {"a": [1, None, 2.5]})
    body = {"error": {"code": "RATE_LIMITED", "message": "later", "retry_after": 3}}
    refusal = f"result=text({json.dumps(body)!r}, isError=True)"
    assert reply(script, refusal) == (Code.RATE_LIMITED, body)


def test_a_huge_result_arrives_whole_or_cut(script: MakeScript) -> None:
    huge = "result=text('x' * 3_000_000)"
    assert reply(script, huge, max_reply_chars=4_000_000) == (None, {"content": "x" * 3_000_000})
    code, content = reply(script, huge, max_reply_chars=1000)
    assert code is None
    assert len(content["content"]) < 1100
    assert content["content"].endswith("[cut: 2999015 more characters]")


def test_effects_come_from_hints_or_from_the_launch(script: MakeScript) -> None:
    changes = """
    def tool(name, **hints):
        return {"name": name, "inputSchema": {"type": "object"}, "annotations": hints}
    TOOLS = [tool("get", readOnlyHint=True), tool("add", destructiveHint=False), tool("edit"),
             tool("delete-all", destructiveHint=True), tool("plain")]
    """
    with Toolbox([script(changes, effects={"plain": Effect.COMPUTE})]) as toolbox:
        effects = {tool.name: tool.effect for tool in toolbox.tools}
    assert effects == {
        "get": Effect.READ,
        "add": Effect.CREATE,
        "edit": Effect.UPDATE,
        "delete-all": Effect.DELETE,
        "plain": Effect.COMPUTE,
    }


ECHO = """
TOOLS[0] |= {"description": os.getcwd()}
TOOLS[0]["inputSchema"]["default"] = os.getcwd()
def call(id, name, arguments):
    seen = {"name": name, "arguments": arguments, "folder": os.getcwd(), "home": os.environ["HOME"]}
    send(id, result=text("", structuredContent=seen))
"""


def test_arguments_arrive_as_they_are_but_for_paths(script: MakeScript) -> None:
    arguments = {
        "path": "/workspace/a/b",
        "folder": ["/workspace"],
        "other": "/workspaces, and in /workspace",
        "values": [None, {"x": None}, 1.0, -0.0, 2**70, "ä\u2028", True],
    }
    with Toolbox([script(ECHO)]) as toolbox:
        seen = toolbox.call("act", arguments).content
        raw = toolbox.directory.workspace
        (spec,) = toolbox.specs
    assert json.dumps(seen["arguments"]) == json.dumps(arguments)
    assert (seen["folder"], seen["home"]) == ("/workspace", "/episode/home")
    assert (spec.description, spec.parameters) == (
        "/workspace",
        {"type": "object", "default": "/workspace"},
    )
    assert not raw.exists()


@pytest.mark.parametrize(
    "value",
    [float("nan"), "\ud800", {1, 2}, json.loads("[" * 150 + "]" * 150)],
    ids=["no number", "half a character", "a set", "too deep"],
)
def test_what_no_server_could_read_is_refused_before_it_is_sent(
    script: MakeScript, value: Any
) -> None:
    with Toolbox([script(ECHO)]) as toolbox:
        found = toolbox.call("act", {"value": value})
        assert found.code == Code.INVALID_ARGUMENT
        assert toolbox.call("nothing", {}).code == Code.UNKNOWN_TOOL
        assert toolbox.call("act", {"value": 1}).is_ok


def test_two_servers_share_a_directory_and_names_do_not_clash(
    script: MakeScript, tmp_path: Path
) -> None:
    changes = """
    TOOLS = [{"name": name, "inputSchema": {"type": "object", "$schema": "x", "title": "y"}}
             for name in ("notes.add", "notes.read")]
    def call(id, name, arguments):
        if name == "notes.add":
            open("notes", "a").write(arguments["text"])
        send(id, result=text(open("notes").read()))
    """
    launches = [script(changes, name="left"), script(changes, name="right")]
    with Toolbox(launches) as toolbox:
        assert [spec.name for spec in toolbox.specs] == [
            *("left_notes_add", "left_notes_read", "right_notes_add", "right_notes_read")
        ]
        assert toolbox.specs[0].parameters == {"type": "object"}
        empty = toolbox.digest()
        toolbox.call("left_notes_add", {"text": "a"})
        assert toolbox.call("right_notes_read", {}).content == {"content": "a"}
        wrote, read = toolbox.events
        assert (wrote.before, wrote.after) == (empty, read.before)
        assert wrote.before != wrote.after == read.after
        toolbox.snapshot(tmp_path / "kept")
    with Toolbox(launches, start=tmp_path / "kept") as toolbox:
        assert toolbox.digest() == read.after
        assert toolbox.call("left_notes_read", {}).content == {"content": "a"}
    with pytest.raises(ConfigError, match="2 MCP servers are named 'left'"):
        Toolbox([launches[0], launches[0]])


def test_episodes_in_threads_do_not_see_each_other(script: MakeScript) -> None:
    changes = """
    def call(id, name, arguments):
        open("notes", "a").write(arguments["text"])
        send(id, result=text(open("notes").read()))
    """
    launch = script(changes)

    def episode(number: int) -> list[Any]:
        with Toolbox([launch]) as toolbox:
            for step in range(5):
                toolbox.call("act", {"text": f"{number % 2}{step} "})
            return toolbox.events

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(episode, range(8)))
    assert found[0][-1].reply.content == {"content": "00 01 02 03 04 "}
    assert all(events == found[number % 2] for number, events in enumerate(found))


# --- servers that fail


BROKEN = {
    "dies at start": ("sys.exit('no key given')", "ended during starting;.*no key given"),
    "dies at a call": (
        "def call(*rest): sys.exit('out of luck')",
        "ended during a call of 'act';.*last words on stderr: out of luck",
    ),
    "closes its output": (
        "def call(*rest): sys.stdout.flush(); os.close(1)",
        "ended during a call of 'act'",
    ),
    "never answers initialize": (
        "def hello(*rest): pass",
        r"did not finish starting within 0\.7 s; allow it more",
    ),
    "never answers a call": (
        "def call(*rest): time.sleep(60)",
        r"did not finish a call of 'act' within 0\.7 s",
    ),
    "lists for ever": (
        "def tools(id): send(id, result={'tools': [], 'nextCursor': 'more'})",
        r"did not finish starting within 0\.7 s",
    ),
    "greets people": (
        "print('Welcome!', flush=True)",
        "wrote what is no message to stdout.*starting.*Welcome!.*log to stderr",
    ),
    "prints in a call": (
        "def call(id, *rest): print('debug', flush=True); send(id, result=text('done'))",
        "wrote what is no message to stdout.*a call of 'act'.*debug",
    ),
    "writes binary": (
        r"def call(*rest): sys.stdout.buffer.write(b'\xff\xfe\n'); sys.stdout.flush()",
        "wrote what is no message to stdout",
    ),
    "breaks the protocol": (
        "def call(id, *rest): send(id, result={'content': 7})",
        "answered a call of 'act' with what is no MCP",
    ),
    "refuses to start": (
        "def hello(id, params): send(id, error={'code': -32603, 'message': 'no licence'})",
        "refuses to start: no licence",
    ),
    "is from another age": (
        "def hello(id, params): send(id, result={'protocolVersion': '1999-01-01',"
        " 'capabilities': {}, 'serverInfo': {'name': 'x', 'version': '1'}})",
        "refuses to start: Unsupported protocol version.*1999",
    ),
    "has a tool twice": ("TOOLS = TOOLS * 2", "has two tools named 'act'"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_server_that_fails_is_named_and_gone(
    script: MakeScript, tmp_path: Path, kind: str
) -> None:
    changes, message = BROKEN[kind]
    started = time.monotonic()
    what = "start_seconds" if "starting" in message else "call_seconds"
    seconds = {what: 0.7} if r"0\.7" in message else {}
    with pytest.raises(EndpointError, match=rf"(?s)the MCP server 'script' {message}"):
        fail(Toolbox([script(changes)], **seconds), tmp_path / "script.pid")
    assert not is_running(tmp_path / "script.pid")
    assert time.monotonic() - started < 20


def fail(broken: Toolbox, pid_file: Path) -> None:
    """Starts and calls; after a call that fails the server is gone, and others fail as it did."""
    with broken as toolbox:
        try:
            toolbox.call("act", {})
        except EndpointError as error:
            assert not is_running(pid_file)
            with pytest.raises(EndpointError, match=re.escape(str(error))):
                toolbox.call("act", {})
            assert toolbox.events == []
            raise


def test_a_program_that_is_not_there_is_an_error() -> None:
    with (
        pytest.raises(EndpointError, match=r"'lost' cannot be started: No such file.*'no-such-"),
        Toolbox([Launch("lost", ("no-such-program",))]),
    ):
        pass


def test_a_server_that_will_not_go_is_killed_with_its_children(
    script: MakeScript, tmp_path: Path
) -> None:
    changes = f"""
    import signal, subprocess
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen(["sleep", "60"])
    open({str(tmp_path / "child.pid")!r}, "w").write(str(child.pid))
    import atexit
    atexit.register(time.sleep, 60)
    """
    with Toolbox([script(changes)]) as toolbox:
        toolbox.call("act", {})
        assert is_running(tmp_path / "script.pid")
        assert is_running(tmp_path / "child.pid")
    assert not is_running(tmp_path / "script.pid")
    assert not is_running(tmp_path / "child.pid")


# --- worlds served


SEED = 7


def seeded_calls(world: World, count: int) -> list[tuple[str, dict[str, Any]]]:
    """Calls that fit, mixed with such that do not, made as ``world`` changes."""
    rng, found = stream(1, "calls", world.domain.id), []
    for number in range(count):
        tool = rng.choice(world.domain.tools)
        arguments = draw_arguments(world, tool, rng)
        if number % 7 == 3:
            arguments["surprise"] = 1
        elif number % 7 == 5 and arguments:
            arguments[min(arguments)] = {"not": None}
        found.append((tool.name, arguments))
        world.call(tool.name, arguments)
    return found


def serving(domain: int, events: Path) -> tuple[str, ...]:
    place = ("--seed", str(SEED), "--domain", str(domain), "--world", "2")
    module = (sys.executable, "-m", "selenite.agent.mcp.serve")
    return (*module, *place, "--events", str(events))


@pytest.mark.parametrize(("domain", "mark"), [(10, "."), (7, "-")])
def test_a_served_world_is_the_world(domain: int, mark: str, tmp_path: Path) -> None:
    """Dots and dashes in names included."""
    world = sample_world(make_domain(SEED, domain), 2)
    with Toolbox([Launch("world", serving(domain, tmp_path / "events"))]) as toolbox:
        shown = {tool.name: tool.spec.name for tool in toolbox.tools}
        assert sum(mark in name for name in shown) > 30
        for tool in world.domain.tools:
            spec = next(spec for spec in toolbox.specs if spec.name == shown[tool.name])
            assert (spec.description, spec.parameters) == (tool.description, tool.parameters)
        said = toolbox.instructions["world"]
        assert world.today.isoformat() in said
        assert world.domain.policies
        assert all(policy.sentence() in said for policy in world.domain.policies)
        direct = world.fork()
        for name, arguments in seeded_calls(world, 60):
            assert toolbox.call(shown[name], arguments) == direct.call(name, arguments)
    codes = Counter(event.reply.code for event in direct.events)
    assert codes[None] > 20
    assert len(codes) >= 3
    assert direct.events[0].before != direct.events[-1].after
    assert (tmp_path / "events").read_text() == "".join(map(event_line, direct.events))


def test_a_served_world_keeps_to_the_protocol_of_today_and_of_before(tmp_path: Path) -> None:
    """The SDK's own client, which checks results against their schemas, in this process."""

    async def drive(mode: str, domain: int) -> None:
        world = sample_world(make_domain(SEED, domain), 3)
        served, direct = world.fork(), world.fork()
        calls = [*seeded_calls(world, 60), ("nothing", {})]
        async with Client(world_server(served, lambda event: None), mode=mode) as client:
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
            for tool in world.domain.tools:
                found = tools[tool.name]
                assert found.output_schema == tool.returns
                reads = tool.effect in (Effect.READ, Effect.COMPUTE)
                assert found.annotations is not None
                assert found.annotations.read_only_hint is reads
                assert (found.annotations.destructive_hint is True) == (
                    tool.effect is Effect.DELETE
                )
            for name, arguments in calls:
                result, expected = (
                    await client.call_tool(name, arguments),
                    direct.call(name, arguments),
                )
                assert result.is_error == (not expected.is_ok)
                assert [block.text for block in result.content] == [expected.text()]
                assert result.structured_content == (expected.content if expected.is_ok else None)
        assert served.events == direct.events

    for mode in ("auto", "legacy"):
        for domain in range(6):
            anyio.run(drive, mode, domain)


def test_a_foreign_client_starts_the_server_of_the_document(tmp_path: Path) -> None:
    (block,) = re.findall(r"```json\n(.*?)```", DOCUMENT.read_text(), re.S)
    (entry,) = json.loads(block)["mcpServers"].values()
    assert entry["command"] == "python"

    async def drive() -> str | None:
        # In this process' environment, which may say where the package is.
        environment = dict(os.environ)
        parameters = StdioServerParameters(
            command=sys.executable, args=entry["args"], cwd=tmp_path, env=environment
        )
        async with Client(parameters) as client:
            tool = (await client.list_tools()).tools[0]
            await client.call_tool(tool.name, {"no": "such"})
            return client.instructions

    assert "Today is" in str(anyio.run(drive))
    (event,) = (tmp_path / "events.jsonl").read_text().splitlines()
    assert json.loads(event)["reply"]["code"] == "INVALID_ARGUMENT"
    assert set(json.loads(event)) == {"tool", "arguments", "reply", "before", "after"}


def test_a_file_of_events_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    command = serving(0, tmp_path / "no" / "events")
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == StorageError.exit_code
    assert "events cannot be written" in done.stderr


def test_without_the_sdk_the_extra_is_named() -> None:
    code = "import sys; sys.modules['mcp'] = None; import selenite.agent.mcp.toolbox"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "MissingExtraError" in done.stderr
    assert "pip install 'selenite[agent]'" in done.stderr


def test_the_agent_does_not_import_torch() -> None:
    code = (
        "import sys, selenite.agent.mcp.toolbox, selenite.agent.mcp.serve, "
        "selenite.agent.mcp.install; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# --- real servers


def launch(name: str, catalogue: Catalogue | None = None) -> Launch:
    try:
        return install.launch_of(catalogue or read_catalogue(), name)
    except UnsupportedError as error:
        pytest.skip(str(error))


Calls = list[tuple[str, dict[str, Any]]]
CALLS: dict[str, Calls] = {
    "filesystem": [
        ("create_directory", {"path": "/workspace/notes"}),
        ("write_file", {"path": "/workspace/notes/a.txt", "content": "one\ntwo\n"}),
        ("read_text_file", {"path": "/workspace/notes/a.txt", "head": 1}),
        (
            "edit_file",
            {
                "path": "/workspace/notes/a.txt",
                "edits": [{"oldText": "two", "newText": "three"}],
            },
        ),
        ("move_file", {"source": "/workspace/notes/a.txt", "destination": "/workspace/b.txt"}),
        ("directory_tree", {"path": "/workspace"}),
        ("list_allowed_directories", {}),
        ("read_text_file", {"path": "/etc/passwd"}),
        ("read_text_file", {"path": 7}),
    ],
    "memory": [
        (
            "create_entities",
            {"entities": [{"name": "Ann", "entityType": "person", "observations": ["likes tea"]}]},
        ),
        ("read_graph", {}),
        (
            "add_observations",
            {"observations": [{"entityName": "Bob", "contents": ["is not there"]}]},
        ),
        ("search_nodes", {"query": "tea"}),
        ("delete_entities", {"entityNames": ["Ann"]}),
    ],
    "time": [
        (
            "convert_time",
            {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"},
        ),
        ("get_current_time", {"timezone": "Nowhere/Town"}),
    ],
    "git": [
        ("git_create_branch", {"repo_path": "/workspace", "branch_name": "dev"}),
        ("git_checkout", {"repo_path": "/workspace", "branch_name": "dev"}),
        ("git_add", {"repo_path": "/workspace", "files": ["new.txt"]}),
        ("git_reset", {"repo_path": "/workspace"}),
        ("git_add", {"repo_path": "/workspace", "files": ["new.txt"]}),
        ("git_commit", {"repo_path": "/workspace", "message": "second"}),
        ("git_log", {"repo_path": "/workspace"}),
        ("git_status", {"repo_path": "/workspace"}),
        ("git_checkout", {"repo_path": "/workspace", "branch_name": "lost"}),
        ("git_status", {"repo_path": "/elsewhere"}),
    ],
    "sqlite": [
        ("create_table", {"query": "CREATE TABLE t (a INT)"}),
        ("write_query", {"query": "INSERT INTO t VALUES (41)"}),
        ("read_query", {"query": "SELECT a + 1 AS b FROM t"}),
        ("read_query", {"query": "SELECT * FROM lost"}),
        ("read_query", {"query": 7}),
    ],
}
REFUSED = {"filesystem": 2, "memory": 1, "time": 1, "git": 2, "sqlite": 2}
WRITES = {"filesystem": 4, "memory": 2, "time": 0, "git": 6, "sqlite": 2}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A snapshot with a repository of one commit, and a file that is not in it."""
    start = tmp_path_factory.mktemp("start")
    workspace = start / "workspace"
    workspace.mkdir()
    identity = ["-c", "user.name=Ann", "-c", "user.email=ann@example.com"]
    (workspace / "old.txt").write_text("old")
    for command in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run(["git", *identity, *command], cwd=workspace, check=True)
    (workspace / "new.txt").write_text("new")
    return start


def episode(name: str, start: Path | None) -> Toolbox:
    """An episode of a real server, each call made as a model would make it."""
    with Toolbox([launch(name)], start) as toolbox:
        schemas = ToolSchemas(toolbox.specs)
        for number, (tool, arguments) in enumerate(CALLS[name]):
            call = ToolCall(tool, json.dumps(arguments), f"functions.{tool}:{number}")
            reply = toolbox.call(call.name, json.loads(call.arguments))
            assert schemas.check(call).valid or not reply.is_ok
            assert len(reply.text()) > 2
            assert str(toolbox.directory.root) not in reply.text()
    return toolbox


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_an_episode_with_a_real_server_is_the_same_again(name: str, request: Any) -> None:
    start = request.getfixturevalue("repository") if name == "git" else None
    first = episode(name, start)
    assert (
        len(first.tools) == {"filesystem": 14, "memory": 9, "time": 2, "git": 12, "sqlite": 6}[name]
    )
    refused = [event for event in first.events if not event.reply.is_ok]
    assert len(refused) == REFUSED[name]
    assert all(event.before == event.after for event in refused)
    assert sum(event.before != event.after for event in first.events) == WRITES[name]
    effects = {tool.spec.name: tool.effect for tool in first.tools}
    for event in first.events:
        assert event.before == event.after or effects[event.tool] is not Effect.READ
    again = episode(name, start)
    if name == "time":  # the day may end in between
        differences = [run.events[0].reply.content["time_difference"] for run in (first, again)]
        assert differences == ["+9.0h"] * 2
        assert first.events[1:] == again.events[1:]
    else:
        assert first.events == again.events


@pytest.mark.slow
def test_the_server_and_the_code_of_the_document_work(capsys: Any, tmp_path: Path) -> None:
    text = DOCUMENT.read_text()
    (toml,) = re.findall(r"```toml\n(.*?)```", text, re.S)
    catalogue = validate(Catalogue, tomllib.loads(toml), "docs/mcp.md")
    with Toolbox([launch("thinking", catalogue)]) as toolbox:
        thought = {"thought": "x", "thoughtNumber": 1, "totalThoughts": 1}
        (tool,) = toolbox.specs
        assert toolbox.call(tool.name, thought | {"nextThoughtNeeded": False}).is_ok
    (code,) = re.findall(r"```python\n(.*?)```", text, re.S)
    launch("filesystem")
    exec(code, {})
    assert "Successfully wrote to /workspace/note.txt" in capsys.readouterr().out
    for name in read_catalogue().servers:
        assert f"| `{name}` |" in text
