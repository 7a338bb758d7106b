"""The libraries that repositories are made of: real modules and real tests, as files.

    libraries/NAME/PACKAGE/*.py      the modules; nothing is wrong with them
    libraries/NAME/tests/*.py        shown to the model
    libraries/NAME/hidden.py         tests of the same behaviour that it never sees

A test is a function with ``assert EXPRESSION == VALUE`` (or ``is``). When it is run, the sandbox
gets the expressions alone, and the values are compared outside (``code/examiner.py``).
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files
from typing import Any

from selenite.rl.gym.code.examiner import Case

TRAINING = ("cache", "intervals", "inventory", "ledger", "settings", "wrapping")
HELD_OUT_LIBRARIES = ("agenda", "routes")
"""Of evaluation alone, so that what is measured there is not known by heart."""


@dataclass(frozen=True)
class Library:
    """Files by path, all of ASCII."""

    name: str
    modules: Mapping[str, str]
    tests: Mapping[str, str]
    visible: tuple[Case, ...]
    hidden: tuple[Case, ...]


@cache
def library(name: str) -> Library:
    """A library by name."""
    with as_file(files(__package__).joinpath("libraries", name)) as folder:
        found = {
            str(path.relative_to(folder)): path.read_text(encoding="utf-8")
            for path in sorted(folder.rglob("*.py"))
        }
    hidden = found.pop("hidden.py")
    tests = {path: text for path, text in found.items() if is_test(path)}
    modules = {path: text for path, text in found.items() if not is_test(path)}
    visible = tuple(case for text in tests.values() for case in cases(text))
    return Library(name, modules, tests, visible, tuple(cases(hidden)))


def is_test(path: str) -> bool:
    """Whether a file of a repository holds tests."""
    return path.startswith("tests/")


def cases(source: str) -> list[Case]:
    """The tests of a file. What else is in it is a part of each."""
    tree = ast.parse(source)
    tests = [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    common = [node for node in tree.body if node not in tests]
    return [_case(common, test) for test in tests]


def _case(common: list[ast.stmt], test: ast.FunctionDef) -> Case:
    seen = list[tuple[str, Any]]()

    class Asking(ast.NodeTransformer):
        """Turns what is asserted into what is looked at."""

        def visit_Assert(self, node: ast.Assert) -> ast.stmt:
            match node.test:
                case ast.Compare(left=left, ops=[ast.Eq() | ast.Is()], comparators=[value]):
                    expected = json.loads(json.dumps(ast.literal_eval(value)))
                    seen.append((ast.unparse(left), expected))
                    return ast.Expr(ast.Call(ast.Name("see", ast.Load()), [left], []))
            raise AssertionError(f"{test.name}: {ast.unparse(node)} compares with no value")

    body = [Asking().visit(node) for node in test.body]
    module = ast.fix_missing_locations(ast.Module([*common, *body], []))
    return Case(test.name, ast.unparse(module), tuple(seen))
