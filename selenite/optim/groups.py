"""Which optimizer updates which parameter, decided by name (docs/architecture.md, "Parameters").

Matrices that multiply activations go to Muon, each expert by itself; embeddings, the output head,
norm gains, biases and LoRA's adapters go to AdamW. Moonlight (arXiv 2502.16982) found that the
gains must be decayed like everything else, or the root mean square of the outputs grows.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from selenite.errors import ConfigError
from selenite.model.config import ModelConfig
from selenite.optim.muon import RowBlocks

Kind = Literal["muon", "adamw"]

# role -> (names, optimizer). Every parameter matches exactly one row.
_BLOCK = r"(layers\.\d+|nextn\.\d+\.block)\."
_ATTENTION = _BLOCK + r"attention\.(q|q_a|q_b|kv_a|kv_b|k|v|o)\.weight"
_FFN = _BLOCK + r"ffn\.(shared\.)?(gate|up|down)\.weight"
_EXPERTS = _BLOCK + r"ffn\.experts\.(gate|up|down)"
_ROUTER = _BLOCK + r"ffn\.router\.weight"
_PROJECTION = r"nextn\.\d+\.project\.weight"
_NORMS = (
    rf"({_BLOCK}(attention\.\w+_norm|attention_norm|ffn_norm)"
    r"|(nextn\.\d+\.((embed|hidden)_)?)?norm)\.weight"
)
_BIASES = _BLOCK + r"(attention|ffn)\.([a-z_]+\.)+bias"
# AdamW: what acts is the product B A, and orthogonal steps of its factors are no orthogonal step of
# it. B begins at zero, where Muon would move all directions alike, whatever the gradient's size.
# The learning rates that are known for LoRA are Adam's too.
_LORA = r"(head|layers\.\d+\.(attention|ffn)\.[a-z_.]+)\.lora\.((gate|up|down)\.)?[AB]"
ROLES: dict[str, tuple[str, Kind]] = {
    "attention": (_ATTENTION, "muon"),
    "ffn": (_FFN, "muon"),
    "experts": (_EXPERTS, "muon"),
    "router": (_ROUTER, "muon"),
    "nextn projection": (_PROJECTION, "muon"),
    "embedding": (r"embed\.weight", "adamw"),
    "head": (r"head\.weight", "adamw"),
    "norms": (_NORMS, "adamw"),
    "biases": (_BIASES, "adamw"),
    "lora": (_LORA, "adamw"),
}


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters with one role and one update rule."""

    role: str
    kind: Kind
    names: tuple[str, ...]
    params: tuple[nn.Parameter, ...]
    num_matrices: int  # that Newton-Schulz sees in a step; 0 for AdamW

    @property
    def num_elements(self) -> int:
        return sum(param.numel() for param in self.params)


def group_parameters(
    model: nn.Module,
    *,
    matrices: Kind = "muon",
    router: Kind = "muon",
    row_blocks: dict[Tensor, RowBlocks] | None = None,
) -> list[ParameterGroup]:
    """Sorts the trainable parameters of ``model`` into groups by role, none of them empty.

    ``matrices`` is the optimizer of all matrices (``"adamw"`` for the baseline run) and ``router``
    that of the routers. ``row_blocks`` serves to count matrices. Raises ``ConfigError`` that names
    a parameter whose name or shape the table does not know.
    """
    members: dict[str, list[tuple[str, nn.Parameter]]] = {role: [] for role in ROLES}
    for name, param in model.named_parameters():
        if param.requires_grad:
            members[_role(name, param)].append((name, param))
    groups = []
    for role, named in members.items():
        if not named:
            continue
        kind = ROLES[role][1]
        if kind == "muon":
            kind = "adamw" if matrices == "adamw" else router if role == "router" else "muon"
        names, params = zip(*named, strict=True)
        num_matrices = 0
        if kind == "muon":
            num_matrices = sum(_num_matrices(param, row_blocks or {}) for param in params)
        groups.append(ParameterGroup(role, kind, names, params, num_matrices))
    return groups


def _role(name: str, param: Tensor) -> str:
    roles = [role for role, (pattern, _) in ROLES.items() if re.fullmatch(pattern, name)]
    if not roles:
        raise ConfigError(
            f"parameter {name!r} of shape {tuple(param.shape)} is in no optimizer group; name it "
            "as docs/architecture.md has it, or add its role to selenite/optim/groups.py"
        )
    assert len(roles) == 1, (name, roles)
    stacked = 3 if ".experts." in name else 2
    dims = {"norms": 1, "biases": 1}.get(roles[0], stacked)
    if param.ndim != dims:
        raise ConfigError(
            f"parameter {name!r} has shape {tuple(param.shape)}: the role {roles[0]!r} "
            f"needs {dims} dimension(s)"
        )
    return roles[0]


def _num_matrices(param: Tensor, row_blocks: dict[Tensor, RowBlocks]) -> int:
    blocks = row_blocks.get(param, RowBlocks(1, (param.shape[-2],)))
    return math.prod(param.shape[:-2]) * blocks.repeats * len(blocks.sizes)


def attention_row_blocks(
    model: nn.Module, config: ModelConfig, *, per_head: bool, split_kv_a: bool
) -> dict[Tensor, RowBlocks]:
    """The blocks of rows in which attention weights are orthogonalised.

    ``per_head`` divides the projections to heads by head (MLA: ``kv_b`` also into its key and
    value rows); ``split_kv_a`` divides ``kv_a`` into its latent and its rotary rows. The output
    projection, whose heads are columns, stays whole.
    """
    by_name: dict[str, RowBlocks] = {}
    if config.attention == "mla":
        if per_head:
            by_name["q"] = by_name["q_b"] = RowBlocks(config.num_heads, (config.qk_dim,))
            kv_rows = (config.qk_nope_head_dim, config.v_head_dim)
            by_name["kv_b"] = RowBlocks(config.num_heads, kv_rows)
        if split_kv_a:
            by_name["kv_a"] = RowBlocks(1, (config.kv_lora_rank, config.qk_rope_head_dim))
    elif per_head:
        by_name["q"] = RowBlocks(config.num_heads, (config.qk_dim,))
        by_name["k"] = by_name["v"] = RowBlocks(config.kv_heads, (config.qk_dim,))
    blocks: dict[Tensor, RowBlocks] = {}
    for name, param in model.named_parameters():
        if re.fullmatch(_ATTENTION, name) and name.split(".")[-2] in by_name:
            blocks[param] = by_name[name.split(".")[-2]]
    return blocks


def group_table(groups: list[ParameterGroup]) -> Table:
    """The groups as a table: role, optimizer, tensors, matrices, parameters."""
    table = Table("parameters", "optimizer", title="Optimizer groups")
    for heading in ("tensors", "matrices", "elements"):
        table.add_column(heading, justify="right")
    for group in groups:
        counts = (len(group.params), group.num_matrices, group.num_elements)
        kind = {"muon": "Muon", "adamw": "AdamW"}[group.kind]
        table.add_row(group.role, kind, *(f"{count:,}" for count in counts))
    return table


def describe(groups: list[ParameterGroup]) -> str:
    """``group_table`` as plain text, for logs."""
    console = Console(width=100, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(group_table(groups))
    return capture.get()
