"""A model directory made ready for serving: weights, tokenizer, profile, sizes, and why each."""

from __future__ import annotations

from dataclasses import dataclass

from selenite import runtime
from selenite.chat.profile import PROFILES, ChatProfile, detect_profile
from selenite.chat.tokenizer import Tokenizer
from selenite.errors import ConfigError, TokenizerError
from selenite.model.accounting import cache_bytes_per_token, count_parameters
from selenite.model.config import ModelConfig
from selenite.model.hf_adapter import load_pretrained
from selenite.model.transformer import Transformer
from selenite.runtime import Decision
from selenite.serve.config import ServeConfig
from selenite.serve.engine.engine import EngineConfig

_CACHE_BYTES = 2 * 2**30
"""Of the cache where no size is asked for, at most."""


@dataclass(frozen=True)
class LoadedModel:
    """What a ``Service`` is built from."""

    name: str
    model: Transformer
    tokenizer: Tokenizer
    profile: ChatProfile
    engine: EngineConfig
    decisions: dict[str, Decision]  # what was chosen, for people


def load_model(config: ServeConfig) -> LoadedModel:
    """Reads the model and plans the engine.

    Raises ``CheckpointError`` and ``TokenizerError`` for a directory that is no model, and
    ``ConfigError`` for settings that contradict it.
    """
    if config.batch_invariant:
        runtime.enable_batch_invariant()
    runtime.apply_threads()
    device = runtime.choose_device()
    dtype = runtime.choose_dtype(config.dtype, device.value)
    tokenizer = Tokenizer.load(config.model)
    profile, why = _profile(config.profile, tokenizer)
    model = load_pretrained(config.model)
    if tokenizer.vocab_size > model.config.vocab_size:
        raise TokenizerError(
            f"{config.model}: the tokenizer has {tokenizer.vocab_size} tokens but the model only "
            f"{model.config.vocab_size}; use the tokenizer it was trained with"
        )
    model.to(device.value)
    model.cast(runtime.torch_dtype(dtype.value))
    cache = plan_cache(config, model.config, model.compute_dtype.itemsize)
    engine = EngineConfig(
        num_pages=-(-int(cache.value) // config.page_size),
        page_size=config.page_size,
        max_step_tokens=config.max_step_tokens,
        max_running=config.max_running,
    )
    count = count_parameters(model.config)
    decisions = {
        "model": Decision(config.name, f"{count.total:,} parameters, {count.active:,} active"),
        "device": device,
        "dtype": dtype,
        "profile": Decision(profile.name, why),
        "cache tokens": cache,
    }
    return LoadedModel(config.name, model, tokenizer, profile, engine, decisions)


def plan_cache(config: ServeConfig, model: ModelConfig, bytes_per_value: int) -> Decision:
    """How many tokens the cache holds, and why."""
    if config.cache_tokens is not None:
        return Decision(str(config.cache_tokens), "requested")
    a_token = cache_bytes_per_token(model, "expanded", bytes_per_value)
    most = config.max_running * model.max_positions
    fit = _CACHE_BYTES // a_token
    if most <= fit:
        return Decision(str(most), f"{config.max_running} sequences of {model.max_positions}")
    return Decision(
        str(fit),
        f"{runtime.mebibytes(_CACHE_BYTES)} of {a_token:,} bytes each; --kv-cache-tokens for more",
    )


def _profile(name: str | None, tokenizer: Tokenizer) -> tuple[ChatProfile, str]:
    if name is None:
        return detect_profile(tokenizer)
    if name not in PROFILES:
        raise ConfigError(f"--tool-call-profile {name}: must be one of {', '.join(PROFILES)}")
    profile = PROFILES[name]
    profile.check_vocabulary(tokenizer)
    return profile, "requested"
