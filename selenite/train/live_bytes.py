"""Counts the bytes that real code would hold, by running it on tensors without storage.

On torch's ``meta`` device every operation computes shapes and dtypes and allocates nothing. A
dispatch mode sees each new storage and is told when Python and autograd let go of it, so what the
model saves for its backward pass is read off the model itself and cannot drift from it. A model of
a trillion parameters is counted on a laptop.

Read by ``memory.py``.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten


@dataclass(frozen=True)
class Peak:
    """The moment at which most bytes were live."""

    by_label: Counter[str]
    allocations: int  # storages made before it, to tell which of those alive later were alive then

    @property
    def total(self) -> int:
        return self.by_label.total()


class LiveBytes(TorchDispatchMode):
    """While entered, counts the live bytes of all ``meta`` storages, by the label at their making.

    Attributes:
        live: bytes now, by label.
        peak: the largest since ``restart_peak``.
        products: different bfloat16 products, by what oneDNN tells them apart by: shapes, layout,
            factors (Newton-Schulz has some for each iteration). Those of a grouped one differ
            from expert to expert, and recur from layer to layer because their rows are rounded up
            (``ops/moe.py``).
    """

    def __init__(self) -> None:
        super().__init__()
        self.live: Counter[str] = Counter()
        self.peak = Peak(Counter(), 0)
        self.products: set[tuple[Any, ...]] = set()
        self._label = "other"
        self._allocations = 0
        self._made: dict[int, tuple[int, str]] = {}  # address -> number of allocation, label

    @contextmanager
    def label(self, name: str) -> Iterator[None]:
        """Gives storages that are made inside this label."""
        before, self._label = self._label, name
        try:
            yield
        finally:
            self._label = before

    def restart_peak(self) -> None:
        """Forgets the peak so far."""
        self.peak = Peak(self.live.copy(), self._allocations)

    def held_at_peak(self, tensors: Iterable[Tensor]) -> int:
        """Bytes of those of ``tensors``, all alive now, that were alive at the peak."""
        return sum(
            storage.nbytes()
            for storage in (tensor.untyped_storage() for tensor in tensors)
            if self._made[storage._cdata][0] <= self.peak.allocations
        )

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _PRODUCTS and args[-1].dtype == torch.bfloat16:
            operands = ((tuple(arg.shape), arg.stride()) for arg in args)
            self.products.add((func, *operands, *sorted(kwargs.items())))
        elif func is aten._grouped_mm.default and args[0].dtype == torch.bfloat16:
            shapes = tuple(tuple(arg.shape) for arg in args[:2])
            self.products.update((func, shapes, e) for e in range(len(args[2])))
        known = _SHAPES.get(func)
        if known is not None:
            out = known(*args, **kwargs)
        elif func is aten._to_copy.default and _leaves_meta(args[0], kwargs):
            out = torch.zeros(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        else:
            out = func(*args, **kwargs)
        label = self._label
        if func is aten._to_copy.default and self._label_of(args[0]) == "weights":
            label = "weight copies"
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.device.type == "meta":
                self._count(tensor, label)
        return out

    def _label_of(self, tensor: Tensor) -> str | None:
        made = self._made.get(tensor.untyped_storage()._cdata)
        return None if made is None else made[1]

    def _count(self, tensor: Tensor, label: str) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata in self._made:
            return
        self._allocations += 1
        self._made[storage._cdata] = self._allocations, label
        self.live[label] += storage.nbytes()
        weakref.finalize(storage, self._forget, storage._cdata, storage.nbytes())
        if self.live.total() > self.peak.total:
            self.peak = Peak(self.live.copy(), self._allocations)

    def _forget(self, address: int, num_bytes: int) -> None:
        _, label = self._made.pop(address)
        self.live[label] -= num_bytes


def _leaves_meta(tensor: Tensor, kwargs: dict[str, Any]) -> bool:
    """Whether a copy goes from ``meta`` to a real device: a number that the step reports."""
    device = kwargs.get("device")
    return tensor.device.type == "meta" and device is not None and device.type != "meta"


def _bincount(x: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    return x.new_empty(minlength, dtype=torch.int64)


def _grouped_mm(a: Tensor, b: Tensor, offs: Tensor, *_: Any, **__: Any) -> Tensor:
    assert a.dim() == 2, a.shape
    if b.dim() == 3:
        return a.new_empty(a.shape[0], b.shape[2])
    return a.new_empty(len(offs), a.shape[0], b.shape[1])


_PRODUCTS = {aten.mm.default, aten.bmm.default, aten.baddbmm.default}

# Operations that torch cannot run without values, or only in bfloat16.
_SHAPES: dict[Any, Callable[..., Tensor]] = {
    aten.bincount.default: _bincount,
    aten._grouped_mm.default: _grouped_mm,
}
