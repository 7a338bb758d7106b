"""The comparison of a corpus with a benchmark: texts, tools and sequences of calls, one by one."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from selenite.agent.synthesis.benchmark_calls import Signature, normal, signature_of
from selenite.agent.synthesis.benchmark_files import Benchmark, strings_in
from selenite.agent.synthesis.word_runs import RunIndex

_PARAMETERS = 2  # of a tool that is not a coincidence
_DIFFERENT = 2  # signatures with parameters, of a sequence that is not a coincidence

Row = Mapping[str, Any]
Calls = tuple[Signature, ...]


class Kind(StrEnum):
    """What two sets have in common."""

    TEXT = "text"  # eight words in a row or more
    TOOL = "tool"  # the name, and two parameters or more with names and types
    SEQUENCE = "sequence"  # of calls: names and types of their parameters
    NAME = "name"  # of a tool, but for its style
    TYPES = "types"  # of the parameters of a sequence of calls

    @property
    def is_fatal(self) -> bool:
        """Whether a corpus that has it must not be trained on."""
        return self not in (Kind.NAME, Kind.TYPES)


@dataclass
class Overlap:
    """One thing that both have; ``corpus`` and ``benchmark`` are the first places with it."""

    kind: Kind
    what: str
    corpus: str
    benchmark: str
    count: int = 0  # texts, tools or trajectories of the corpus


class Search:
    """Takes a corpus in and gathers what it has in common with the benchmark."""

    def __init__(self, benchmark: Benchmark) -> None:
        self.index = RunIndex(benchmark.texts)
        self.found: dict[tuple[Kind, str], Overlap] = {}
        self.sequences: dict[Calls, tuple[int, str]] = {}  # count, first place
        self.num_rows = 0
        self.seen = set[str]()  # keys of tools
        self._benchmark = benchmark
        self._tools: dict[str, dict[Signature, str]] = defaultdict(dict)  # by normalised name
        for name, known in benchmark.tools.items():
            for signature, file in known.items():
                self._tools[normal(name)].setdefault(signature, f"{file}: {name}")

    def look_at_tool(self, tool: Row, place: str, key: str) -> None:
        """Compares the name, the parameters and the texts of a tool, unless one of its key was
        seen."""
        if key in self.seen:
            return
        self.seen.add(key)
        name = tool["name"]
        place = f"{place} {name}"
        parameters = tool.get("parameters") or {}
        self._compare_texts([tool.get("description") or "", parameters], place)
        known = self._tools.get(normal(name))
        if known is None:
            return
        own = signature_of(parameters)
        if own in known and len(own.parameters) >= _PARAMETERS:
            self._add(Kind.TOOL, f"{normal(name)}{own}", place, known[own])
        else:
            self._add(Kind.NAME, normal(name), place, next(iter(known.values())))

    def look_at_row(self, row: Row) -> None:
        """Compares the texts and tools of a trajectory, and keeps its sequence of calls."""
        domain = row["task"]["setting"]["domain"]
        self._look_at_texts(row, row["id"])
        for tool in row["tools"]:
            self.look_at_tool(tool["function"], row["id"], f"{domain} {tool['function']['name']}")
        self._keep([event["tool"] for event in row["events"]], row, row["id"])

    def look_at_chat(self, row: Row, place: str) -> None:
        """The same of a conversation in OpenAI's form, whose tools may be anything."""
        self._look_at_texts(row, place)
        for tool in row.get("tools") or ():
            self.look_at_tool(tool["function"], place, json.dumps(tool, sort_keys=True))
        calls = [call for m in row["messages"] for call in m.get("tool_calls") or ()]
        self._keep([call["function"]["name"] for call in calls], row, place)

    def _look_at_texts(self, row: Row, place: str) -> None:
        self.num_rows += 1
        for message in row["messages"]:
            speaker = f"{place} {message['role']}"
            self._compare_texts(_parsed(message.get("content") or ""), speaker)
            self._compare_texts(message.get("reasoning_content") or "", speaker)
            for call in message.get("tool_calls") or ():
                self._compare_texts(_parsed(call["function"]["arguments"]), speaker)

    def _keep(self, called: Sequence[str], row: Row, place: str) -> None:
        """Counts the sequence of calls, by signatures."""
        tools = [tool["function"] for tool in row.get("tools") or ()]
        known = {tool["name"]: signature_of(tool.get("parameters") or {}) for tool in tools}
        sequence = tuple(known[name] for name in called if name in known)
        count, first = self.sequences.get(sequence, (0, place))
        self.sequences[sequence] = count + 1, first

    def compare_sequences(self) -> None:
        """Compares the sequences that were kept with those of the benchmark's solutions."""
        tools = {name: set(known) for name, known in self._benchmark.tools.items()}
        self._compare_calls(Kind.SEQUENCE, self.sequences, tools)
        bare: dict[Calls, tuple[int, str]] = {}
        for sequence, (count, place) in self.sequences.items():
            types = tuple(each.without_names() for each in sequence)
            known, first = bare.get(types, (0, place))
            bare[types] = known + count, first
        bare_tools = {name: {each.without_names() for each in tools[name]} for name in tools}
        self._compare_calls(Kind.TYPES, bare, bare_tools)

    def _compare_calls(
        self,
        kind: Kind,
        own: Mapping[Calls, tuple[int, str]],
        tools: Mapping[str, set[Signature]],
    ) -> None:
        """``tools`` are the signatures that a benchmark gives a name; a solution means one each."""
        beginnings = {each[: end + 1] for each in own for end in range(len(each))}
        for names, file in self._benchmark.solutions.items():
            found: set[Calls] = {()}
            for name in names:
                longer = {(*each, call) for each in found for call in tools[name]}
                found = longer & beginnings
            for calls in found & own.keys():
                what = " → ".join(map(str, calls))
                is_one_each = len(set(zip(names, calls, strict=True))) == len(set(names))
                if is_one_each and not _is_trivial(calls) and (kind, what) not in self.found:
                    count, place = own[calls]
                    self._add(kind, what, place, f"{file}: {', '.join(names)}", count)

    def _compare_texts(self, value: Any, place: str) -> None:
        for text in strings_in(value):
            for run, file in self.index.shared(text):
                self._add(Kind.TEXT, run, place, file)

    def _add(self, kind: Kind, what: str, corpus: str, benchmark: str, count: int = 1) -> None:
        overlap = self.found.setdefault((kind, what), Overlap(kind, what, corpus, benchmark))
        overlap.count += count


def _parsed(text: str) -> Any:
    """What JSON text has in it; other text is itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _is_trivial(calls: Calls) -> bool:
    """Whether any two agents would have these calls in common."""
    return len({each for each in calls if each.parameters}) < _DIFFERENT
