"""SmolLM2-135M-Instruct against transformers: the real model of everything that comes later."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from selenite import LLM, SamplingParams
from selenite.chat.template import encode_conversation
from selenite.chat.tokenizer import Tokenizer
from selenite.serve.engine.engine import Engine, EngineConfig
from selenite.serve.engine.request import Request
from selenite.types import Message
from tests.fixtures.smollm2 import smollm2

NEW_TOKENS = 16
MARGIN = 1e-3  # nats between the two best tokens, below which rounding may decide
SUBJECTS = (
    "the moon", "a fox", "rain", "prime numbers", "bread", "the sea", "chess", "a bicycle",
    "volcanoes", "tea", "Mars", "music", "a library", "bees", "sleep", "glass", "the year 1969",
    "rivers", "iron", "a clock", "memory", "winter", "ants", "gold", "light",
)  # fmt: skip
PROMPTS = [
    prompt
    for subject in SUBJECTS
    for prompt in (f"Tell me about {subject}.", f"def count_{subject.split()[-1]}(items):\n")
]


@pytest.fixture(scope="module")
def directory() -> Path:
    return smollm2()


def test_the_converted_directory_is_whole(directory: Path) -> None:
    names = {path.name for path in directory.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= names
    assert Tokenizer.load(directory).chat_template is not None


@pytest.mark.parametrize(
    "text",
    ["Hello, world!", "  def f(x):\n\treturn x**2 + 1234567", "naïve café — 日本語 🌒", "", " "],
)
def test_ids_are_those_of_transformers_on_the_same_directory(directory: Path, text: str) -> None:
    ours, theirs = Tokenizer.load(directory), AutoTokenizer.from_pretrained(directory)
    assert ours.encode(text) == theirs(text, add_special_tokens=False)["input_ids"]
    assert ours.decode(ours.encode(text)) == text


def test_digits_are_single_tokens_and_common_words_too(directory: Path) -> None:
    """What the model was trained with: the published vocabulary splits every digit."""
    tokenizer = Tokenizer.load(directory)
    assert len(tokenizer.encode("2048")) == 4
    assert len(tokenizer.encode(" the")) == 1
    assert tokenizer.special_id("<|im_start|>") == 1
    assert (tokenizer.bos_id, tokenizer.eos_id) == (1, 2)


def test_a_conversation_is_rendered_as_transformers_does(directory: Path) -> None:
    messages = [Message("user", "What is 2 + 2?")]
    theirs = AutoTokenizer.from_pretrained(directory).apply_chat_template(
        [{"role": "user", "content": "What is 2 + 2?"}], add_generation_prompt=True
    )
    ours = encode_conversation(Tokenizer.load(directory), messages, add_generation_prompt=True)
    assert ours == (theirs if isinstance(theirs, list) else theirs["input_ids"])


@pytest.mark.slow
@pytest.mark.parametrize("served", [False, True], ids=["decoder", "engine"])
def test_greedy_text_is_that_of_transformers(directory: Path, served: bool) -> None:
    """Token by token over 50 prompts in float32; where the two part, the choice was a toss-up."""
    assert len(PROMPTS) == 50
    llm = LLM(directory, dtype="float32")
    theirs = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    theirs.generation_config.eos_token_id = None  # nobody stops early
    greedy = SamplingParams(temperature=0, max_tokens=NEW_TOKENS, ignore_eos=True)
    ids = [llm.tokenizer.encode(prompt) for prompt in PROMPTS]
    if served:
        requests = [Request(str(i), tuple(prompt), greedy) for i, prompt in enumerate(ids)]
        Engine(llm.model, EngineConfig(num_pages=200)).generate(requests)
        texts = [[token.token_id for token in request.completion] for request in requests]
    else:
        texts = [completion.token_ids for completion in llm.generate(ids, greedy)]
    parted = 0
    for prompt, text in zip(ids, texts, strict=True):
        expected = theirs.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            pad_token_id=2,
        )[0, len(prompt) :].tolist()
        if text == expected:
            continue
        first = next(i for i, token in enumerate(expected) if token != text[i])
        with torch.no_grad():
            logits = theirs(torch.tensor([prompt + expected[:first]])).logits[0, -1]
        best = logits.log_softmax(-1).topk(2).values
        assert best[0] - best[1] < MARGIN, llm.tokenizer.decode(prompt)
        parted += 1
    print(f"{parted} of {len(PROMPTS)} part where the two best tokens are within {MARGIN}")
    assert parted <= 2


@pytest.mark.slow
def test_it_answers(directory: Path) -> None:
    """The real weights in the right places: a fact that 135 million parameters hold."""
    llm = LLM(directory, dtype="float32")
    question = [Message("user", "What is the capital of France? Answer in one sentence.")]
    ids = encode_conversation(llm.tokenizer, question, add_generation_prompt=True)
    (answer,) = llm.generate([ids], SamplingParams(temperature=0, max_tokens=24))
    assert "Paris" in answer.text
