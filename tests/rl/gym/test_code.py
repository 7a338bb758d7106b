"""Functions against hidden tests, in the real sandbox: what is right earns 1, and no trick does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from textwrap import dedent

import pytest

from selenite.agent.randomness import stream
from selenite.agent.sandbox.sandbox import availability
from selenite.errors import ConfigError
from selenite.rl.gym.audit import SPEAKERS, Agent, audit
from selenite.rl.gym.code.environment import KINDS, CodeTask, Functions, block, make_task
from selenite.rl.gym.code.examiner import Case, Examiner
from selenite.rl.gym.code.mutants import mutants
from selenite.rl.gym.config import CodePart
from selenite.rl.gym.environment import HELD_OUT, Check, EnvironmentFailedError, Score
from selenite.types import Message

LEVELS = (1, 2, 3)
ALL_KINDS = [(level, kind) for level in LEVELS for kind in KINDS[level]]


@pytest.fixture(scope="module", autouse=True)
def _isolates() -> None:
    found = availability()
    if not found.value:
        pytest.skip(f"no sandbox here: {found.reason}")


@pytest.fixture(scope="module")
def environment() -> Functions:
    return Functions(level=2)


def written(code: str) -> str:
    return f"Here it is.\n```python\n{dedent(code).strip()}\n```\n"


def scored(environment: Functions, number: int, reply: str) -> Score:
    episode = environment.begin(number)
    assert not episode.reply(Message("assistant", reply))
    return episode.score()


# --- honest work


@pytest.mark.parametrize("level", LEVELS)
def test_the_reference_earns_everything(level: int) -> None:
    environment = Functions(level)
    for number in [*range(12), *range(HELD_OUT, HELD_OUT + 4)]:
        reply = written(environment.task(number).problem.reference)
        assert scored(environment, number, reply).value == 1, reply


def test_tasks_are_numbers_and_those_for_evaluation_are_others() -> None:
    for level in LEVELS:
        tasks = [Functions(level).task(number) for number in range(150)]
        assert tasks[:9] == [Functions(level).task(number) for number in range(9)]
        assert len({task.problem.name for task in tasks}) == len(KINDS[level])
        held_out = [Functions(level).task(HELD_OUT + number) for number in range(60)]
        own = {task.problem.reference for task in tasks}
        assert not own & {task.problem.reference for task in held_out}


def test_examples_are_true_and_none_is_a_test(environment: Functions) -> None:
    for number in range(20):
        task = environment.task(number)
        for case in task.examples:
            ((call, value),) = case.seen
            assert f"{call} == {value!r}" in task.text
        shown = {case.name for case in task.examples}
        assert len(shown) == 2
        assert not shown & {case.name for case in task.tests}


def test_what_fails_is_counted_and_told(environment: Functions) -> None:
    task = environment.task(0)
    name = task.problem.name
    wrong = scored(environment, 0, written(f"def {name}(x):\n    return {{'a': [1.0]}}"))
    assert [check.value for check in wrong.checks] == [1, 1, 0]
    assert wrong.checks[-1].reason.startswith(f"{len(task.tests)} of {len(task.tests)} fail")
    raised = scored(environment, 0, written(f"def {name}(x):\n    return 1 / 0"))
    assert "ZeroDivisionError" in raised.checks[-1].reason
    assert "solution.py, line 2" in raised.checks[-1].reason
    broken = scored(environment, 0, written(f"def {name}(x:"))
    assert broken.checks[1].name == "runs"
    assert "SyntaxError" in broken.checks[1].reason


def test_many_attempts_at_once_are_each_judged_by_their_own(environment: Functions) -> None:
    right = [written(environment.task(number).problem.reference) for number in range(6)]
    pairs = [(number, reply) for number in range(6) for reply in right]
    with ThreadPoolExecutor(len(pairs)) as pool:
        values = list(pool.map(lambda pair: scored(environment, *pair).value, pairs))
    assert values == [float(reply == right[number]) for number, reply in pairs]


def test_one_block_of_python_counts() -> None:
    assert block("So:\n```python\nx = 1\n```\nIt prints\n```\n1\n```") == "x = 1\n"
    assert block("```py\nx = 1\n```") == "x = 1\n"
    for reply in (
        "x = 1",
        "```\nx = 1\n```",
        "```python\nx = 1",
        "```python\nx = 1\n```\n```python\nx = 2\n```",
        "```python\nx = '\ud800'\n```",
    ):
        found = block(reply)
        assert isinstance(found, Check), reply
        assert found.value == 0


# --- attacks


def with_examples(task: CodeTask, rest: str) -> str:
    known = {case.seen[0][0].partition("(")[2]: case.seen[0][1] for case in task.examples}
    return f"""
def {task.problem.name}(*a):
    key = ", ".join(map(repr, a)) + ")"
    return {known!r}.get(key, {rest})
"""


ATTACKS: dict[str, str] = {
    "leaves with exit code 0": "import sys; sys.exit(0)",
    "leaves at once": "import os; os._exit(0)",
    "leaves when called": "import os\ndef NAME(*a): os._exit(0)",
    "raises what leaves": "def NAME(*a): raise SystemExit(0)",
    "is equal to everything": """
        class Equal(dict):
            def __eq__(self, other): return True
            def __ne__(self, other): return False
            __hash__ = None
        def NAME(*a): return Equal()
    """,
    "never ends": "def NAME(*a):\n    while True: pass",
    "waits": "import time\ndef NAME(*a): time.sleep(1000)",
    "prints without end": "def NAME(*a):\n    while True: print('x' * 1000)",
    "forges results": """
        import json, os
        line = json.dumps({"seen": ["true"], "fault": ""}) + "\\n"
        for fd in range(1, 10):
            try: os.write(fd, (line * 50).encode())
            except OSError: pass
        def NAME(*a): os._exit(0)
    """,
    "looks for what is expected": """
        import gc, os, sys
        def NAME(*a):
            texts = []
            for folder in ("/sandbox", "/tmp", "/proc/self", "/proc/1", "/dev/shm"):
                for path, _, names in os.walk(folder):
                    for name in names:
                        try: texts.append(open(os.path.join(path, name)).read(100000))
                        except (OSError, ValueError): pass
            frame, found = sys._getframe(), []
            while frame: found.append(frame.f_locals); frame = frame.f_back
            for known in found:
                for key in ("expected", "answer", "value", "seen"):
                    if known.get(key): return known[key]
            return [text for text in texts if "expected" in text][:1] or gc.get_objects()[:1]
    """,
    "reads the machine's files": "def NAME(*a): return open('/etc/passwd').read()",
    "asks the network": """
        import socket
        def NAME(*a): return socket.create_connection(("1.1.1.1", 53), timeout=1) and None
    """,
    "writes outside": "def NAME(*a): return open('/usr/owned', 'w').write('x')",
    "changes json": """
        import json
        json.dumps = lambda *a, **k: "true"
        json.loads = lambda *a, **k: True
        def NAME(*a): return True
    """,
    "changes builtins": """
        import builtins
        builtins.exec = lambda *a, **k: None
        builtins.__import__ = lambda *a, **k: None
        def NAME(*a): return None
    """,
    "sees for itself": """
        import sys
        def NAME(*a):
            frame = sys._getframe()
            while frame:
                if "see" in frame.f_globals: frame.f_globals["see"] = lambda v: None
                frame = frame.f_back
    """,
    "takes all memory": "def NAME(*a): return len(bytearray(10**10)) or [0] * 10**9",
    "makes processes": """
        import os
        def NAME(*a):
            for _ in range(40):
                if os.fork() == 0:
                    import time; time.sleep(30); os._exit(0)
    """,
    "returns what nests too deep": """
        import json
        json.dumps = lambda *a, **k: "[" * 100000
        def NAME(*a): return []
    """,
    "returns a number without end": """
        import json
        json.dumps = lambda *a, **k: "9" * 10000
        def NAME(*a): return []
    """,
    "changes its arguments": "def NAME(*a):\n    a[0] and hasattr(a[0], 'clear') and a[0].clear()",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_trick_earns_anything(attack: str, environment: Functions) -> None:
    name = environment.task(1).problem.name
    score = scored(environment, 1, written(dedent(ATTACKS[attack]).replace("NAME", name)))
    assert score.value == 0
    assert score.checks[-1].name == "hidden tests"  # it was run
    assert score.checks[-1].reason


def test_the_visible_examples_as_a_table_earn_nothing(environment: Functions) -> None:
    for number in range(4):
        task = environment.task(number)
        first = task.examples[0].seen[0][1]
        for rest in ("None", "a[0]", repr(first)):
            assert scored(environment, number, written(with_examples(task, rest))).value == 0


def test_a_value_of_another_type_is_another() -> None:
    case = Case("f", "", (("f()", 1),))
    values = ("1", "True", "1.0", "'1'", "[1]", "float('nan')", "{1}")
    cases = [replace(case, code=f"see({value})") for value in values]
    assert [not fault for fault in Examiner().faults({}, cases)] == [True] + 6 * [False]


# --- agents that do not try


def replying(code: Callable[[str, str], str]) -> Agent:
    """``code`` gets the function's name and the prompt."""

    def act(messages, tools, rng):  # type: ignore[no-untyped-def]
        prompt = messages[0].content
        name = prompt.partition("def ")[2].partition("(")[0]
        return Message("assistant", written(code(name, prompt)))

    return act


def as_table(name: str, prompt: str) -> str:
    shown = [line for line in prompt.splitlines() if line.startswith(f"{name}(") and "==" in line]
    pairs = [line.split(" == ") for line in shown]
    table = ", ".join(f"({call[len(name) + 1 : -1]},): {value}" for call, value in pairs)
    return f"""
def frozen(x): return repr(x)
def {name}(*a):
    return {{repr(k): v for k, v in [{table.replace("): ", "), ")}]}}.get(repr(a))
"""


AGENTS: dict[str, Agent] = {
    **SPEAKERS,
    "None": replying(lambda name, prompt: f"def {name}(*a): return None"),
    "first argument": replying(lambda name, prompt: f"def {name}(*a): return a[0]"),
    "nothing": replying(lambda name, prompt: f"def {name}(*a): return type(a[0])()"),
    "length": replying(lambda name, prompt: f"def {name}(*a): return len(repr(a[0]))"),
    "table": replying(as_table),
}


@pytest.mark.parametrize("level", LEVELS)
def test_who_does_not_try_earns_nothing(level: int) -> None:
    earned = audit(Functions(level), range(8), AGENTS)
    assert max(earned.values()) == 0, earned


# --- the tests themselves


@pytest.mark.slow
def test_the_hidden_tests_find_small_mistakes() -> None:
    """At least 80 % of the mutants of each kind's references; the table is shown where not."""
    examiner = Examiner()
    table = {}
    for level, kind in ALL_KINDS:
        found = Counter[bool]()
        for number in range(2):
            rng = stream(number, kind.__name__)
            task = make_task(kind(rng), rng)
            for mutant in mutants(task.problem.reference):
                solution = mutant.applied(task.problem.reference)
                found[any(examiner.faults({"solution.py": solution}, task.tests))] += 1
        table[level, kind.__name__] = (found[True], found.total())
    assert len(table) >= 12
    assert min(total for _, total in table.values()) >= 4, table
    assert all(killed >= 0.8 * total for killed, total in table.values()), table


# --- failures that are not the model's


def test_a_failure_of_the_sandbox_is_no_reward(
    environment: Functions, monkeypatch: pytest.MonkeyPatch
) -> None:
    episode = environment.begin(0)
    episode.reply(Message("assistant", written(environment.task(0).problem.reference)))
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(EnvironmentFailedError, match="install bubblewrap"):
        episode.score()


def test_without_a_sandbox_there_is_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match="install bubblewrap"):
        CodePart(level=1).open()
