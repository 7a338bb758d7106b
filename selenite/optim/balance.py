"""Load balancing of experts without an auxiliary loss: the router's bias follows the load.

The bias only chooses experts, it never weighs them, so balancing does not disturb the gradient.
DeepSeek-V3 (arXiv 2412.19437, section 2.1.2; 2408.15664), in Moonlight's form.

Letters: L layers with experts, E experts.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def global_load(load_LE: Tensor) -> Tensor:
    """The loads of all ranks of the default group; one process's own where there is no group."""
    if dist.is_available() and dist.is_initialized():
        load_LE = load_LE.clone()
        dist.all_reduce(load_LE)
    return load_LE


@torch.no_grad()
def update_router_bias(bias_LE: Tensor, load_LE: Tensor, speed: float) -> None:
    """Raises the bias of underloaded experts and lowers that of overloaded ones, in place.

    Args:
        bias_LE: float32, [E] or [L, E].
        load_LE: tokens that chose each expert, summed over the whole global batch; same shape.
        speed: the step u (1e-3 in the papers); 0 freezes the bias, as in the last stage.

    Only the sign of the imbalance counts. Its mean over experts is subtracted, which changes no
    choice and keeps the sum of the biases where it was.
    """
    load_LE = load_LE.to(bias_LE.dtype)
    direction_LE = (load_LE.mean(dim=-1, keepdim=True) - load_LE).sign()
    bias_LE.add_(direction_LE - direction_LE.mean(dim=-1, keepdim=True), alpha=speed)
