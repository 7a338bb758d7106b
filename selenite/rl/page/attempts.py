"""The attempts that the page shows: all of a run where they fit, else some, spread evenly over
steps, environments and tasks.

    rollouts/step_*.jsonl ─► some steps ─► attempts of each group in turn ─► records
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import chain, groupby, zip_longest
from pathlib import Path
from statistics import fmean
from typing import Any

from selenite.chat.tokenizer import Tokenizer
from selenite.rl import journal
from selenite.rl.page.inline import number, to_json
from selenite.rl.rollout import TAUGHT, Rollout
from selenite.rl.run_metrics import evenly
from selenite.types import Message

_MOST_STEPS = 50  # where not all fit
_LONGEST = 20_000  # characters of a message
_LONGEST_GAP = 1_000  # characters between two turns, where tokens are shown
_PLACE = 8  # characters of a message's place, at most; five for what is around them
_MOST_TOKENS = 8_000  # that the model wrote; beyond, they are not shown


class Attempts:
    """The chosen attempts of a run, as the page reads them.

    Args:
        run: its directory.
        tokenizer: of its model; None: tokens are not shown.
        room: characters of JSON that all attempts may take.

    Raises ``DataError`` for files that hold something else.
    """

    def __init__(self, run: Path, tokenizer: Tokenizer | None, room: int) -> None:
        self._tokenizer = tokenizer
        self._places = dict[str, int]()  # of messages as JSON: attempts at one task begin alike
        self.records = list[dict[str, Any]]()
        self.token_ids = set[int]()
        self.steps = list[dict[str, int]]()
        """Of which attempts are here: the update that learnt from them, ``here`` and ``all``."""
        files = journal.steps(run)
        self.num_iterations = len(files)
        if sum(file.stat().st_size for file in files) > room:
            files = evenly(files, _MOST_STEPS)
        for i, file in enumerate(files):
            room -= self._take(file, room // (len(files) - i))

    @property
    def messages(self) -> list[dict[str, Any]]:
        """By the places that ``records`` name."""
        return [json.loads(text) for text in self._places]

    def _take(self, file: Path, room: int) -> int:
        """Adds attempts of one step; returns the characters that they take."""
        step = int(file.stem.removeprefix("step_")) + 1
        groups = journal.read(file)
        used, before = 0, len(self.records)
        for rollout, mean in _in_turn(groups):
            record = {"step": step, "group_mean": mean, **self._record(rollout)}
            texts = [to_json(_message(message)) for message in rollout.messages]
            prompt = [self._prompt(rollout)] if record["turns"] else []
            new = [it for it in dict.fromkeys([*prompt, *texts]) if it not in self._places]
            size = len(to_json(record)) + sum(map(len, new)) + _PLACE * (5 + len(texts))
            if size > room:  # it alone is too long; shorter ones may follow
                continue
            if used + size > room:
                break
            for text in new:
                self._places[text] = len(self._places)
            record["messages"] = [self._places[text] for text in texts]
            record["prompt"] = [self._places[text] for text in prompt]
            self.records.append(record)
            self.token_ids.update(i for turn in record["turns"] or () for i in turn["ids"])
            used += size
        here = len(self.records) - before
        self.steps.append({"step": step, "here": here, "all": sum(map(len, groups))})
        return used

    def _record(self, rollout: Rollout) -> dict[str, Any]:
        """All but its messages."""
        score = rollout.score
        checks = () if score is None else score.checks
        is_shown = self._tokenizer is not None and rollout.num_sampled <= _MOST_TOKENS
        return {
            "environment": rollout.environment,
            "task": rollout.task,
            "number": rollout.number,
            "status": rollout.status.value,
            "is_failed": rollout.status not in TAUGHT,
            "reason": _cut(rollout.reason),
            "reward": number(rollout.reward),
            "checks": [[c.name, number(c.value), _cut(c.reason)] for c in checks],
            "temperature": number(rollout.temperature),
            "seconds": {kind: number(spent, 2) for kind, spent in rollout.seconds.items()},
            "num_tokens": rollout.num_sampled,
            "turns": self._turns(rollout) if is_shown else None,
        }

    def _prompt(self, rollout: Rollout) -> str:
        """What the model saw before its first turn, as JSON; tools are nowhere else."""
        assert self._tokenizer is not None
        first = int(rollout.is_sampled_T.argmax())
        text = self._tokenizer.decode(rollout.token_ids_T[:first].tolist())
        return to_json({"role": "prompt", "content": _cut(text)})

    def _turns(self, rollout: Rollout) -> list[dict[str, Any]]:
        """What the model wrote, token by token; what was said between in one piece."""
        assert self._tokenizer is not None
        found, end = list[dict[str, Any]](), 0
        for start, stop in journal.runs(rollout.is_sampled_T):
            between = rollout.token_ids_T[end:start].tolist() if end else []  # no prompt
            versions = rollout.weight_version_T[start:stop].tolist()
            found.append(
                {
                    "between": _cut(self._tokenizer.decode(between), _LONGEST_GAP),
                    "ids": rollout.token_ids_T[start:stop].tolist(),
                    "logprobs": [number(x, 3) for x in rollout.engine_logprobs_T[start:stop]],
                    "versions": [[v, len(list(same))] for v, same in groupby(versions)],
                }
            )
            end = stop
        return found


def token_texts(tokenizer: Tokenizer, ids: Sequence[int]) -> dict[str, str]:
    """What each token stands for, by id; bytes that are no UTF-8 by themselves as ``\\xf0``."""
    vocabulary = tokenizer.vocabulary()
    # A special token has a name and no bytes.
    texts = {i: vocabulary[i].decode(errors="backslashreplace") for i in ids}
    return {str(i): text or tokenizer.decode([i]) for i, text in texts.items()}


def _in_turn(groups: Sequence[Sequence[Rollout]]) -> Iterator[tuple[Rollout, float | None]]:
    """Attempts with the mean reward of their group, in an order whose beginnings have all
    environments and all groups alike."""
    means = {id(r): _mean(group) for group in groups for r in group}
    environments = dict[str, list[Sequence[Rollout]]]()
    for group in groups:
        environments.setdefault(group[0].environment, []).append(group)
    turns = [chain.from_iterable(zip_longest(*own)) for own in environments.values()]
    for rollout in chain.from_iterable(zip_longest(*turns)):
        if rollout is not None:
            yield rollout, means[id(rollout)]


def _mean(group: Sequence[Rollout]) -> float | None:
    rewards = [rollout.reward for rollout in group if rollout.status in TAUGHT]
    return number(fmean(rewards)) if rewards else None


def _message(message: Message) -> dict[str, Any]:
    """Without what is empty."""
    entries = {
        "role": message.role,
        "name": message.name,
        "reasoning": _cut(message.reasoning or ""),
        "content": _cut(message.content),
        "calls": [[call.name, _cut(call.arguments)] for call in message.tool_calls],
    }
    return {key: value for key, value in entries.items() if value}


def _cut(text: str, longest: int = _LONGEST) -> str:
    """Its beginning and its end, and how much lies between."""
    if len(text) <= longest:
        return text
    half = longest // 2
    return f"{text[:half]}\n[{len(text) - 2 * half:,} characters are left out]\n{text[-half:]}"
