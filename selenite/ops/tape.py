"""Calls of our kernels, recorded once and played again: a step of decoding without Python.

A step of a certain shape makes the same calls on the same sizes each time. ``record`` runs it once
and notes them; ``Tape.play`` makes them again in one call, on whatever the step's inputs hold by
then, as CUDA graphs do elsewhere. Only kernels of our own can be played, so a step that computes
anything with torch is refused, with the name of the operation.

What the step allocates between its calls is laid out anew, as tightly as its uses permit.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from selenite.errors import UnsupportedError
from selenite.ops import native

_ALIGNED = 64  # bytes
_ALLOCATIONS = frozenset({"empty", "new_empty", "empty_strided", "empty_like"})


@dataclass(eq=False)
class _Memory:
    """What the step allocated: by which calls it is used, and where it will lie."""

    tensor: Tensor
    first: int = -1  # call; -1: none
    last: int = -1
    offset: int = 0  # in the arena

    @property
    def size(self) -> int:
        return -(-self.tensor.untyped_storage().nbytes() // _ALIGNED) * _ALIGNED


@dataclass(frozen=True)
class _Place:
    """Something in the step's memory: what, and how far from its start."""

    memory: _Memory
    offset: int


class Tape:
    """Recorded calls; made by ``record``. ``place`` gives it memory before it is played."""

    def __init__(self, recorder: _Recorder, outputs: Sequence[Tensor]) -> None:
        memories = [memory for memory in recorder.memories.values() if memory.first >= 0]
        for output in outputs:
            recorder.place(output).memory.last = len(recorder.calls)  # until it is played again
        self.num_bytes = _lay_out(memories)
        self._kept = [  # the caller's; what the step allocated lies in the arena
            argument
            for _, arguments in recorder.calls
            for argument in arguments
            if not (isinstance(argument, Tensor) and recorder.find(argument))
        ]
        words: list[int] = []
        starts: list[int] = []
        self._moved: list[tuple[int, int]] = []  # word that is an address, offset in the arena
        for _, arguments in recorder.calls:
            starts.append(len(words))
            for argument in arguments:
                if isinstance(argument, Tensor) and (place := recorder.find(argument)):
                    self._moved.append((len(words), place.memory.offset + place.offset))
                words.append(_word(argument))
        self._words = np.array(words, dtype=np.int64)
        kernels = [native.address(f"{name}_packed") for name, _ in recorder.calls]
        addresses = self._words.ctypes.data + 8 * np.array(starts, dtype=np.int64)
        self._calls = np.stack((np.array(kernels, dtype=np.int64), addresses), 1).copy()
        self._outputs = [
            (place.memory.offset + place.offset, output.dtype, output.shape)
            for output in outputs
            for place in [recorder.place(output)]
        ]
        self.outputs: list[Tensor] = []

    def place(self, arena: Tensor) -> None:
        """Keeps what the step allocates in ``arena``: uint8, of ``num_bytes`` or more. Tapes of
        which one is played at a time can share it."""
        assert arena.numel() >= self.num_bytes, (arena.numel(), self.num_bytes)
        for word, offset in self._moved:
            self._words[word] = arena.data_ptr() + offset
        self.outputs = [
            arena[offset : offset + dtype.itemsize * shape.numel()].view(dtype).view(shape)
            for offset, dtype, shape in self._outputs
        ]

    def play(self) -> list[Tensor]:
        """Makes the calls again; the outputs are good until a tape of the same arena is played."""
        native.function("tape_play", "pii")(
            self._calls.ctypes.data, len(self._calls), torch.get_num_threads()
        )
        return self.outputs


def record(step: Callable[[], Sequence[Tensor]]) -> Tape:
    """Runs ``step`` once and records it. It returns tensors that it allocated.

    Raises ``UnsupportedError`` where it computes with torch.
    """
    recorder = _Recorder()
    with torch.inference_mode(), recorder, native.heard_by(recorder.hear):
        outputs = step()
    return Tape(recorder, outputs)


class _Recorder(TorchDispatchMode):
    """Notes kernels' calls and allocations, and keeps all memory until the tape is made."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.memories: dict[int, _Memory] = {}  # by the address of their storage

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = operation(*args, **(kwargs or {}))
        if operation.overloadpacket.__name__ in _ALLOCATIONS:
            self.memories[result.untyped_storage().data_ptr()] = _Memory(result)
        elif not operation.is_view:
            raise UnsupportedError(f"torch computes {operation} between our kernels")
        return result

    def hear(self, name: str, arguments: tuple[Any, ...]) -> None:
        """A call of a kernel."""
        for argument in arguments:
            if isinstance(argument, Tensor) and (place := self.find(argument)):
                memory = place.memory
                memory.first = len(self.calls) if memory.first < 0 else memory.first
                memory.last = len(self.calls)
        self.calls.append((name, arguments))

    def find(self, tensor: Tensor) -> _Place | None:
        """Where a tensor lies in the step's own memory; None: the caller gave it."""
        storage = tensor.untyped_storage().data_ptr()
        memory = self.memories.get(storage)
        return None if memory is None else _Place(memory, tensor.data_ptr() - storage)

    def place(self, output: Tensor) -> _Place:
        """Of an output."""
        place = self.find(output)
        assert place is not None, "an output that the step did not allocate"
        assert output.is_contiguous(), output.stride()
        return place


def _lay_out(memories: Sequence[_Memory]) -> int:
    """Gives each the lowest offset that nothing else has while it is used; bytes of all."""
    laid: list[_Memory] = []
    most = 0
    for memory in memories:
        beside = [m for m in laid if m.last >= memory.first and memory.last >= m.first]
        memory.offset = 0
        for other in sorted(beside, key=lambda m: m.offset):
            if memory.offset + memory.size <= other.offset:
                break
            memory.offset = max(memory.offset, other.offset + other.size)
        laid.append(memory)
        most = max(most, memory.offset + memory.size)
    return most


def _word(argument: Any) -> int:
    """An argument as the 64-bit word that ``csrc/tape.h`` unpacks."""
    if argument is None:
        return 0
    if isinstance(argument, Tensor):
        return argument.data_ptr()
    if isinstance(argument, ctypes.Array):
        return ctypes.addressof(argument)
    if isinstance(argument, float):
        return int.from_bytes(struct.pack("<f", argument), "little")
    return int(argument)
