"""Tasks over real MCP servers: what was done is judged, whoever says what."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from selenite.agent.mcp.launch import Launch
from selenite.errors import UnsupportedError
from selenite.rl.gym.audit import SPEAKERS, attempt
from selenite.rl.gym.config import EnvironmentPart
from selenite.rl.gym.environment import HELD_OUT, Budget, EnvironmentFailedError, close
from selenite.rl.gym.mcp.environment import JOBS, Mcp, Work
from selenite.types import Message, ToolCall

READS = ("list", "read", "directory_tree", "search", "get", "describe", "git_status", "git_log")


@pytest.fixture(scope="module")
def mcp() -> Mcp:
    try:
        return Mcp()
    except UnsupportedError as error:
        pytest.skip(str(error))


def calls(*pairs: tuple[str, Any]) -> Message:
    made = tuple(
        ToolCall(name, json.dumps(arguments), f"functions.{name}:{i}")
        for i, (name, arguments) in enumerate(pairs)
    )
    return Message("assistant", "", tool_calls=made)


def servers_of(work: Work) -> list[int]:
    """Processes that have the attempt's directory as theirs."""
    root = str(work.toolbox.directory.root)
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                is_own = os.readlink(entry / "cwd").startswith(root)
                stat = (entry / "stat").read_text().rpartition(")")[2]
            except OSError:
                continue
            if is_own and stat.split()[0] != "Z":
                found.append(int(entry.name))
    return found


@pytest.fixture
def opened(mcp: Mcp) -> Iterator[Any]:
    """Begins attempts that are closed afterwards."""
    works = list[Work]()

    def begin(number: int) -> Work:
        works.append(mcp.begin(number))
        return works[-1]

    yield begin
    for work in works:
        close(work)


@pytest.mark.slow
def test_the_oracle_earns_everything_and_a_part_of_its_way_nothing(mcp: Mcp) -> None:
    kinds = set()
    for number in [*range(18), *range(HELD_OUT, HELD_OUT + 6)]:
        work = mcp.begin(number)
        try:
            kinds.add(work.job.request.split(",")[0][-20:])
            for call in work.job.calls:
                assert work.score().value == 0
                (result,) = work.reply(calls(call))
                assert "error" not in json.loads(result.content), result
            assert not work.reply(Message("assistant", "Done."))
            assert work.score().value == 1, work.score()
        finally:
            close(work)
    assert len(kinds) >= 6


def reading(messages, tools, rng):  # type: ignore[no-untyped-def]
    """Looks at everything and changes nothing."""
    if len(messages) > 4:
        return Message("assistant", "It is all done as you asked.")
    chosen = [tool for tool in tools if tool.name.startswith(READS)]
    return calls(*((tool.name, filled(tool, rng)) for tool in chosen))


def filled(tool, rng):  # type: ignore[no-untyped-def]
    """Arguments that a tool may take."""
    given = {}
    for name, schema in tool.parameters.get("properties", {}).items():
        if name in tool.parameters.get("required", ()):
            texts = ("/workspace", "main", "SELECT * FROM orders", "DELETE FROM orders", "HEAD")
            kinds = {"integer": 3, "number": 3, "boolean": True, "array": ["/workspace"]}
            given[name] = kinds.get(schema.get("type"), rng.choice(texts))
    if "repo_path" in given:
        given["repo_path"] = "/workspace"
    return given


def anything(messages, tools, rng):  # type: ignore[no-untyped-def]
    """Calls some tool with some arguments."""
    if len(messages) > 12:
        return Message("assistant", "Done.")
    tool = rng.choice(tools)
    return calls((tool.name, filled(tool, rng)))


@pytest.mark.slow
def test_who_does_not_do_it_earns_nothing(mcp: Mcp) -> None:
    for name, agent in {**SPEAKERS, "reading": reading, "anything": anything}.items():
        numbers = range(6 if name in ("reading", "anything") else 3)
        assert [attempt(mcp, number, agent) for number in numbers] == [0] * len(numbers), name


def test_doing_too_much_is_wrong(mcp: Mcp, opened: Any) -> None:
    work = opened(0)
    assert work.job.server == "filesystem"
    for call in work.job.calls:
        work.reply(calls(call))
    assert work.score().value == 1
    work.reply(calls(("write_file", {"path": "/workspace/more.txt", "content": "x"})))
    checks = {check.name: check for check in work.score().checks}
    assert (checks["goal"].value, checks["nothing else"].value) == (1, 0)
    assert "more.txt" in checks["nothing else"].reason


def test_attempts_share_nothing(opened: Any) -> None:
    first, second = opened(2), opened(2)
    assert first.job.server == "sqlite"
    for call in first.job.calls:
        first.reply(calls(call))
    assert (first.score().value, second.score().value) == (1, 0)


def test_whatever_is_called_is_answered(opened: Any) -> None:
    work = opened(2)
    odd = (
        ToolCall("no_such_tool", "{}", "a"),
        ToolCall("write_query", "not json", "b"),
        ToolCall("write_query", "[" * 5000, "c"),
        ToolCall("write_query", '{"query": "ATTACH DATABASE \'/tmp/x.db\' AS x"}', "d"),
        ToolCall("write_query", '{"query": NaN}', "e"),
    )
    found = work.reply(Message("assistant", "", tool_calls=odd))
    assert [message.tool_call_id for message in found] == ["a", "b", "c", "d", "e"]
    assert all("error" in json.loads(message.content) for message in found)


def test_a_server_that_is_killed_is_no_fault_of_the_model(opened: Any) -> None:
    work = opened(2)
    (server,) = servers_of(work)
    os.kill(server, signal.SIGKILL)
    with pytest.raises(EnvironmentFailedError, match="'sqlite' ended"):
        work.reply(calls(("list_tables", {})))
    with pytest.raises(EnvironmentFailedError):
        work.reply(calls(("list_tables", {})))


def test_a_server_that_does_not_start_is_no_fault_of_the_model(mcp: Mcp) -> None:
    for command in (("no-such-program",), (sys.executable, "-c", "raise SystemExit(3)")):
        with pytest.raises(EnvironmentFailedError, match="'sqlite'"):
            Work(mcp.job(2), Launch("sqlite", command))


def test_closing_ends_the_server_and_removes_the_directory(mcp: Mcp) -> None:
    work = mcp.begin(2)
    root = work.toolbox.directory.root
    assert servers_of(work)
    close(work)
    assert not root.exists()
    assert not servers_of(work)


def test_the_same_number_is_the_same_task_in_every_process(mcp: Mcp) -> None:
    numbers = [*range(60), *range(HELD_OUT, HELD_OUT + 60)]
    requests = [mcp.job(number).request for number in numbers]
    program = (
        "from selenite.rl.gym.mcp.environment import Mcp; import json, sys; m = Mcp(); "
        "print(json.dumps([m.job(n).request for n in json.load(sys.stdin)]))"
    )
    told = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(numbers), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(told.stdout) == requests
    assert len(set(requests)) > 90  # and where requests are equal, what is there differs
    assert not set(requests[:60]) & set(requests[60:])


def test_a_config_opens_it(mcp: Mcp) -> None:
    adapter: TypeAdapter[EnvironmentPart] = TypeAdapter(EnvironmentPart)
    part = adapter.validate_python({"kind": "mcp", "servers": ["sqlite"], "seed": 3, "turns": 5})
    opened = part.open()
    assert isinstance(opened, Mcp)
    assert opened.budget == Budget(1024, 5)
    assert {opened.job(number).server for number in range(6)} == {"sqlite"}
    with pytest.raises(ValidationError, match="time"):
        adapter.validate_python({"kind": "mcp", "servers": ["time"]})


def test_every_job_has_a_goal_that_differs_from_its_beginning(mcp: Mcp, tmp_path: Path) -> None:
    for number in range(90):
        job = mcp.job(number)
        root = tmp_path / str(number)
        root.mkdir()
        job.prepare(root)
        before = job.state(root)
        job.finish(root)
        assert job.state(root) != before, job.request
    assert {mcp.job(number).server for number in range(9)} == set(JOBS)
