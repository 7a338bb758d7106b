"""Who rewrites and who judges, as the config names them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from selenite.agent.models.mixture import Mixture
from selenite.agent.rephrasing.config import ModelConfig, RephrasingConfig, RulesBackend
from selenite.agent.rephrasing.passage import Rephraser
from selenite.agent.rephrasing.rules.rewriter import Rules
from selenite.clock import Clock

if TYPE_CHECKING:
    from selenite.agent.models.ledger import Ledger
    from selenite.agent.models.model import Model
    from selenite.agent.rephrasing.judge import Judge

LEDGER = "ledger.jsonl"
_CACHE = "cache"


@dataclass(frozen=True)
class Backends:
    """For any number of threads; those without a model may go to other processes, too."""

    rephrasers: Mixture[Rephraser]
    judge: Judge | None = None


@contextmanager
def open_backends(config: RephrasingConfig, clock: Clock) -> Iterator[Backends]:
    """The back ends of a config, until the block ends.

    Raises ``ConfigError`` for an endpoint that cannot be one, ``StorageError`` where ledger or
    cache cannot be written, ``MissingExtraError`` for a model without the extra ``agent``.
    """
    if not config.uses_models:
        yield Backends(Mixture([(1.0, Rules())], config.seed, "rephraser"))
        return
    from selenite.agent.models.ledger import Ledger
    from selenite.agent.rephrasing.by_model import ModelRephraser
    from selenite.agent.rephrasing.judge import Judge

    with ExitStack() as stack:
        ledger = Ledger(config.out_dir / LEDGER)
        stack.callback(ledger.close)

        def opened(one: ModelConfig, role: str, folder: str) -> Model:
            cache = config.out_dir / _CACHE / folder
            return stack.enter_context(_model(one, role, cache, ledger, clock))

        parts: list[tuple[float, Rephraser]] = []
        for place, one in enumerate(config.backends):
            if isinstance(one, RulesBackend):
                parts.append((one.weight, Rules()))
            else:
                model = opened(one, "rephraser", str(place))
                parts.append((one.weight, ModelRephraser(model, one.temperature, one.max_tokens)))
        judge = None
        if config.judge is not None:
            model = opened(config.judge, "judge", "judge")
            judge = Judge(model, config.judge.temperature, config.judge.max_tokens)
        yield Backends(Mixture(parts, config.seed, "rephraser"), judge)


def _model(one: ModelConfig, role: str, cache: Path, ledger: Ledger, clock: Clock) -> Model:
    from selenite.agent.models.cache import Cache
    from selenite.agent.models.model import Model
    from selenite.agent.models.rate import RateLimiter

    return Model(
        one.endpoint(),
        role,
        cache=Cache(cache),
        ledger=ledger,
        limiter=RateLimiter(one.limits(processes=1), clock),
        retry=one.retry(),
        clock=clock,
    )
