"""Initial weights: normal with the config's standard deviation; norms one, router bias zero."""

from __future__ import annotations

import torch

from selenite.model.transformer import Transformer


@torch.no_grad()
def init_weights(model: Transformer, seed: int) -> Transformer:
    """Fills every parameter from one generator, in the order of the names; returns the model."""
    generator = torch.Generator().manual_seed(seed)
    for _, parameter in sorted(model.named_parameters()):
        if parameter.dim() == 1:
            parameter.fill_(1.0)
        else:
            parameter.normal_(0.0, model.config.init_std, generator=generator)
    for name, buffer in model.named_buffers():
        assert name.endswith("router.bias"), name
        buffer.zero_()
    return model
