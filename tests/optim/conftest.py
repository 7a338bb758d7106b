"""Modules with parameters named as docs/architecture.md has them, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import nn

from selenite.model.config import ModelConfig

NamedModule = Callable[[ModelConfig, Mapping[str, tuple[int, ...]]], nn.Module]


@pytest.fixture
def named_module() -> NamedModule:
    """Builds a module from a config and a table of names and shapes; Gaussian weights."""

    def build(config: ModelConfig, shapes: Mapping[str, tuple[int, ...]]) -> nn.Module:
        generator = torch.Generator().manual_seed(0)
        root = nn.Module()
        root.config = config
        for name, shape in shapes.items():
            *path, leaf = name.split(".")
            module = root
            for part in path:
                if part not in dict(module.named_children()):
                    module.add_module(part, nn.Module())
                module = module.get_submodule(part)
            module.register_parameter(
                leaf, nn.Parameter(torch.randn(shape, generator=generator) * 0.3)
            )
        return root

    return build
