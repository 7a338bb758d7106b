"""A model directory made ready for serving: weights, tokenizer, profile, sizes, and why each."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from selenite import runtime
from selenite.chat.profile import PROFILES, ChatProfile, detect_profile
from selenite.chat.template_check import check_template
from selenite.chat.tokenizer import Tokenizer
from selenite.errors import ConfigError, TokenizerError
from selenite.model.accounting import count_parameters
from selenite.model.config import ModelConfig
from selenite.model.hf_adapter import load_pretrained, read_config
from selenite.model.pack import pack_weights, packed_bytes
from selenite.model.transformer import Transformer
from selenite.ops import native
from selenite.serve import grammar_process
from selenite.serve.attention_mode import Reading, reading_of, stored_layers
from selenite.serve.config import ServeConfig
from selenite.serve.engine.engine import EngineConfig
from selenite.serve.engine.plan import plan_engine
from selenite.types import Decision


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

    Raises ``CheckpointError`` and ``TokenizerError`` for a directory that is no model,
    ``ConfigError`` for settings that contradict it, and ``OutOfMemoryError`` before anything is
    loaded that does not fit.
    """
    if config.batch_invariant:
        runtime.enable_batch_invariant()
    runtime.apply_threads()
    device = runtime.choose_device()
    dtype = runtime.choose_dtype(config.dtype, device.value)
    model_config = read_config(config.model)
    tidal_layers = stored_layers(config.model, model_config)
    reading = reading_of(
        *(config.attention, model_config, config.page_size, config.layout),
        tidal_layers=tidal_layers,
    )
    tokenizer = Tokenizer.load(config.model)
    profile, why = _profile(config.profile, tokenizer)
    if tokenizer.vocab_size > model_config.vocab_size:
        raise TokenizerError(
            f"{config.model}: the tokenizer has {tokenizer.vocab_size} tokens but the model only "
            f"{model_config.vocab_size}; use the tokenizer it was trained with"
        )
    to_int8 = config.quantization == "int8"
    plan = plan_engine(
        model_config,
        runtime.torch_dtype(dtype.value).itemsize,
        config.layout,
        runtime.available_memory(),
        max_step_tokens=config.max_step_tokens,
        max_running=config.max_running,
        page_size=config.page_size,
        cache_tokens=config.cache_tokens,
        weights=_weight_bytes(model_config, runtime.torch_dtype(dtype.value), to_int8),
        beside=grammar_process.RESIDENT_BYTES,
    )
    model = load_pretrained(config.model)
    model.to(device.value)
    model.cast(runtime.torch_dtype(dtype.value))
    pack_weights(model, to_int8)
    engine = EngineConfig(
        num_pages=plan.cache_tokens // config.page_size,
        page_size=config.page_size,
        max_step_tokens=config.max_step_tokens,
        max_running=config.max_running,
        layout=config.layout,
        attention=config.attention,
        tidal_layers=tidal_layers,
    )
    count = count_parameters(model_config)
    decisions = {
        "model": Decision(config.name, f"{count.total:,} parameters, {count.active:,} active"),
        "device": device,
        "dtype": dtype,
        "weights": _weights(plan.weights, to_int8),
        "kernels": _kernels(dtype.value),
        "profile": Decision(profile.name, why),
        "conversations": _conversations(tokenizer, profile),
        "attention": _attention(config, reading),
        "cache": Decision(f"{plan.cache_tokens:,} tokens, {config.layout}", plan.reason),
    }
    return LoadedModel(config.name, model, tokenizer, profile, engine, decisions)


def _weight_bytes(model: ModelConfig, dtype: torch.dtype, to_int8: bool) -> int:
    """Of the weights as they are served; nothing is allocated."""
    with torch.device("meta"):
        return packed_bytes(pack_weights(Transformer(model).cast(dtype), to_int8))


def _weights(num_bytes: int, is_int8: bool) -> Decision:
    size = runtime.mebibytes(num_bytes)
    if not is_int8:
        return Decision(size, "in the dtype")
    kept = "embedding, experts and latents' expansion stay in the dtype"
    return Decision(f"{size}, int8", f"requested; {kept}")


def _profile(name: str | None, tokenizer: Tokenizer) -> tuple[ChatProfile, str]:
    if name is None:
        return detect_profile(tokenizer)
    if name not in PROFILES:
        raise ConfigError(f"--tool-call-profile {name}: must be one of {', '.join(PROFILES)}")
    profile = PROFILES[name]
    profile.check_vocabulary(tokenizer)
    return profile, "requested"


def _conversations(tokenizer: Tokenizer, profile: ChatProfile) -> Decision:
    """Whether a further turn keeps the tokens of the past, under the model's template."""
    try:
        findings = check_template(tokenizer, profile)
    except TokenizerError as error:
        return Decision("none", str(error))
    if findings:
        return Decision("encoded anew where the template asks for it", "; ".join(findings))
    return Decision("only grow", "each kind of turn was tried on the template")


def _attention(config: ServeConfig, reading: Reading) -> Decision:
    reason = "the model's own" if config.attention is None else "requested"
    routing, selection = reading.routing, reading.selection
    if routing is not None:
        return Decision(f"{routing.top_k} blocks of {routing.block_size} keys", reason)
    if selection is not None:
        layers = ", ".join(map(str, selection.layers))
        chosen = f"{selection.budget} tokens, chosen in layers {layers}, when decoding"
        return Decision(chosen, reason)
    if reading.compression is not None:
        return Decision(f"slots merged to {reading.compression.mode.budget} of a prompt", reason)
    return Decision("full", reason)


def _kernels(dtype: str) -> Decision:
    """Whether our own kernels compute, which is most of the speed on a CPU."""
    found = native.availability()
    if not found.value:
        return Decision("torch's", found.reason)
    if runtime.is_batch_invariant():
        return Decision("torch's", "batch-invariant mode")
    return Decision("our own", f"{found.reason}; {dtype}")
