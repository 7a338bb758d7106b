"""Checkpoints of a run: atomic, checksummed, complete.

A checkpoint is a sealed directory (``train/manifest.py``) with the tensors of all modules and
optimizers as torch.distributed.checkpoint (DCP) writes them, keyed by parameter name so that
another number of processes can load them, and ``state.json`` with the rest: the task's state, the
generators', the loop's counters. Frozen parameters are left out: the task has them from elsewhere,
and its identity says from where. Restoring it continues a float32 run bit for bit. DCP keeps its
metadata as a pickle, which can run code when it is read: load only checkpoints that you trust.
"""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from selenite.errors import CheckpointError, NonFiniteError, StorageError
from selenite.train import manifest
from selenite.train.generators import generator_states, set_generator_states
from selenite.train.task import Task

STATE = "state.json"
# Not strict, since the frozen ones are missing; what is loaded was asked for by name (_tensors).
_TRAINED = StateDictOptions(ignore_frozen_params=True, strict=False)
logger = logging.getLogger(__name__)


class CheckpointStore:
    """The checkpoints of one run, ``step_00000100`` and so on, in one directory."""

    def __init__(self, directory: Path, keep_last: int = 2) -> None:
        assert keep_last >= 1, keep_last
        directory = directory.resolve()  # compared with the paths of checkpoints
        self.directory = directory
        self.keep_last = keep_last
        try:
            directory.mkdir(parents=True, exist_ok=True)
            leftovers = manifest.remove_leftovers(directory)
        except OSError as error:
            raise _storage_error(directory, error) from error
        if leftovers:
            names = ", ".join(path.name for path in leftovers)
            logger.info("removed what an interrupted write left in %s: %s", directory, names)

    def paths(self) -> list[Path]:
        """The checkpoints, newest first. They were complete when they took their names."""
        return sorted(self.directory.glob("step_" + "[0-9]" * 8), reverse=True)

    def path_of(self, step: int) -> Path:
        """Where the checkpoint of ``step`` finished steps is, or will be."""
        return self.directory / f"step_{step:08d}"

    def latest(self) -> Path | None:
        """The newest checkpoint; none if there is none at all. ``load`` verifies it."""
        return next(iter(self.paths()), None)

    def verify(self, path: Path) -> None:
        """Raises ``CheckpointError`` unless ``path`` holds exactly what was written.

        Going back to an older one is for the user to decide: the message says how.
        """
        if not path.is_dir():
            there = ", ".join(p.name for p in self.paths()) or "none"
            raise CheckpointError(
                f"checkpoint {path}: there is no such directory; checkpoints in {self.directory}: "
                f"{there}"
            )
        found = manifest.faults(path)
        if not found:
            return
        good = next((p for p in self.paths() if p != path and not manifest.faults(p)), None)
        remedy = (
            f"the newest good checkpoint is {good}; continue from it with train.resume={good}"
            if good
            else "no other good checkpoint is left; start again in another train.out_dir"
        )
        raise CheckpointError(f"checkpoint {path} is damaged: {'; '.join(found)}. {remedy}")

    def save(self, step: int, task: Task[Any], run: Mapping[str, Any]) -> Path:
        """Writes the checkpoint of ``step`` finished steps; then deletes all but ``keep_last``.

        ``run`` holds what the loop itself needs again, as JSON values. Raises ``StorageError``
        when the disk refuses, and ``NonFiniteError`` for weights that are not finite; the older
        checkpoints are then intact and no part of the new one remains.
        """
        self._check_finite(step, task)
        final = self.path_of(step)
        temporary = self.directory / f"{manifest.TEMPORARY}{final.name}"
        state = {
            "step": step,
            "identity": task.identity,
            "task": task.state_dict(),
            "generators": generator_states(),
            "run": run,
        }
        try:
            temporary.mkdir()
            with _quiet_dcp():
                dcp.save(_tensors(task), checkpoint_id=temporary)
            (temporary / STATE).write_text(json.dumps(state), encoding="utf-8")
            manifest.seal(temporary, final)
            for path in self.paths()[self.keep_last :]:
                manifest.remove(path)
        except (OSError, RuntimeError, CheckpointException) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            cause = _os_error(error)
            if cause is None:
                raise
            raise _storage_error(self.directory, cause) from error
        return final

    def load(self, path: Path, task: Task[Any]) -> dict[str, Any]:
        """Restores ``task`` and the generators from ``path``; returns what ``save`` got as ``run``.

        Raises ``CheckpointError`` if ``path`` is damaged, or is of another model, tokenizer or
        data (all that ``task.identity`` tells); nothing has then been changed. The settings of the
        optimizers' groups (learning rate, decay, …) stay those of ``task``.
        """
        self.verify(path)
        state = json.loads((path / STATE).read_text(encoding="utf-8"))
        _check_identity(path, state["identity"], json.loads(json.dumps(task.identity)))
        tensors = _tensors(task)
        try:
            with _quiet_dcp():
                dcp.load(tensors, checkpoint_id=path)
        except CheckpointException as error:
            raise CheckpointError(
                f"checkpoint {path} does not fit this model or optimizer: "
                f"{error.failures[0][0]}; start again in another train.out_dir"
            ) from error
        modules, optimizers = nn.ModuleDict(task.modules), _optimizers(task)
        set_model_state_dict(modules, tensors["modules"], options=_TRAINED)
        settings = [[_settings(group) for group in o.param_groups] for o in optimizers]
        set_optimizer_state_dict(modules, optimizers, tensors["optimizers"])
        for optimizer, wanted in zip(optimizers, settings, strict=True):
            for group, own in zip(optimizer.param_groups, wanted, strict=True):
                group.update(own)
        task.load_state_dict(state["task"])
        set_generator_states(state["generators"])
        run: dict[str, Any] = state["run"]
        return run

    def set_aside_after(self, path: Path) -> list[Path]:
        """Renames the checkpoints newer than ``path`` to ``….superseded``; returns the new paths.

        A run that goes back to an older checkpoint takes another course from there: without this,
        the abandoned course would still be the latest. Nothing is deleted.
        """
        moved = []
        for newer in self.paths():
            if path.parent == self.directory and newer.name <= path.name:
                break
            target = newer.with_name(f"{newer.name}.superseded")
            number = 2
            while target.exists():
                target = newer.with_name(f"{newer.name}.superseded-{number}")
                number += 1
            newer.rename(target)
            moved.append(target)
        return moved

    def _check_finite(self, step: int, task: Task[Any]) -> None:
        """An update can overflow though loss and gradient were finite."""
        named = nn.ModuleDict(task.modules).named_parameters()
        bad = [name for name, parameter in named if not parameter.isfinite().all()]
        if bad:
            last = self.latest()
            raise NonFiniteError(
                f"after step {step} these weights are not finite: {', '.join(bad[:5])}"
                f"{f' and {len(bad) - 5} more' if len(bad) > 5 else ''}. They were not saved; "
                + (f"the last checkpoint is {last}" if last else "there is no checkpoint yet")
                + ". Lower the learning rate"
            )


def _settings(group: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name != "params"}


def _optimizers(task: Task[Any]) -> list[torch.optim.Optimizer]:
    return list({id(phase.optimizer): phase.optimizer for phase in task.phases}.values())


def _tensors(task: Task[Any]) -> dict[str, Any]:
    """The tensors of the task that a run changes, by name: shared with the task, not copied."""
    modules = nn.ModuleDict(task.modules)
    return {
        "modules": get_model_state_dict(modules, options=_TRAINED),
        "optimizers": get_optimizer_state_dict(modules, _optimizers(task)),
    }


@contextmanager
def _quiet_dcp() -> Iterator[None]:
    """Without DCP's warning that there is no process group: one process is meant."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def _check_identity(path: Path, saved: Any, wanted: Any) -> None:
    differing = list(differences("", saved, wanted))
    if differing:
        raise CheckpointError(
            f"checkpoint {path} is of another run: {'; '.join(differing)} (saved, then wanted). "
            "Set these back to continue it, or start in another train.out_dir"
        )


def differences(key: str, saved: Any, wanted: Any) -> Iterator[str]:
    """Words for each value that differs between nested tables; ``key`` is where they are."""
    if isinstance(saved, dict) and isinstance(wanted, dict):
        for name in sorted(saved.keys() | wanted.keys()):
            path = f"{key}.{name}" if key else name
            yield from differences(path, saved.get(name), wanted.get(name))
    elif saved != wanted:
        yield f"{key} is {saved!r}, {wanted!r}"


def _os_error(error: BaseException) -> OSError | None:
    """The operating system's refusal behind ``error``: DCP and torch wrap it."""
    seen: BaseException | None = error
    if isinstance(error, CheckpointException):
        seen = next(iter(error.failures.values()))[0]
    while seen is not None and not isinstance(seen, OSError):
        seen = seen.__cause__ or seen.__context__
    return seen


def _storage_error(directory: Path, cause: OSError) -> StorageError:
    free = shutil.disk_usage(next(p for p in [directory, *directory.parents] if p.exists())).free
    return StorageError(
        f"{directory}: the checkpoint cannot be written ({cause.strerror}; {free:,} bytes free). "
        "Earlier checkpoints are intact. Free some space, or lower train.keep_last, "
        "and run the same command again"
    )
