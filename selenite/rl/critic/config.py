"""Which critic a run has."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from selenite.config import Config
from selenite.rl.critic.rubrics import CORE, Rubric


class CriticConfig(Config):
    """Gives the rewards of environments that are ``judged``."""

    kind: Literal["self", "model", "endpoint", "python"] = "self"
    """Who: the model that acts, by the weights that it acts with; another one, which stays as it
    is; a server of OpenAI's form; or a function."""
    rubrics: tuple[Rubric, ...] = get_args(Rubric)  # what it is told that counts
    path: Path | None = None  # ``model``: its directory; none: that which the run begins with
    base_url: str | None = None  # ``endpoint``
    model: str | None = None  # ``endpoint``: its name there
    factory: str | None = Field(default=None, pattern=r"^[\w.]+:\w+$")
    """``python``: "package.module:function" of what was told and two attempts; it returns the
    probability that the first is better."""
    learns: bool = False
    """``self``: it learns in each step from attempts of which code knows the better one."""
    share: float = Field(default=0.1, gt=0)
    """The norm of that gradient, where it is first there, relative to that of the rollouts."""
    removes_length: bool = True
    """Where longer attempts win or lose significantly more, that is taken from the rewards."""

    @property
    def sentences(self) -> list[str]:
        """The rubrics, as a critic is told them."""
        return [CORE[name] for name in self.rubrics]

    @model_validator(mode="after")
    def _check(self) -> Self:
        needed = {"endpoint": ("base_url", "model"), "python": ("factory",)}.get(self.kind, ())
        for name in needed:
            if getattr(self, name) is None:
                raise ValueError(f"critic.{name}: critic.kind={self.kind} needs it; give it")
        if self.learns and self.kind != "self":
            raise ValueError(
                f"critic.learns: a critic of kind {self.kind} is not trained; take kind self"
            )
        return self
