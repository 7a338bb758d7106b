"""MuonClip's update: Muon for matrices and AdamW for the rest, in one torch optimizer.

For each matrix W [A, B] with gradient G (Moonlight, arXiv 2502.16982; K2, arXiv 2507.20534):

    M <- mu M + G                            heavy-ball momentum, float32
    N <- G + mu M  (Nesterov)  or  M
    O <- NewtonSchulz(N)                     all matrices of one shape together
    W <- (1 - lr decay) W - lr 0.2 sqrt(max(A, B)) O

The factor gives the update AdamW's usual root mean square, so both kinds share one learning rate.
With ``update_scale="original"`` it is Jordan's sqrt(max(1, A / B)), and the rate is not shared.
QK-Clip, the other half of the name, runs after the step (optim/qk_clip.py).

Legend: K matrices, A rows, B columns.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from selenite.errors import CheckpointError, ConfigError
from selenite.ops.newton_schulz import coefficients, newton_schulz
from selenite.optim.adamw import adamw_step, init_adamw_state

RMS_MATCH = 0.2  # AdamW's usual update has a root mean square of 0.2 to 0.4

UpdateScale = Literal["rms", "original"]

# Elements that are orthogonalised together: bounds the temporary memory (about five times this
# many elements) while leaving small matrices batched by the dozen. Temporaries of this size stay
# with the allocator between chunks; larger ones go back to the system and are faulted in again.
CHUNK_ELEMENTS = 2**20

HEAVY_BALL = "heavy_ball"  # M <- mu M + G, what is kept in memory and written
EMA = "ema"  # M <- mu M + (1 - mu) G, as torch.optim.Muon keeps it; smaller by 1 - mu


@dataclass(frozen=True)
class RowBlocks:
    """How the rows of a weight divide into matrices that are orthogonalised each by itself.

    The rows are ``repeats`` (heads) times the blocks of ``sizes`` rows, in this order. A weight
    with leading dimensions [E, A, B] has these blocks in each of its E matrices.
    """

    repeats: int
    sizes: tuple[int, ...]

    def split(self, W_EAB: Tensor) -> list[Tensor]:
        """Views of shape [E x repeats, size, B], one for each of ``sizes``."""
        *_, A, B = W_EAB.shape
        assert self.repeats * sum(self.sizes) == A, (self, W_EAB.shape)
        W_KAB = W_EAB.view(-1, A // self.repeats, B)
        return list(W_KAB.split(self.sizes, dim=1))


@dataclass(frozen=True)
class _Slab:
    """Some matrices of one parameter, [K, A, B] each: views of weight, momentum and gradient."""

    weight: Tensor
    momentum: Tensor
    grad: Tensor


class MuonClip(torch.optim.Optimizer):
    """Muon and AdamW behind the interface of ``torch.optim.Optimizer``.

    Args:
        groups: parameter groups, each with ``params``, ``kind`` (``"muon"`` or ``"adamw"``) and
            ``base_lr``; settings that a group lacks come from the arguments below. The state
            (``momentum_buffer``; ``step``, ``exp_avg``, ``exp_avg_sq``) is float32.
        row_blocks: parameters whose rows are orthogonalised in blocks; all others are one matrix
            for each leading index.
        ns_dtype: dtype of the Newton-Schulz products.
        update_scale: ``"rms"`` or ``"original"``, the factor on an orthogonal update (above).

    Attributes:
        num_orthogonalized: matrices that went through Newton-Schulz in the last ``step``.

    Raises:
        ConfigError: a parameter is not float32, or is in a Muon group and is not a matrix.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        *,
        row_blocks: Mapping[Tensor, RowBlocks] | None = None,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: str = "quintic",
        ns_steps: int = 5,
        ns_dtype: torch.dtype = torch.float32,
        update_scale: UpdateScale = "rms",
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
    ) -> None:
        shared = {"weight_decay": weight_decay}
        of_kind: dict[str, dict[str, Any]] = {
            "muon": {"momentum": momentum, "nesterov": nesterov, "momentum_form": HEAVY_BALL},
            # "fused" tells torch's load_state_dict to keep the step counter a float32 tensor.
            "adamw": {"betas": betas, "eps": eps, "fused": True},
        }
        full = []
        for group in groups:
            if group["kind"] not in of_kind:
                raise ConfigError(f"kind={group['kind']!r}: must be 'muon' or 'adamw'")
            full.append({**shared, **of_kind[group["kind"]], "lr": group["base_lr"], **group})
        super().__init__(full, {})
        self._row_blocks = dict(row_blocks or {})
        self._ns_coefficients = coefficients(ns_coefficients, ns_steps)
        self._ns_dtype = ns_dtype
        self._update_scale = update_scale
        self.num_orthogonalized = 0
        self._check()

    def _check(self) -> None:
        for group in self.param_groups:
            for param in group["params"]:
                if param.dtype != torch.float32:
                    raise ConfigError(
                        f"a parameter of shape {tuple(param.shape)} is {param.dtype}: the "
                        "optimizer works on float32 master weights; cast at the call (ops.linear)"
                    )
                if group["kind"] == "muon" and param.ndim < 2:
                    raise ConfigError(
                        f"a parameter of shape {tuple(param.shape)} is in a Muon group: only "
                        "matrices can be orthogonalised; put it into an AdamW group"
                    )

    def init_state(self) -> None:
        """Creates the state of every parameter that has none, without a step.

        A checkpoint can then be loaded into the optimizer, or its memory measured, before the
        first gradient; no counter advances.
        """
        for group in self.param_groups:
            for param in group["params"]:
                self._state_of(param, group["kind"])

    def _state_of(self, param: Tensor, kind: str) -> dict[str, Tensor]:
        state = self.state[param]
        if not state:
            if kind == "adamw":
                state.update(init_adamw_state(param))
            else:
                state["momentum_buffer"] = torch.zeros_like(
                    param, memory_format=torch.preserve_format
                )
        return state

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates every parameter that has a gradient; returns the closure's loss, if any."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.num_orthogonalized = 0
        for group in self.param_groups:
            params = [param for param in group["params"] if param.grad is not None]
            states = [self._state_of(param, group["kind"]) for param in params]
            if group["kind"] == "adamw":
                adamw_step(group, params, states)
            else:
                self._muon_step(group, params, [state["momentum_buffer"] for state in states])
        return loss

    def _muon_step(
        self, group: dict[str, Any], params: list[Tensor], buffers: list[Tensor]
    ) -> None:
        if not params:
            return
        grads = [param.grad for param in params if param.grad is not None]
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, grads)
        torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
        by_shape: dict[tuple[int, int], list[_Slab]] = defaultdict(list)
        for param, buffer, grad in zip(params, buffers, grads, strict=True):
            for slab in self._slabs(param, buffer, grad):
                by_shape[slab.weight.shape[1], slab.weight.shape[2]].append(slab)
        for (A, B), slabs in by_shape.items():
            for chunk in _chunks(slabs, max(1, CHUNK_ELEMENTS // (A * B))):
                self._update_chunk(group, chunk)

    def _slabs(self, param: Tensor, buffer: Tensor, grad: Tensor) -> list[_Slab]:
        blocks = self._row_blocks.get(param) or RowBlocks(1, (param.shape[-2],))
        parts = (blocks.split(x) for x in (param, buffer, grad.contiguous()))
        return [_Slab(*views) for views in zip(*parts, strict=True)]

    def _update_chunk(self, group: dict[str, Any], slabs: list[_Slab]) -> None:
        """Orthogonalises matrices of one shape together and takes the step along the results."""
        K = sum(len(slab.weight) for slab in slabs)
        A, B = slabs[0].weight.shape[1:]
        N_KAB = slabs[0].weight.new_empty(K, A, B)
        start = 0
        for slab in slabs:
            N_kAB = N_KAB[start : start + len(slab.weight)]
            if group["nesterov"]:
                torch.add(slab.grad, slab.momentum, alpha=group["momentum"], out=N_kAB)
            else:
                N_kAB.copy_(slab.momentum)
            start += len(slab.weight)
        O_KAB = newton_schulz(N_KAB, self._ns_coefficients, self._ns_dtype)
        adjusted_lr = group["lr"] * _update_factor(A, B, self._update_scale)
        start = 0
        for slab in slabs:
            slab.weight.add_(O_KAB[start : start + len(slab.weight)], alpha=-adjusted_lr)
            start += len(slab.weight)
        self.num_orthogonalized += K

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads a state; momentum that was kept as an average (EMA) becomes heavy-ball.

        Raises ``CheckpointError`` if a Muon group does not say which of the two it is: they differ
        by a factor of 1 / (1 - momentum), which nothing in the numbers themselves gives away.
        """
        for index, saved in enumerate(state_dict["param_groups"]):
            form = saved.get("momentum_form")
            if saved.get("kind") == "muon" and form not in (HEAVY_BALL, EMA):
                raise CheckpointError(
                    f"momentum_form={form!r} in optimizer group {index}: must be {HEAVY_BALL!r} or "
                    f"{EMA!r}; a state of torch.optim.Muon is {EMA!r}, add it to the group"
                )
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            if group.get("momentum_form") == EMA:
                for param in group["params"]:
                    if "momentum_buffer" in self.state[param]:
                        self.state[param]["momentum_buffer"].div_(1 - group["momentum"])
                group["momentum_form"] = HEAVY_BALL


def _update_factor(A: int, B: int, scale: UpdateScale) -> float:
    if scale == "rms":
        return RMS_MATCH * math.sqrt(max(A, B))
    return math.sqrt(max(1, A / B))


def _chunks(slabs: list[_Slab], limit: int) -> Iterable[list[_Slab]]:
    """Regroups slabs into lists of at most ``limit`` matrices, cutting slabs where needed."""
    chunk: list[_Slab] = []
    room = limit
    for slab in slabs:
        start = 0
        while start < len(slab.weight):
            stop = min(start + room, len(slab.weight))
            chunk.append(
                _Slab(slab.weight[start:stop], slab.momentum[start:stop], slab.grad[start:stop])
            )
            room -= stop - start
            start = stop
            if room == 0:
                yield chunk
                chunk, room = [], limit
    if chunk:
        yield chunk
