"""Rollouts on disk: what each iteration learnt from, for people and for training without an engine.

``rollouts/step_00000012.jsonl`` in the run's directory has the groups that the iteration before
update 13 took, a rollout a line. Numbers are exact: float32 in their shortest decimal form, expert
ids as the base64 of their bytes, low ones first.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from selenite import atomic
from selenite.chat.openai_form import wire_message
from selenite.errors import DataError
from selenite.rl.gym.environment import Check, Score
from selenite.rl.rollout import Judgement, Rollout, Status
from selenite.rl.tasks import Assigned
from selenite.types import Message, ToolCall

FOLDER = "rollouts"


def write(out_dir: Path, step: int, groups: Sequence[Sequence[Rollout]]) -> None:
    """Leaves an iteration's groups; raises ``StorageError`` where there is no room."""
    folder = out_dir / FOLDER
    lines = [
        json.dumps(_record(rollout, number), ensure_ascii=False)
        for number, group in enumerate(groups)
        for rollout in group
    ]
    atomic.write_text(folder / f"step_{step:08d}.jsonl", "".join(f"{line}\n" for line in lines))


def steps(out_dir: Path) -> list[Path]:
    """Files of a run, the oldest first."""
    return sorted((out_dir / FOLDER).glob("step_*.jsonl"))


def read(path: Path) -> list[list[Rollout]]:
    """The groups of a file; raises ``DataError`` for one that holds something else."""
    try:
        # Not splitlines(): a message may hold a line separator that JSON does not escape.
        lines = path.read_text(encoding="utf-8").split("\n")
        records = [json.loads(line) for line in lines if line]
        return [
            [_rollout(record) for record in group]
            for _, group in groupby(records, key=lambda record: record["group"])
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: not rollouts of a run ({error}); give a run's directory"
        ) from error


def _record(rollout: Rollout, group: int) -> dict[str, Any]:
    sampled = rollout.is_sampled_T
    return {
        "group": group,
        "environment": rollout.environment,
        "task": rollout.task,
        "number": rollout.number,
        "status": rollout.status.value,
        "reason": rollout.reason,
        "reward": rollout.reward,
        "checks": None if rollout.score is None else [asdict(c) for c in rollout.score.checks],
        "temperature": rollout.temperature,
        "judgement": None if rollout.judgement is None else asdict(rollout.judgement),
        "seconds": dict(rollout.seconds),
        "messages": [wire_message(message) for message in rollout.messages],
        "token_ids": rollout.token_ids_T.tolist(),
        "sampled": runs(sampled),
        "logprobs": [_shortest(value) for value in rollout.engine_logprobs_T[sampled]],
        "weight_versions": rollout.weight_version_T[sampled].tolist(),
        "expert_ids": _packed(rollout.expert_ids_PLK),
    }


def _rollout(record: Mapping[str, Any]) -> Rollout:
    ids_T = np.array(record["token_ids"], dtype=np.int64)
    sampled_T = np.zeros(len(ids_T), dtype=bool)
    for start, stop in record["sampled"]:
        sampled_T[start:stop] = True
    logprobs_T = np.full(len(ids_T), np.nan, dtype=np.float32)
    logprobs_T[sampled_T] = record["logprobs"]
    versions_T = np.full(len(ids_T), -1, dtype=np.int64)
    versions_T[sampled_T] = record["weight_versions"]
    checks = record["checks"]
    return Rollout(
        environment=record["environment"],
        task=record["task"],
        number=record["number"],
        token_ids_T=ids_T,
        is_sampled_T=sampled_T,
        engine_logprobs_T=logprobs_T,
        temperature=record["temperature"],
        weight_version_T=versions_T,
        status=Status(record["status"]),
        reason=record["reason"],
        score=None if checks is None else Score(tuple(Check(**check) for check in checks)),
        reward=record["reward"],
        messages=tuple(map(_message, record["messages"])),
        seconds=record["seconds"],
        judgement=_judgement(record.get("judgement")),
        expert_ids_PLK=_unpacked(record.get("expert_ids")),
    )


def _judgement(record: Mapping[str, Any] | None) -> Judgement | None:
    return None if record is None else Judgement(**record)


def _message(wire: Mapping[str, Any]) -> Message:
    calls = tuple(
        ToolCall(call["function"]["name"], call["function"]["arguments"], call["id"])
        for call in wire.get("tool_calls") or ()
    )
    return Message(
        wire["role"],
        wire.get("content") or "",
        name=wire.get("name"),
        tool_calls=calls,
        tool_call_id=wire.get("tool_call_id"),
        reasoning=wire.get("reasoning_content"),
    )


def _packed(ids_PLK: np.ndarray | None) -> dict[str, Any] | None:
    if ids_PLK is None:
        return None
    little = ids_PLK.astype(ids_PLK.dtype.newbyteorder("<"))
    return {
        "dtype": ids_PLK.dtype.name,
        "shape": ids_PLK.shape,
        "bytes": base64.b64encode(little.tobytes()).decode(),
    }


def _unpacked(packed: Mapping[str, Any] | None) -> np.ndarray | None:
    if packed is None:
        return None
    dtype = np.dtype(packed["dtype"])
    flat = np.frombuffer(base64.b64decode(packed["bytes"]), dtype.newbyteorder("<"))
    return flat.astype(dtype).reshape(packed["shape"])


def runs(is_sampled_T: np.ndarray) -> list[list[int]]:
    """[start, stop) of what was sampled."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], is_sampled_T, [False]]).astype(int)))
    return [[int(start), int(stop)] for start, stop in edges.reshape(-1, 2)]


def _shortest(value: np.float32) -> float:
    """The decimal number that is read as the same float32, with as few digits as that takes."""
    return float(str(value))


class Replay:
    """Gives the trainer the rollouts of a run again, iteration by iteration: training without an
    engine. In the place of a ``Producer``."""

    def __init__(self, run: Path) -> None:
        self._files = steps(run)
        self._next = 0
        if not self._files:
            raise DataError(f"{run}: no rollouts are there; give the directory of a run")

    def take(
        self, count: int, version: int, temperature: float, limits: Mapping[str, int]
    ) -> list[list[Rollout]]:
        """The next iteration's groups, however many they were."""
        if self._next == len(self._files):
            raise DataError(
                f"{self._files[-1]}: there are rollouts of {self._next} iterations, and no more; "
                "lower train.steps"
            )
        self._next += 1
        return read(self._files[self._next - 1])

    def attempt(
        self, tasks: Sequence[Assigned], size: int, seed: int, temperature: float
    ) -> list[list[Rollout]]:
        """None: nobody acts."""
        return []

    def state_dict(self) -> dict[str, Any]:
        """Where it is."""
        return {"next": self._next}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on there."""
        self._next = state["next"]

    def close(self) -> None:
        """Nothing is to be ended."""
