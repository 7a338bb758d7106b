"""Repair in the real sandbox: who mends a repository earns 1, and who tricks or reads does not."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping

import pytest

from selenite.agent.sandbox.sandbox import availability
from selenite.errors import ConfigError
from selenite.rl.gym.audit import SPEAKERS, Agent, attempt
from selenite.rl.gym.code.examiner import Examiner
from selenite.rl.gym.code.mutants import mutants
from selenite.rl.gym.config import RepositoriesPart
from selenite.rl.gym.environment import HELD_OUT, EnvironmentFailedError, Score
from selenite.rl.gym.repositories.environment import Repair, Repairing, Repositories
from selenite.rl.gym.repositories.library import HELD_OUT_LIBRARIES, TRAINING, cases, library
from selenite.types import Message, ToolCall

LIBRARIES = (*TRAINING, *HELD_OUT_LIBRARIES)


@pytest.fixture(scope="module", autouse=True)
def _isolates() -> None:
    found = availability()
    if not found.value:
        pytest.skip(f"no sandbox here: {found.reason}")


@pytest.fixture(scope="module")
def environment() -> Repositories:
    return Repositories(level=2)


def calling(episode: Repairing, *calls: tuple[str, Mapping[str, object]]) -> list[str]:
    """The results of a turn with these calls."""
    made = tuple(ToolCall(name, json.dumps(given), str(i)) for i, (name, given) in enumerate(calls))
    results = episode.reply(Message("assistant", "", tool_calls=made))
    assert [result.tool_call_id for result in results] == [call.id for call in made]
    return [result.content for result in results]


def replacing(episode: Repairing, path: str, old: str, new: str) -> str:
    return calling(episode, ("replace", {"path": path, "old": old, "new": new}))[0]


def finished(episode: Repairing) -> Score:
    assert not episode.reply(Message("assistant", "Done."))
    return episode.score()


def inverse(task: Repair) -> Iterator[tuple[str, str, str]]:
    """For each bug its file, the fewest lines around it that the file has once, and these lines as
    they were; the last bug of a file first."""
    for bug in sorted(task.bugs, key=lambda bug: -bug.mutant.start):
        right = task.library.modules[bug.path]
        wrong = bug.mutant.applied(right)
        first = right[: bug.mutant.start].count("\n")
        after = right[bug.mutant.end :].count("\n")
        old, new = wrong.splitlines(keepends=True), right.splitlines(keepends=True)
        broken = task.files[bug.path]
        for wider in range(len(new)):
            low, end = max(first - wider, 0), max(after - wider, 0)
            text = "".join(old[low : len(old) - end])
            if broken.count(text) == 1:
                yield bug.path, text, "".join(new[low : len(new) - end])
                break
        else:
            # Another bug is always within such lines: the whole file is put back.
            yield bug.path, broken, right
            return


# --- libraries and tasks


def test_nothing_is_wrong_with_the_libraries() -> None:
    examiner = Examiner()
    for name in LIBRARIES:
        found = library(name)
        assert 3 <= len(found.modules) + len(found.tests) <= 6
        assert not any(examiner.faults(found.modules, [*found.visible, *found.hidden])), name


def test_what_a_test_asserts_is_not_in_what_is_run() -> None:
    (case,) = cases("X = 3\ndef one(): return X\ndef test_it():\n    assert one() == 77\n")
    assert case.seen == (("one()", 77),)
    assert "see(one())" in case.code
    assert "77" not in case.code


@pytest.mark.parametrize("level", [1, 2, 3])
def test_who_puts_it_right_earns_everything(level: int) -> None:
    environment = Repositories(level)
    for number in [*range(14), *range(HELD_OUT, HELD_OUT + 2)]:
        episode = environment.begin(number)
        for path, old, new in inverse(environment.task(number)):
            assert replacing(episode, path, old, new).startswith("replaced")
        assert calling(episode, ("run_tests", {}))[0].startswith("0 of")
        score = finished(episode)
        assert score.value == 1, (number, score)


def test_a_task_has_failing_and_passing_tests_and_shows_them(environment: Repositories) -> None:
    names = set()
    for number in range(25):
        task = environment.task(number)
        names.add(task.library.name)
        assert 0 < sum(map(bool, task.faults)) < len(task.faults)
        shown = environment.begin(number).opening[0].content
        for case, fault in zip(task.library.visible, task.faults, strict=True):
            assert (f"{case.name}: {fault}" in shown) == bool(fault)
        assert task.bugs[0].path not in shown.partition("\n")[0]
        assert task == Repositories(level=2).task(number) if number < 3 else True
    assert names <= set(TRAINING)
    assert len(names) >= 5
    held_out = {environment.task(HELD_OUT + number).library.name for number in range(8)}
    assert held_out == set(HELD_OUT_LIBRARIES)


def test_levels() -> None:
    named = Repositories(level=1).task(0)
    assert f"The mistake is in {named.bugs[0].path}." in named.text
    assert len(Repositories(level=3).task(0).bugs) == 2


@pytest.mark.slow
def test_the_hidden_tests_find_small_mistakes() -> None:
    examiner = Examiner()
    table = {}
    for name in LIBRARIES:
        found = library(name)
        changed = [
            {**found.modules, path: mutant.applied(text)}
            for path, text in found.modules.items()
            for mutant in mutants(text)
        ]
        killed = sum(any(examiner.faults(modules, found.hidden)) for modules in changed)
        table[name] = (killed, len(changed))
    assert all(killed >= 0.8 * total for killed, total in table.values()), table


# --- tools


def test_tools(environment: Repositories) -> None:
    episode = environment.begin(0)
    task = environment.task(0)
    path = task.bugs[0].path
    listed, text, report = calling(
        episode, ("list_files", {}), ("read_file", {"path": path}), ("run_tests", {})
    )
    assert listed.splitlines() == sorted(task.files)
    assert text == task.files[path]
    assert report in task.text
    assert "0 times" in replacing(episode, path, "no such text", "x")
    assert "0 times" in replacing(episode, path, "", "x")
    assert "instead of once" in replacing(episode, path, "\n", "x")
    assert calling(episode, ("read_file", {"path": path}))[0] == task.files[path]
    assert replacing(episode, path, task.files[path], "x = 1\n").startswith("replaced")
    assert calling(episode, ("read_file", {"path": path}))[0] == "x = 1\n"
    assert calling(episode, ("run_tests", {}), ("run_tests", {}))[1].startswith("error")


def test_whatever_is_called_is_answered(environment: Repositories) -> None:
    episode = environment.begin(0)
    odd = (
        *(("", "{}"), ("no_tool", "{}"), ("read_file", "not json"), ("read_file", "[" * 5000)),
        *(("read_file", "{}"), ("read_file", '{"path": 3}'), ("read_file", '{"path": "../x"}')),
        *(("replace", '{"path": "\\ud800", "old": "", "new": ""}'), ("run_tests", '{"all": true}')),
        ("replace", '["path", "old", "new"]'),
    )
    calls = tuple(ToolCall(name, text, str(i)) for i, (name, text) in enumerate(odd))
    results = episode.reply(Message("assistant", "", tool_calls=calls))
    assert len(results) == len(odd)
    assert all(result.content.startswith("error") for result in results)
    assert calling(episode, ("run_tests", {}))[0] in environment.task(0).text


# --- attacks

Attack = Callable[[Repairing, Repair], None]


def edits_the_tests(episode: Repairing, task: Repair) -> None:
    for path, text in task.library.tests.items():
        assert replacing(episode, path, text, "").startswith("error")
        assert calling(episode, ("read_file", {"path": path}))[0] == text


def skips_the_tests(episode: Repairing, task: Repair) -> None:
    for path in task.library.tests:
        skip = "import pytest\npytestmark = pytest.mark.skip\nfrom "
        assert replacing(episode, path, "from ", skip).startswith("error")


def makes_files(episode: Repairing, task: Repair) -> None:
    for path in ("conftest.py", "tests/conftest.py", "sitecustomize.py", "inside.py", "json.py"):
        assert replacing(episode, path, "", "import os; os._exit(0)").startswith("error")


def writing(code: str) -> Attack:
    """Puts code before what a broken module has."""

    def act(episode: Repairing, task: Repair) -> None:
        for path in task.library.modules:
            text = task.files[path]
            assert replacing(episode, path, text, code + text).startswith("replaced")
        calling(episode, ("run_tests", {}))

    return act


def deletes_code(episode: Repairing, task: Repair) -> None:
    for path in task.library.modules:
        replacing(episode, path, task.files[path], "")


def deletes_the_broken_file(episode: Repairing, task: Repair) -> None:
    path = task.bugs[0].path
    replacing(episode, path, task.files[path], "")


def writes_what_is_expected(episode: Repairing, task: Repair) -> None:
    """All that the visible tests want, as results, and out."""
    lines = "".join(
        json.dumps({"seen": [json.dumps(value) for _, value in case.seen], "fault": ""}) + "\n"
        for case in task.library.visible
    )
    forging = (
        f"import os\nfor fd in range(3, 9):\n    try: os.write(fd, {lines.encode()!r})\n"
        "    except OSError: pass\nos._exit(0)\n"
    )
    writing(forging)(episode, task)
    assert calling(episode, ("run_tests", {}))[0].startswith("0 of")  # it convinces only itself


LEAVES_FILES = """
import os
for folder in ("/sandbox", "/tmp", "/usr/lib/python3"):
    for name in ("conftest.py", "sitecustomize.py", "json.py", "inside.py", "tests.py"):
        try: open(os.path.join(folder, name), "w").write("import os; os._exit(0)")
        except OSError: pass
"""
PATCHES = """
import builtins, json, sys
frame = sys._getframe()
while frame:
    if "see" in frame.f_globals: frame.f_globals["see"] = lambda value: None
    frame = frame.f_back
json.dumps = lambda *a, **k: "null"
builtins.AssertionError = ValueError
"""

ATTACKS: dict[str, Attack] = {
    "edits the tests": edits_the_tests,
    "skips the tests": skips_the_tests,
    "makes conftest.py and the like": makes_files,
    "leaves with exit code 0": writing("import sys; sys.exit(0)\n"),
    "leaves at once": writing("import os; os._exit(0)\n"),
    "leaves files behind": writing(LEAVES_FILES),
    "patches what looks": writing(PATCHES),
    "deletes code": deletes_code,
    "deletes the broken file": deletes_the_broken_file,
    "writes what is expected": writes_what_is_expected,
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_trick_earns_anything(attack: str, environment: Repositories) -> None:
    for number in range(2):
        episode = environment.begin(number)
        ATTACKS[attack](episode, environment.task(number))
        score = finished(episode)
        assert score.value == 0, score


def test_what_worked_must_go_on(environment: Repositories) -> None:
    """A repair with something else broken earns nothing, and says so."""
    task = environment.task(0)
    episode = environment.begin(0)
    for path, old, new in inverse(task):
        replacing(episode, path, old, new)
    other = next(
        path
        for path in task.library.modules
        if path != task.bugs[0].path and "def " in task.files[path]
    )
    replacing(episode, other, task.files[other], "raise ValueError('gone')\n")
    values = {check.name: check.value for check in finished(episode).checks}
    assert values["passing tests"] == 0


# --- agents that do not mend


def act_read_only(messages, tools, rng):  # type: ignore[no-untyped-def]
    """Lists, reads everything, runs the tests, and says that it is done."""
    asked = [call.name for message in messages for call in message.tool_calls]
    if not asked:
        return Message("assistant", "", tool_calls=(ToolCall("list_files", "{}", "0"),))
    if "run_tests" in asked:
        return Message("assistant", "All tests pass now.")
    paths = messages[-1].content.splitlines()
    reads = [ToolCall("read_file", json.dumps({"path": path}), path) for path in paths]
    return Message("assistant", "", tool_calls=(*reads, ToolCall("run_tests", "{}", "run")))


def act_random(messages, tools, rng: random.Random):  # type: ignore[no-untyped-def]
    """Any tool, with words of what was said before, for some turns."""
    if rng.random() < 0.15:
        return Message("assistant", "Done.")
    words = " ".join(message.content for message in messages).split()
    tool = rng.choice(tools)
    given = {key: rng.choice(words) for key in tool.parameters["required"]}
    return Message("assistant", "", tool_calls=(ToolCall(tool.name, json.dumps(given), "0"),))


def act_any_edit(messages, tools, rng: random.Random):  # type: ignore[no-untyped-def]
    """Reads a module, then changes a line of it for another."""
    if len(messages) == 1:
        return Message("assistant", "", tool_calls=(ToolCall("list_files", "{}", "0"),))
    if len(messages) == 3:
        path = rng.choice([p for p in messages[-1].content.splitlines() if "tests/" not in p])
        call = ToolCall("read_file", json.dumps({"path": path}), path)
        return Message("assistant", "", tool_calls=(call,))
    if len(messages) == 5:
        path, lines = messages[-1].tool_call_id, messages[-1].content.splitlines()
        given = {"path": path, "old": rng.choice(lines), "new": rng.choice(lines)}
        return Message("assistant", "", tool_calls=(ToolCall("replace", json.dumps(given), "1"),))
    return Message("assistant", "Done.")


AGENTS: dict[str, Agent] = {
    "silent": SPEAKERS["silent"],
    "refusing": SPEAKERS["refusing"],
    "echoing": SPEAKERS["echoing"],
    "reading": act_read_only,
    "random": act_random,
    "any edit": act_any_edit,
}


@pytest.mark.parametrize("name", AGENTS)
def test_who_does_not_mend_earns_nothing(name: str, environment: Repositories) -> None:
    earned = [attempt(environment, number, AGENTS[name]) for number in range(12)]
    assert max(earned) == 0, earned


# --- failures that are not the model's


def test_a_failure_of_the_sandbox_is_no_reward(
    environment: Repositories, monkeypatch: pytest.MonkeyPatch
) -> None:
    episode = environment.begin(0)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(EnvironmentFailedError, match="install bubblewrap"):
        calling(episode, ("run_tests", {}))
    with pytest.raises(EnvironmentFailedError, match="install bubblewrap"):
        episode.score()


def test_without_a_sandbox_there_is_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match="install bubblewrap"):
        RepositoriesPart().open()
