"""``selenite generate`` as a process, and ``LLM``, on a tiny model that was exported."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from selenite import LLM, SamplingParams
from selenite.chat.tokenizer import Tokenizer
from selenite.cli.main import main
from selenite.errors import CheckpointError, ConfigError, TokenizerError
from selenite.model.hf_adapter import load_pretrained, save_pretrained
from selenite.model.init import init_weights
from selenite.model.lora import LoRAConfig, adapters, add_lora, merge_lora
from selenite.model.lora_files import save_lora
from selenite.model.transformer import Transformer
from selenite.types import FinishReason
from tests.fixtures.tiny import k2_config

TEXTS = ["def add(a, b): return a + b", "import os", "The end of the story"] * 20
GREEDY = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model and a tokenizer, as a training run leaves them."""
    folder = tmp_path_factory.mktemp("exported")
    tokenizer = Tokenizer.train(TEXTS, vocab_size=320)
    model = init_weights(Transformer(k2_config(vocab_size=320, max_positions=64)), seed=0)
    save_pretrained(
        model,
        folder,
        tokenizer.bos_id,
        tokenizer.eos_id,
        tokenizer_sha256=tokenizer.fingerprint(),
    )
    tokenizer.save(folder)
    return folder


@pytest.fixture
def copied(exported: Path, tmp_path: Path) -> Path:
    """One that a test may damage."""
    return Path(shutil.copytree(exported, tmp_path / "model"))


@pytest.fixture(scope="session")
def llm(exported: Path) -> LLM:
    return LLM(exported, dtype="float32")


@dataclass(frozen=True)
class Ran:
    """How a call of the command ended."""

    code: int
    stdout: str
    stderr: str


def in_a_process(folder: Path, *options: str) -> Ran:
    ran = subprocess.run(
        [sys.executable, "-m", "selenite", "generate", str(folder), *options],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return Ran(ran.returncode, ran.stdout, ran.stderr)


@pytest.fixture
def generate(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """The command within this process, where torch is imported already."""

    def run(folder: Path, *options: str) -> Ran:
        with pytest.raises(SystemExit) as exit_:
            main(["generate", str(folder), *options])
        captured = capsys.readouterr()
        assert isinstance(exit_.value.code, int)
        return Ran(exit_.value.code, captured.out, captured.err)

    return run


def assert_one_line(ran: Ran, code: int, *words: str) -> None:
    assert ran.code == code, ran.stderr
    lines = ran.stderr.strip().splitlines()
    assert len(lines) == 1, ran.stderr
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0]


# --- the command


def test_it_writes_what_the_library_writes(exported: Path, llm: LLM) -> None:
    options = ("--dtype", "float32", "--max-tokens", "6", "--seed", "3")
    ran = in_a_process(exported, *options, "--prompt", "def ", "--prompt", "import ")
    assert ran.code == 0, ran.stderr
    params = SamplingParams(temperature=0.8, top_p=0.95, max_tokens=6, seed=3)
    for prompt, completion in zip(
        ("def ", "import "), llm.generate(["def ", "import "], params), strict=True
    ):
        assert prompt + completion.text in ran.stdout


def test_a_missing_directory(tmp_path: Path) -> None:
    ran = in_a_process(tmp_path / "nothing")
    assert_one_line(ran, CheckpointError.exit_code, str(tmp_path / "nothing"))


def test_a_tokenizer_with_more_tokens_than_the_model(
    copied: Path, generate: Callable[..., Ran]
) -> None:
    texts = [f"{number} {number * 7919}" for number in range(2000)]
    Tokenizer.train(texts, vocab_size=600).save(copied)
    assert_one_line(generate(copied), TokenizerError.exit_code, "600", "320")


def test_another_tokenizer_of_the_same_size(copied: Path, generate: Callable[..., Ran]) -> None:
    other = Tokenizer.train(["quite other text, of other words"] * 9, vocab_size=320)
    other.save(copied)
    assert_one_line(generate(copied), TokenizerError.exit_code, str(copied), "trained with")


def test_no_tokenizer(copied: Path, generate: Callable[..., Ran]) -> None:
    (copied / "tokenizer.json").unlink()
    assert_one_line(generate(copied), TokenizerError.exit_code, str(copied))


@pytest.mark.parametrize("kept", [4, 0.5, 0.999])
def test_truncated_weights(copied: Path, kept: float, generate: Callable[..., Ran]) -> None:
    weights = copied / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: int(kept if kept >= 1 else kept * len(content))])
    assert_one_line(generate(copied), CheckpointError.exit_code, "model.safetensors")


def test_a_config_of_other_dimensions(copied: Path, generate: Callable[..., Ran]) -> None:
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {"hidden_size": 128}))
    assert_one_line(generate(copied), CheckpointError.exit_code)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--dtype", "float8"), ("float8", "bfloat16", "float32")),
        (("--temperature", "-1"), ("temperature=-1", "must be 0")),
        (("--top-p", "0"), ("top_p=0",)),
        (("--max-tokens", "0"), ("max_tokens=0",)),
    ],
)
def test_bad_options(
    exported: Path, options: tuple[str, ...], words: tuple[str, ...], generate: Callable[..., Ran]
) -> None:
    assert_one_line(generate(exported, *options), ConfigError.exit_code, *words)


def test_a_prompt_longer_than_the_context(exported: Path, generate: Callable[..., Ran]) -> None:
    ran = generate(exported, "--prompt", "word " * 100)
    assert_one_line(ran, ConfigError.exit_code, "64")


def test_an_adapter_writes_what_the_merged_model_writes(
    copied: Path, exported: Path, tmp_path: Path, generate: Callable[..., Ran]
) -> None:
    model = add_lora(load_pretrained(exported), LoRAConfig(rank=4), seed=0)
    for adapter in adapters(model).values():
        adapter.B.data.normal_(0.0, 0.5)
    save_lora(model, tmp_path / "adapter")
    save_pretrained(merge_lora(model), copied)
    options = ("--dtype", "float32", "--max-tokens", "8", "--temperature", "0", "--prompt", "def ")
    merged = generate(copied, *options)
    found = generate(exported, *options, "--adapter", str(tmp_path / "adapter"))
    assert found == merged
    assert found != generate(exported, *options)
    ran = generate(exported, "--adapter", str(tmp_path))
    assert_one_line(ran, CheckpointError.exit_code, str(tmp_path), "adapter_config.json")


# --- the library


def test_the_same_seed_writes_the_same_text(llm: LLM) -> None:
    def write(seed: int) -> list[int]:
        params = SamplingParams(temperature=1.0, max_tokens=12, seed=seed, ignore_eos=True)
        return llm.generate("def ", params)[0].token_ids

    assert write(1) == write(1)
    assert len({tuple(write(seed)) for seed in range(4)}) > 1


def test_text_ids_and_lists_of_either_are_the_same_prompt(llm: LLM) -> None:
    ids = [llm.tokenizer.bos_id, *llm.tokenizer.encode("def add")]
    (of_text,) = llm.generate("def add", GREEDY)
    (of_ids,) = llm.generate(ids, GREEDY)
    of_mixed = llm.generate(["def add", ids], GREEDY)
    assert of_text.prompt_token_ids == ids
    assert len(of_text.token_ids) == 6
    assert of_text.finish_reason is FinishReason.LENGTH
    assert [c.token_ids for c in (of_ids, *of_mixed)] == [of_text.token_ids] * 3


def test_parameters_of_each_prompt(llm: LLM) -> None:
    params = [SamplingParams(max_tokens=n, ignore_eos=True) for n in (2, 5)]
    assert [len(c.token_ids) for c in llm.generate(["a", "b"], params)] == [2, 5]
    with pytest.raises(ConfigError, match="2 sampling parameters for 1 prompts"):
        llm.generate("a", params)


def test_no_prompt_is_no_completion(llm: LLM) -> None:
    assert llm.generate([]) == []


def test_prompts_that_the_model_cannot_take(llm: LLM) -> None:
    with pytest.raises(ConfigError, match="64"):
        llm.generate([5] * 64, GREEDY)
    with pytest.raises(ConfigError, match="token id 320"):
        llm.generate([5, 320], GREEDY)


def test_memory_that_runs_out_is_reported_with_what_it_was_for(exported: Path) -> None:
    """In a process of its own, whose address space may grow by 200 MiB once the model is loaded."""
    program = (
        "import re, resource, sys\n"
        "from selenite import LLM, SamplingParams\n"
        "from selenite.errors import OutOfMemoryError\n"
        "llm = LLM(sys.argv[1], dtype='float32')\n"
        "pages = int(open('/proc/self/statm').read().split()[0])\n"
        "limit = pages * resource.getpagesize() + 200 * 2**20\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "try:\n"
        "    llm.generate([[1]] * 100_000, SamplingParams(max_tokens=60))\n"
        "except OutOfMemoryError as error:\n"
        "    print(error)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, str(exported)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert "the weights take" in run.stdout
    assert "100000 prompts x 61 tokens" in run.stdout
    assert "lower max_tokens" in run.stdout
