"""The critic of a run, from its config."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from selenite.agent.models.endpoint import Endpoint
from selenite.agent.models.model import Model
from selenite.chat.profile import ChatProfile, detect_profile
from selenite.chat.tokenizer import Tokenizer
from selenite.clock import Clock
from selenite.errors import ConfigError
from selenite.model.hf_adapter import check_tokenizer, load_pretrained
from selenite.rl.critic.config import CriticConfig
from selenite.rl.critic.critic import CodeCritic, Critic, EndpointCritic, ModelCritic
from selenite.rl.engines import RolloutEngine
from selenite.rl.gym.factory import from_python
from selenite.rl.weights.in_process import served_copy
from selenite.serve.engine.engine import Engine, EngineConfig
from selenite.serve.engine.loop import EngineThread

_PAGES = 512
_PAGE = 16  # tokens


def open_critic(
    config: CriticConfig,
    engines: Sequence[RolloutEngine],
    tokenizer: Tokenizer,
    profile: ChatProfile,
    init_from: Path,
    dtype: torch.dtype,
    clock: Clock,
    stack: ExitStack,
) -> Critic:
    """The critic; ``stack`` ends what it holds.

    Args:
        config: which one.
        engines: those that act.
        tokenizer: of the model that acts.
        profile: how it talks.
        init_from: the directory that the run begins with.
        dtype: of a model that is loaded.
        clock: of its engine, or of its endpoint.
        stack: what the run ends.

    Raises ``ConfigError`` without the function of ``factory``, and as loading a model does.
    """
    if config.kind == "self":
        return ModelCritic(engines, tokenizer, profile, config.sentences)
    if config.kind == "python":
        assert config.factory is not None
        function = from_python("critic.factory", config.factory)
        if not callable(function):
            raise ConfigError(f"critic.factory={config.factory}: not a function; give one")
        return CodeCritic(function)
    if config.kind == "endpoint":
        assert config.base_url is not None
        assert config.model is not None
        model = Model(Endpoint(config.base_url, config.model), "critic", clock=clock)
        stack.callback(model.close)
        return EndpointCritic(model, config.sentences)
    path = config.path or init_from
    known = Tokenizer.load(path)
    check_tokenizer(path, known)
    served = served_copy(load_pretrained(path, dtype), dtype)
    settings = EngineConfig(num_pages=_PAGES, page_size=_PAGE)
    thread = EngineThread(Engine(served, settings, clock=clock))
    thread.start()
    stack.callback(thread.stop)
    return ModelCritic([thread], known, detect_profile(known)[0], config.sentences)
