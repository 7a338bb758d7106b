"""Which environments a run has: one table each."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Discriminator, Field, field_validator

from selenite.agent.tasks.author import RECIPES
from selenite.agent.tasks.task import TaskClass
from selenite.config import Config
from selenite.errors import ConfigError
from selenite.rl.gym.code.environment import Functions
from selenite.rl.gym.environment import Budget, Environment
from selenite.rl.gym.factory import from_python
from selenite.rl.gym.faithfulness.environment import Faithfulness
from selenite.rl.gym.house.environment import HouseKeeping
from selenite.rl.gym.instructions import Instructions
from selenite.rl.gym.logic.puzzles import KINDS, logic_questions
from selenite.rl.gym.math_problems import math_questions
from selenite.rl.gym.mcp.job import SERVERS, ServerName
from selenite.rl.gym.repositories.environment import Repositories
from selenite.rl.gym.safety.environment import Safety
from selenite.rl.gym.verifiers.environment import Verifiers
from selenite.rl.gym.worlds import Worlds

Puzzle = Literal["countdown", "cryptarithm", "knights", "morse", "sudoku", "tables"]
_PUZZLES: tuple[Puzzle, ...] = get_args(Puzzle)
assert set(_PUZZLES) == set(KINDS), "each puzzle has its name"


class _Part(Config):
    weight: float = Field(default=1.0, gt=0)  # share of the groups, relative to the others
    seed: int = Field(default=0, ge=0)  # of the tasks
    tokens: int = Field(default=256, ge=1)  # that an attempt may write
    judged: bool = False
    """Its rewards are what a critic says; its own scores are only told."""


class MathPart(_Part):
    """Mathematics with exact answers."""

    kind: Literal["math"] = "math"
    level: Literal[1, 2, 3] = 1

    def open(self) -> Environment:
        """The environment."""
        return math_questions(self.level, self.seed, self.tokens)


class LogicPart(_Part):
    """Puzzles."""

    kind: Literal["logic"] = "logic"
    level: Literal[1, 2, 3] = 1
    puzzles: tuple[Puzzle, ...] = Field(default=_PUZZLES, min_length=1)

    def open(self) -> Environment:
        """The environment."""
        return logic_questions(self.level, self.seed, self.puzzles, self.tokens)


class InstructionsPart(_Part):
    """Texts under rules that code checks."""

    kind: Literal["instructions"] = "instructions"
    level: Literal[1, 2, 3] = 1  # rules of a task

    def open(self) -> Environment:
        """The environment."""
        return Instructions(self.level, self.seed, self.tokens)


class WorldsPart(_Part):
    """Tool worlds. Held-out tasks are of domains and categories that training never has."""

    kind: Literal["worlds"] = "worlds"
    seed: int = 7  # of the domains: that of the corpus a model was taught from
    domains: int = Field(default=120, ge=1)  # that are tried, the first ones
    classes: tuple[TaskClass, ...] = Field(default=tuple(RECIPES), min_length=1)
    states: int = Field(default=0, ge=0)  # as in the corpus
    unused_tools: int | None = Field(default=None, ge=0)
    """The most tools that a task has beside those that it is about; none: all of its own."""
    tokens: int = Field(default=512, ge=1)
    turns: int = Field(default=16, ge=1)

    def open(self) -> Environment:
        """The environment; tries the domains, which takes a while."""
        budget = Budget(self.tokens, self.turns)
        return Worlds(self.seed, self.domains, self.classes, self.states, self.unused_tools, budget)


class CodePart(_Part):
    """Python functions that hidden tests judge in a sandbox."""

    kind: Literal["code"] = "code"
    level: Literal[1, 2, 3] = 1
    tokens: int = Field(default=512, ge=1)

    def open(self) -> Environment:
        """The environment. Raises ``ConfigError`` where this machine has no sandbox."""
        return Functions(self.level, self.seed, self.tokens)


class RepositoriesPart(_Part):
    """Small repositories with mistakes. Held-out tasks are of libraries that training never has."""

    kind: Literal["repositories"] = "repositories"
    level: Literal[1, 2, 3] = 1
    tokens: int = Field(default=1024, ge=1)
    turns: int = Field(default=16, ge=1)

    def open(self) -> Environment:
        """The environment. Raises ``ConfigError`` where this machine has no sandbox."""
        return Repositories(self.level, self.seed, Budget(self.tokens, self.turns))


class HousePart(_Part):
    """A house with devices and temperatures. Held-out tasks are about other places in it."""

    kind: Literal["house"] = "house"
    level: Literal[1, 2, 3] = 1
    tokens: int = Field(default=160, ge=1)

    def open(self) -> Environment:
        """The environment."""
        return HouseKeeping(self.level, self.seed, self.tokens)


class FaithfulnessPart(_Part):
    """Answers from a text, looked at sentence by sentence."""

    kind: Literal["faithfulness"] = "faithfulness"
    level: Literal[1, 2, 3] = 1

    def open(self) -> Environment:
        """The environment."""
        return Faithfulness(self.level, self.seed, self.tokens)


class SafetyPart(_Part):
    """Requests that a policy forbids, and twins of them that it allows."""

    kind: Literal["safety"] = "safety"
    level: Literal[1, 2, 3] = 1  # of what the requests are wrapped in

    def open(self) -> Environment:
        """The environment."""
        return Safety(self.level, self.seed, self.tokens)


class McpPart(_Part):
    """Work through the tools of real MCP servers."""

    kind: Literal["mcp"] = "mcp"
    servers: tuple[ServerName, ...] = Field(default=SERVERS, min_length=1)
    tokens: int = Field(default=1024, ge=1)
    turns: int = Field(default=16, ge=1)

    def open(self) -> Environment:
        """The environment; installs servers that are not there yet. Raises ``UnsupportedError``
        where that is not possible."""
        from selenite.rl.gym.mcp.environment import Mcp  # its SDK belongs to an extra

        return Mcp(self.servers, self.seed, Budget(self.tokens, self.turns))


class PythonPart(_Part):
    """An environment of your own: what a Python function returns."""

    kind: Literal["python"] = "python"
    factory: str = Field(pattern=r"^[\w.]+:\w+$")  # "package.module:function"
    settings: dict[str, Any] = Field(default_factory=dict)  # its keyword arguments

    def open(self) -> Environment:
        """The environment. Raises ``ConfigError`` where there is none."""
        make = from_python("environments.factory", self.factory)
        environment = make(**self.settings)
        lacking = [part for part in ("name", "budget", "begin") if not hasattr(environment, part)]
        if lacking:
            raise ConfigError(
                f"environments.factory={self.factory}: what it returns has no {lacking[0]!r}; see "
                "rl/gym/environment.py"
            )
        found: Environment = environment
        return found


class VerifiersPart(_Part):
    """An environment of PrimeIntellect's ``verifiers``, in the interpreter that has it."""

    kind: Literal["verifiers"] = "verifiers"
    python: str = Field(min_length=1)  # the interpreter
    environment: str = Field(min_length=1)  # as verifiers.load_environment takes it
    arguments: dict[str, Any] = Field(default_factory=dict)  # its keyword arguments
    rewards: tuple[float, float] = (0.0, 1.0)  # the least and the most that its rubric gives
    turns: int = Field(default=16, ge=1)

    @field_validator("rewards")
    @classmethod
    def _in_order(cls, rewards: tuple[float, float]) -> tuple[float, float]:
        if not rewards[0] < rewards[1]:
            raise ValueError("the least must be below the most")
        return rewards

    def open(self) -> Environment:
        """The environment; starts its process. Raises ``ConfigError`` where it is not there."""
        budget = Budget(self.tokens, self.turns)
        return Verifiers(self.python, self.environment, self.arguments, self.rewards, budget)


EnvironmentPart = Annotated[
    MathPart
    | LogicPart
    | InstructionsPart
    | WorldsPart
    | CodePart
    | RepositoriesPart
    | HousePart
    | FaithfulnessPart
    | SafetyPart
    | McpPart
    | PythonPart
    | VerifiersPart,
    Discriminator("kind"),
]
