"""A benchmark as its files have it: the texts, the tools, and which tools its solutions call."""

from __future__ import annotations

import ast
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from selenite.agent.synthesis.benchmark_calls import (
    Signature,
    calls_in,
    tools_in,
    tools_in_source,
)
from selenite.errors import ConfigError, DataError

_JSON = frozenset([".json", ".jsonl", ".ndjson"])
_TEXT = frozenset([".md", ".txt", ".rst", ".toml", ".yaml", ".yml", ".csv", ".tsv", ".dot"])


@dataclass
class Benchmark:
    """What was read. Files are named by their path below what was given."""

    texts: dict[str, str] = field(default_factory=dict)  # text to the first file that has it
    tools: dict[str, dict[Signature, str]] = field(default_factory=dict)  # by name, to the file
    solutions: dict[tuple[str, ...], str] = field(default_factory=dict)  # names called, to the file
    files: int = 0
    skipped: Counter[str] = field(default_factory=Counter)  # files by suffix
    as_text: list[str] = field(default_factory=list)  # that are no valid JSON or Python


def read_benchmark(paths: Sequence[Path]) -> Benchmark:
    """Reads files and folders: JSON, JSON lines, Python and text. Others are counted as skipped.

    Raises ``ConfigError`` for a path that is missing, ``DataError`` where there is nothing to read.
    """
    found, values = Benchmark(), list[tuple[str, Any]]()
    for path in paths:
        for name, file in _files(path):
            values += [(name, value) for value in _read(name, file, found)]
    if not found.files:
        given = ", ".join(map(str, paths))
        raise DataError(f"{given}: no JSON, Python or text file; unpack the benchmark first")
    for name, value in values:  # calls are known by the tools of all files
        for called in calls_in(value, found.tools):
            found.solutions.setdefault(tuple(called), name)
    return found


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    if not path.exists():
        raise ConfigError(f"{path}: no such file or folder to compare the corpus with")
    if path.is_file():
        yield path.name, path
        return
    for file in sorted(path.rglob("*")):
        if file.is_file():
            yield f"{path.resolve().name}/{file.relative_to(path).as_posix()}", file


def _read(name: str, path: Path, found: Benchmark) -> list[Any]:
    """Takes a file's texts and tools in; returns its JSON values."""
    if path.suffix not in _JSON | _TEXT | {".py"}:
        found.skipped[path.suffix or path.name] += 1
        return []
    found.files += 1
    text = path.read_text(encoding="utf-8", errors="replace")
    values = list[Any]()
    texts, tools = iter([text]), iter(list[tuple[str, Signature]]())
    try:
        if path.suffix in _JSON:
            values = _json(text)
            texts, tools = strings_in(values), tools_in(values)
        elif path.suffix == ".py":
            tree = ast.parse(text)
            texts, tools = _constants(tree), tools_in_source(tree)
    except (ValueError, SyntaxError, RecursionError):
        found.as_text.append(name)
    for each in texts:
        found.texts.setdefault(each, name)
    for tool, signature in tools:
        found.tools.setdefault(tool, {}).setdefault(signature, name)
    return values


def _json(text: str) -> list[Any]:
    """One value, or one in each line: files of both forms are named ``.json``."""
    try:
        return [json.loads(text)]
    except ValueError:
        return [json.loads(line) for line in text.splitlines() if line.strip()]


def strings_in(value: Any) -> Iterator[str]:
    """The strings of a JSON value, without the keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for each in value.values() if isinstance(value, Mapping) else value:
            yield from strings_in(each)


def _constants(tree: ast.AST) -> Iterator[str]:
    """Prompts and docstrings."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
