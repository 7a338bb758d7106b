"""What diversity is measured with: entropy, distinct n-grams, self-BLEU, values, schemas."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
_ORDERS = 4  # of n-grams in BLEU
_UNSEEN = 0.1  # matches that an order without any counts as (Chen and Cherry, 2014, method 1)

Words = Sequence[str]
Gram = tuple[str, ...]


def words_of(text: str) -> list[str]:
    """The words of a text without capitals; numbers are words."""
    return _WORD.findall(text.lower())


def grams(words: Words, n: int) -> Iterator[Gram]:
    """Every n words in a row."""
    return zip(*(words[start:] for start in range(n)), strict=False)


def entropy(counts: Iterable[int]) -> float:
    """Of what was counted, in bits."""
    found = [count for count in counts if count]
    total = sum(found)
    return sum(count / total * math.log2(total / count) for count in found)


def distinct(texts: Sequence[Words], n: int) -> float:
    """Distinct-n (Li and others, 2016): how many different n-grams there are per n-gram."""
    counts = Counter(gram for words in texts for gram in grams(words, n))
    return len(counts) / max(1, counts.total())


def self_bleu(texts: Sequence[Words]) -> float:
    """The mean BLEU-4 of each text against all others (Zhu and others, 2018): 1 where all are the
    same, 0 where none shares a word with another, and where there are no two."""
    texts = [words for words in texts if words]
    if len(texts) < 2:
        return 0.0
    lengths = Counter(map(len, texts))
    logs = [0.0] * len(texts)
    for n in range(1, _ORDERS + 1):
        counted = [Counter(grams(words, n)) for words in texts]
        best = _two_best(counted)
        for number, own in enumerate(counted):
            matches = sum(min(c, _elsewhere(best[gram], number)) for gram, c in own.items())
            if matches == 0 and n == 1:
                logs[number] = -math.inf
            logs[number] += math.log((matches or _UNSEEN) / max(1, own.total())) / _ORDERS
    scores = (
        _brevity(len(words), lengths) * math.exp(log)
        for words, log in zip(texts, logs, strict=True)
    )
    return sum(scores) / len(texts)


def _two_best(counted: Iterable[Counter[Gram]]) -> dict[Gram, tuple[int, int, int]]:
    """Of each n-gram the most that a text has of it, which one, and the most of any other."""
    best: dict[Gram, tuple[int, int, int]] = {}
    for number, counts in enumerate(counted):
        for gram, count in counts.items():
            most, owner, second = best.get(gram, (0, -1, 0))
            if count > most:
                best[gram] = count, number, most
            elif count > second:
                best[gram] = most, owner, count
    return best


def _elsewhere(best: tuple[int, int, int], number: int) -> int:
    most, owner, second = best
    return second if owner == number else most


def _brevity(length: int, lengths: Counter[int]) -> float:
    """The penalty for being shorter than the other text that is nearest in length."""
    others = (known for known, count in lengths.items() if count > (known == length))
    nearest = min(others, key=lambda other: (abs(other - length), other))
    return 1.0 if length >= nearest else math.exp(1 - nearest / length)


def leaves(value: Any) -> Iterator[tuple[str, str]]:
    """The values in an argument, each with its JSON type."""
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from leaves(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from leaves(inner)
    else:
        yield _json_type(value), json.dumps(value, ensure_ascii=False)


def _json_type(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else "boolean"
    return "string" if isinstance(value, str) else "number"


FEATURES = ("nested object", "enum", "array", "optional", "no argument")


def features(parameters: Mapping[str, Any]) -> set[str]:
    """Which of ``FEATURES`` the JSON schema of some arguments has, at any depth."""
    properties = parameters.get("properties", {})
    if not properties:
        return {"no argument"}
    found = set[str]()
    if set(properties) - set(parameters.get("required", ())):
        found.add("optional")
    for schema in properties.values():
        found |= _inner_features(schema)
    return found


def _inner_features(schema: Mapping[str, Any]) -> set[str]:
    found = {"enum"} if "enum" in schema else set[str]()
    if schema.get("type") == "array":
        found |= {"array"} | _inner_features(schema.get("items", {}))
    elif "properties" in schema:
        found |= {"nested object"} | (features(schema) - {"no argument"})
    return found
