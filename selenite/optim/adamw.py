"""The AdamW half of MuonClip: embeddings, output head, norm gains and biases.

State and update are those of ``torch.optim.AdamW(fused=True)``, by calling torch's own fused
implementation, so that the baseline of a comparison and the side groups of MuonClip are one code.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw


def init_adamw_state(param: Tensor) -> dict[str, Tensor]:
    """Zeros for one parameter, under torch's names. The step counter has not advanced."""
    return {
        "step": torch.zeros((), dtype=torch.float32, device=param.device),
        "exp_avg": torch.zeros_like(param, memory_format=torch.preserve_format),
        "exp_avg_sq": torch.zeros_like(param, memory_format=torch.preserve_format),
    }


def adamw_step(
    group: dict[str, Any], params: list[Tensor], states: list[dict[str, Tensor]]
) -> None:
    """One update of ``params`` (all with a gradient) with the settings of ``group``."""
    beta1, beta2 = group["betas"]
    adamw(
        params,
        [param.grad for param in params if param.grad is not None],
        [state["exp_avg"] for state in states],
        [state["exp_avg_sq"] for state in states],
        [],
        [state["step"] for state in states],
        fused=True,
        amsgrad=False,
        beta1=beta1,
        beta2=beta2,
        lr=group["lr"],
        weight_decay=group["weight_decay"],
        eps=group["eps"],
        maximize=False,
    )
