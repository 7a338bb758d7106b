"""GGUF files that the format's own library writes: values, names, vocabulary, damage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from selenite.chat.gguf_vocabulary import tokenizer_from_gguf
from selenite.errors import CheckpointError, TokenizerError
from selenite.model.config import ModelConfig
from selenite.model.gguf import GGUFWeights
from selenite.model.hf_adapter import check_account, to_hf_tensors
from tests.fixtures.tiny import llama_config, tiny_model

QUANTISED = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"]
TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "a", "b", "1", "2", "Ġ", "ab", "Ġa", "12"]


def names() -> dict[str, str]:
    """Hugging Face's name to GGUF's, from the library's own table."""
    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    model = tiny_model(llama_config())
    return {
        name: f"{table.get_name(name.removesuffix('.weight'))}.weight"
        for name, _ in to_hf_tensors(model)
    }


def write(
    file: Path, config: ModelConfig, kind: str = "F32", **changes: Any
) -> dict[str, np.ndarray]:
    """A tiny Llama as llama.cpp's converter lays it out; returns its tensors, dequantised."""
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_block_count(config.num_layers)
    writer.add_context_length(config.max_positions)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.ffn_hidden_size)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_rope_dimension_count(config.qk_dim)
    writer.add_vocab_size(config.vocab_size)
    vocabulary = {
        "model": "gpt2", "pre": "smollm", "tokens": TOKENS + [f"t{i}" for i in range(11, 96)],
        "merges": ["a b", "Ġ a", "1 2"],
    } | changes  # fmt: skip
    writer.add_tokenizer_model(vocabulary["model"])
    writer.add_tokenizer_pre(vocabulary["pre"])
    writer.add_token_list(vocabulary["tokens"])
    writer.add_token_types([3, 3, 3] + [1] * (len(vocabulary["tokens"]) - 3))
    writer.add_token_merges(vocabulary["merges"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template("{{ messages[0].content }}")
    written: dict[str, np.ndarray] = {}
    table = names()
    for name, tensor in to_hf_tensors(tiny_model(config)):
        values = tensor.numpy()
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            heads = config.num_heads if "q_proj" in name else config.kv_heads
            halves = values.reshape(heads, 2, len(values) // heads // 2, -1)
            values = halves.swapaxes(1, 2).reshape(values.shape)
        is_vector = tensor.dim() == 1
        target = gguf.GGMLQuantizationType["F32" if is_vector else kind]
        data = gguf.quantize(np.ascontiguousarray(values), target)
        writer.add_tensor(table[name], data, raw_dtype=target)
        written[table[name]] = gguf.dequantize(data, target).reshape(values.shape)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return written


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", *QUANTISED])
def test_values_are_those_of_the_formats_own_library(tmp_path: Path, kind: str) -> None:
    config = llama_config()
    written = write(tmp_path / "m.gguf", config, kind)
    weights = GGUFWeights(tmp_path / "m.gguf")
    check_account(weights.config, weights, "m.gguf")
    for name, theirs in names().items():
        if "q_proj" in name or "k_proj" in name:
            continue  # their rows are put into another order: below
        assert np.array_equal(weights.read(name).numpy(), written[theirs]), name


def test_dimensions_and_every_tensor_come_back(tmp_path: Path) -> None:
    config = llama_config()
    write(tmp_path / "m.gguf", config)
    weights = GGUFWeights(tmp_path / "m.gguf")
    same = ("init_std", "rope_interleaved")  # which GGUF does not say
    assert weights.config.model_dump(exclude=set(same)) == config.model_dump(exclude=set(same)) | {
        "head_dim": weights.config.head_dim
    }
    assert weights.config.qk_dim == config.qk_dim
    for name, tensor in to_hf_tensors(tiny_model(config)):
        assert torch.equal(weights.read(name), tensor), name


def test_transformers_reads_the_same_from_the_file(tmp_path: Path) -> None:
    write(tmp_path / "m.gguf", llama_config(), "Q4_1")
    theirs = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="m.gguf", dtype=torch.float32
    ).state_dict()
    weights = GGUFWeights(tmp_path / "m.gguf")
    for name in weights.names():
        assert torch.equal(weights.read(name), theirs[name]), name


def test_a_tied_head(tmp_path: Path) -> None:
    write(tmp_path / "m.gguf", llama_config(tie_embeddings=True))
    weights = GGUFWeights(tmp_path / "m.gguf")
    assert weights.config.tie_embeddings
    check_account(weights.config, weights, "m.gguf")


def test_the_vocabulary(tmp_path: Path) -> None:
    write(tmp_path / "m.gguf", llama_config())
    tokenizer = tokenizer_from_gguf(GGUFWeights(tmp_path / "m.gguf").metadata, "m.gguf")
    assert tokenizer.encode("ab a") == [8, 9]
    assert tokenizer.encode("12") == [5, 6], "digits are cut apart before merging"
    assert tokenizer.encode("<|im_end|>", allow_special=True) == [2]
    assert tokenizer.decode([8, 9, 5]) == "ab a1"
    assert (tokenizer.bos_id, tokenizer.eos_id) == (1, 2)
    assert tokenizer.chat_template == "{{ messages[0].content }}"


def test_an_unknown_way_of_cutting_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "m.gguf", llama_config(), pre="llama-bpe")
    with pytest.raises(TokenizerError, match="cut by 'llama-bpe'"):
        tokenizer_from_gguf(GGUFWeights(tmp_path / "m.gguf").metadata, "m.gguf")


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.02, 0.5, 0.99])
def test_a_file_that_was_cut_short(tmp_path: Path, kept: float) -> None:
    file = tmp_path / "m.gguf"
    write(file, llama_config())
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(CheckpointError, match=r"m\.gguf"):
        GGUFWeights(file)


def test_files_that_are_something_else(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(b"PK\x03\x04" * 100)
    with pytest.raises(CheckpointError, match="is not a GGUF file"):
        GGUFWeights(file)
    writer = gguf.GGUFWriter(file, "bert")
    writer.add_block_count(1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(CheckpointError, match=r"general\.architecture='bert'"):
        GGUFWeights(file)
    with pytest.raises(CheckpointError, match="cannot be read"):
        GGUFWeights(tmp_path / "nothing.gguf")


def test_a_type_that_is_not_read_is_named(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    write(file, llama_config())
    data = bytearray(file.read_bytes())
    at = data.index(b"token_embd.weight") + len(b"token_embd.weight") + 4 + 2 * 8
    data[at : at + 4] = (12).to_bytes(4, "little")  # Q4_K
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"token_embd\.weight has ggml type 12"):
        GGUFWeights(file)
