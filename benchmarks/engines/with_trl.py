"""Updates of TRL's ``GRPOTrainer``, one for each line that comes in: ``with_trl.py JOB``.

The job is JSON; ``rl_vs_trl.Job`` says what it has. Prompts are texts with the model's template in
them; that they have the token ids of ours is checked.
"""

from __future__ import annotations

import json
import os
import sys

os.environ["OMP_NUM_THREADS"] = str(json.loads(sys.argv[1])["threads"])

import itertools
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from protocol import say
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer
from vowels import share

job = json.loads(sys.argv[1])
torch.set_num_threads(job["threads"])
prompts = json.loads(Path(job["prompts"]).read_text(encoding="utf-8"))
tokenizer = AutoTokenizer.from_pretrained(job["model"])
for prompt in prompts:
    assert tokenizer(prompt["text"])["input_ids"] == prompt["ids"], "other prompts than ours"

generating = 0.0
lengths: list[int] = []
cut: list[bool] = []


class Trainer(GRPOTrainer):
    """Notes what generation takes."""

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        global generating
        start = time.perf_counter()
        found = super()._generate_single_turn(*args, **kwargs)
        generating += time.perf_counter() - start
        return found


class Turns(TrainerCallback):
    """Waits for a line before each update, and tells of it afterwards."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        global generating
        if not sys.stdin.readline():
            os._exit(0)
        generating = 0.0
        lengths.clear()
        cut.clear()
        self.start = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        samples = job["groups"] * job["size"]
        assert len(lengths) == samples, (len(lengths), samples)
        say(
            seconds=time.perf_counter() - self.start,
            generating=generating,
            length=sum(lengths) / samples,
            cut=sum(cut) / samples,
        )

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        say(ready=True)


def reward(completions: list[str], completion_ids: list[list[int]], **kwargs: Any) -> list[float]:
    """As ours has it."""
    is_cut = [ids[-1] not in job["ends"] for ids in completion_ids]
    lengths.extend(map(len, completion_ids))
    cut.extend(is_cut)
    return [0.0 if no else share(text) for no, text in zip(is_cut, completions, strict=True)]


samples = job["groups"] * job["size"]
with tempfile.TemporaryDirectory() as directory:
    config = GRPOConfig(
        output_dir=directory,
        max_steps=1000,
        per_device_train_batch_size=job["micro_batch"],
        gradient_accumulation_steps=samples // job["micro_batch"],
        num_generations=job["size"],
        max_completion_length=job["tokens"],
        temperature=1.0,
        loss_type="grpo",
        beta=0.0,
        learning_rate=job["lr"],
        lr_scheduler_type="constant",
        optim="adamw_torch_fused",
        weight_decay=0.1,
        adam_beta2=0.95,
        bf16=job["dtype"] == "bfloat16",
        gradient_checkpointing=False,
        use_cpu=True,
        shuffle_dataset=False,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    model = AutoModelForCausalLM.from_pretrained(
        job["model"], dtype=torch.float32, attn_implementation=job["attention"]
    )
    model.generation_config.eos_token_id = job["ends"]
    rows = list(itertools.islice(itertools.cycle(prompts), 1000 * job["groups"]))
    Trainer(
        model=model,
        processing_class=tokenizer,
        reward_funcs=[reward],
        args=config,
        train_dataset=Dataset.from_list([{"prompt": row["text"]} for row in rows]),
        callbacks=[Turns()],
    ).train()
