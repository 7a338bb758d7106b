"""The numbers of the diversity report that are counted from trajectories and tools."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from selenite.agent.randomness import stream
from selenite.agent.synthesis.diversity_measures import (
    FEATURES,
    distinct,
    entropy,
    features,
    leaves,
    self_bleu,
    words_of,
)
from selenite.agent.tools.tool import signature

_USER_TURNS = 1000  # that are compared with each other
_TOP = 12  # of a list

Record = dict[str, Any]


@dataclass
class Counts:
    """Of a corpus. ``tools`` are the rows of ``tools.jsonl.zst``; trajectories are added."""

    tools: Sequence[Mapping[str, Any]]
    trajectories: int = 0
    classes: Counter[str] = field(default_factory=Counter)
    templates: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    coverage: Counter[tuple[str, str]] = field(default_factory=Counter)  # class, domain
    agents: set[int] = field(default_factory=set)
    personas: set[int] = field(default_factory=set)
    histograms: dict[str, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    called: Counter[tuple[str, str]] = field(default_factory=Counter)  # domain, tool
    offered: set[tuple[str, str]] = field(default_factory=set)
    openings: Counter[str] = field(default_factory=Counter)  # three words
    user_turns: list[str] = field(default_factory=list)
    values: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def __post_init__(self) -> None:
        domains = {tool["domain"] for tool in self.tools}
        self._domain = {int(domain.rpartition("-")[2]): domain for domain in domains}
        self._effect = {(tool["domain"], tool["name"]): tool["effect"] for tool in self.tools}

    def add(self, row: Mapping[str, Any]) -> None:
        """Takes a trajectory in."""
        task, messages, events = row["task"], row["messages"], row["events"]
        domain = self._domain[task["setting"]["domain"]]
        said = [message["content"] for message in messages if message["role"] == "user"]
        called = [event["tool"] for event in events]
        self.trajectories += 1
        self.classes[task["class"]] += 1
        self.templates[task["template"]] += 1
        self.splits[row["split"]] += 1
        self.coverage[task["class"], domain] += 1
        self.agents.add(row["agent"])
        self.personas.add(row["persona"])
        self.histograms["calls"][len(called)] += 1
        self.histograms["user turns"][len(said)] += 1
        self.histograms["agent turns"][sum(m["role"] == "assistant" for m in messages)] += 1
        self.histograms["tools in context"][len(row["tools"])] += 1
        self.histograms["distinct tools called"][len(set(called))] += 1
        self.called.update((domain, tool) for tool in called)
        self.offered.update((domain, tool["function"]["name"]) for tool in row["tools"])
        self.openings[" ".join(words_of(said[0])[:3])] += 1
        self.user_turns += said
        for event in events:
            for kind, value in leaves(event["arguments"]):
                self.values[kind][value] += 1

    def record(self) -> Record:
        """As ``report.json`` has it."""
        categories = Counter[str]()
        for (_, domain), count in self.coverage.items():
            categories[category_of(domain)] += count
        return {
            "counts": self._counts(),
            "classes": _sorted(self.classes),
            "categories": _sorted(categories),
            "splits": _sorted(self.splits),
            "templates": _sorted(self.templates),
            "histograms": {name: _histogram(found) for name, found in self.histograms.items()},
            "entropy": self._entropies(),
            "top_openings": _top(self.openings),
            "user_turns": _likeness(self.user_turns),
            "argument_values": self._argument_values(),
            "schemas": self._schemas(),
            "coverage": self._coverage(),
        }

    def _counts(self) -> Record:
        domains = set(self._domain.values())
        return {
            "trajectories": self.trajectories,
            "classes": len(self.classes),
            "templates": len(self.templates),
            "categories": len(set(map(category_of, domains))),
            "domains": len(domains),
            "tools": len(self.tools),
            "tool_names": len({tool["name"] for tool in self.tools}),
            "signatures": len(set(map(signature, self.tools))),
            "tools_offered": len(self.offered),
            "tools_called": len(self.called),
            "agents": len(self.agents),
            "personas": len(self.personas),
            "calls": self.called.total(),
            "user_turns": len(self.user_turns),
        }

    def _entropies(self) -> Record:
        effects, words = Counter[str](), Counter[str]()
        for tool, count in self.called.items():
            effects[self._effect.get(tool, "unknown")] += count
        for opening, count in self.openings.items():
            words[opening.partition(" ")[0]] += count
        return {
            "tools_called": _entropy(self.called, len(self.tools)),
            "effects_called": {**_entropy(effects), "counts": _sorted(effects)},
            "first_words": {**_entropy(words), "top": _top(words)},
            "openings": _entropy(self.openings),
        }

    def _argument_values(self) -> Record:
        found = {
            kind: (counts.total(), len(counts)) for kind, counts in sorted(self.values.items())
        }
        everything = tuple(map(sum, zip(*found.values(), strict=True))) or (0, 0)
        return {
            kind: {
                "values": total,
                "different": different,
                "types_per_token": rounded(different / max(1, total)),
            }
            for kind, (total, different) in [("all", everything), *found.items()]
        }

    def _schemas(self) -> Record:
        counts = Counter(found for tool in self.tools for found in features(tool["parameters"]))
        return {name: rounded(counts[name] / len(self.tools)) for name in FEATURES}

    def _coverage(self) -> Record:
        cells = Counter[tuple[str, str]]()
        for (cls, domain), count in self.coverage.items():
            cells[cls, category_of(domain)] += count
        rows = sorted({cls for cls, _ in cells})
        columns = sorted({category_of(domain) for domain in self._domain.values()})
        least = min(cells[cls, category] for cls in rows for category in columns)
        pairs = [[c, k] for c in rows for k in columns if cells[c, k] == least]
        return {
            "classes": rows,
            "categories": columns,
            "cells": [[cells[cls, category] for category in columns] for cls in rows],
            "least": least,
            "least_cells": pairs,
            "empty_cells": sum(cells[cls, k] == 0 for cls in rows for k in columns),
        }


def category_of(domain: str) -> str:
    """``commerce`` of ``commerce-0004``."""
    return domain.rpartition("-")[0]


def rounded(number: float) -> float:
    """To what a report says of it; sums in another order come to the same."""
    return round(float(number), 4)


def _likeness(turns: Sequence[str]) -> Record:
    """How alike users' turns are, of a sample: all these measures depend on its size."""
    size = min(_USER_TURNS, len(turns))
    sample = list(map(words_of, stream(0, "diversity", "turns").sample(turns, size)))
    return {
        "sampled": size,
        "self_bleu": rounded(self_bleu(sample)),
        "distinct": {str(n): rounded(distinct(sample, n)) for n in range(1, 5)},
    }


def _histogram(counts: Counter[int]) -> Record:
    numbers = sorted(counts.elements())
    return {
        "mean": rounded(sum(numbers) / len(numbers)),
        "median": numbers[len(numbers) // 2],
        "max": numbers[-1],
        "counts": {str(number): counts[number] for number in sorted(counts)},
    }


def _entropy(counts: Mapping[Any, int], possible: int = 0) -> Record:
    """With the share of what it would be if all were equally frequent: all those that occur, or
    ``possible`` ones."""
    bits = entropy(counts.values())
    most = math.log2(max(possible, len(counts), 1))
    return {
        "different": len(counts),
        "bits": rounded(bits),
        "evenness": rounded(bits / most if most else 1),
        "effective": rounded(2**bits),
    }


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items()))


def _top(counts: Counter[str]) -> list[list[Any]]:
    """The most frequent, of equals in the order of the alphabet."""
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return [[text, count] for text, count in ranked[:_TOP]]
