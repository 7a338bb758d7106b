"""Fine-tuning end to end on a tiny K2 model: the loss, resuming, and what is exported."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from selenite.chat.profile import detect_profile
from selenite.chat.template import encode_conversation
from selenite.chat.tokenizer import Tokenizer
from selenite.clock import SystemClock
from selenite.config import validate
from selenite.data.chat_rows import read_chat_rows
from selenite.data.chat_stream import ChatStream
from selenite.data.packing import MicroBatch
from selenite.data.piece_loader import pack
from selenite.data.pieces import Piece
from selenite.errors import CheckpointError, ConfigError, DataError
from selenite.model.hf_adapter import load_pretrained
from selenite.model.lora import merge_lora
from selenite.model.lora_files import load_lora
from selenite.ops.attention_context import packed_context
from selenite.train.loop import run
from selenite.train.progress import make_display
from selenite.train.run import finished_summary
from selenite.train.sft import build_task, sft
from selenite.train.sft_config import SftConfig
from selenite.train.sft_data import read_data
from selenite.train.sft_task import SftTask
from selenite.types import IGNORED, Message, ToolSpec
from tests.fixtures.server import make_model

PEAK = 1e11


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sft")
    make_model(root)
    rows = []
    for number in range(60):
        word = ("fox", "dog", "jumps")[number % 3]
        call = {"name": "say", "arguments": json.dumps({"word": word})}
        answer = {"role": "assistant", "content": None, "tool_calls": [{"function": call}]}
        rows.append({
            "messages": [{"role": "user", "content": f"Say {word}, {number} times."}, answer],
            "tools": [{"type": "function", "function": {"name": "say", "parameters": {}}}],
        })  # fmt: skip
    (root / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (root / "text").mkdir()
    for number in range(8):
        (root / "text" / f"{number}.py").write_text("The quick brown fox. " * 60 + str(number))
    return root


def config_of(root: Path, out_dir: Path, **train: Any) -> SftConfig:
    known = {
        "init_from": root / "tiny",
        "out_dir": out_dir,
        "steps": 6,
        "seq_len": 512,
        "batch_tokens": 1024,
        "micro_batch_tokens": 512,
        "eval_tokens": 2048,
        "data_cache": root / "corpora",
        "tensorboard": False,
        "sample_tokens": 24,
        "dtype": "float32",
    }
    chat = {"kind": "chat", "name": "calls", "weight": 0.8, "held_out": 0.1}
    source = {"kind": "folder", "path": str(root / "text")}
    split = {"file_fraction": 0.3}
    data = {"sources": [source], "split": split, "dedup": None}
    text = {"kind": "text", "name": "text", "weight": 0.2, "window": 128, "data": data}
    table = {
        "train": {**known, **train},
        "parts": [{**chat, "paths": [str(root / "rows.jsonl")]}, text],
        "optim": {"lr": 1e-3, "qk_clip_tau": None, "router_bias_speed": 0.0},
    }
    return validate(SftConfig, table, "test")


def task_of(config: SftConfig) -> SftTask:
    return build_task(config, "cpu", torch.float32)


def test_the_loss_is_the_mean_over_all_that_is_learnt(root: Path, tmp_path: Path) -> None:
    """Against each conversation by itself, in a forward pass of its own."""
    task = task_of(config_of(root, tmp_path))
    batch = task.next_batch()
    shares = [task.loss(task.phases[0], micro, batch).item() for micro in batch]
    nats = count = 0.0
    with torch.no_grad():
        for micro in batch:
            for number in range(micro.document_T[-1] + 1):
                own = micro.document_T == number
                tokens_T = torch.from_numpy(micro.tokens_T[own])
                targets_T = torch.from_numpy(micro.targets_T[own])
                context = packed_context([len(tokens_T)])
                out = task.model(tokens_T, context.positions_T, context)
                logits_TV = task.model.logits(out.hidden_TD).float()
                kept = targets_T != IGNORED
                loss = torch.nn.functional.cross_entropy(
                    logits_TV[kept], targets_T[kept], reduction="sum"
                )
                nats += float(loss)
                count += int(kept.sum())
    task.close()
    assert 0 < count < sum(len(micro.tokens_T) for micro in batch)
    assert sum(shares) == pytest.approx(nats / count, rel=1e-5)


def test_the_gradient_depends_on_no_packing(root: Path, tmp_path: Path) -> None:
    """The same pieces as one micro-batch or as three uneven ones."""
    task = task_of(config_of(root, tmp_path))
    pieces = pieces_of(task.next_batch())
    task.close()
    assert len(pieces) >= 6
    gradients = []
    for cut in ([0, len(pieces)], [0, 2, 3, len(pieces)]):
        batch = [pack(pieces[first:end]) for first, end in pairwise(cut)]
        task.model.zero_grad()
        for micro in batch:
            task.loss(task.phases[0], micro, batch).backward()
        found = [p.grad.flatten() for p in task.model.parameters() if p.grad is not None]
        gradients.append(torch.cat(found))
    assert torch.allclose(gradients[0], gradients[1], atol=1e-6, rtol=1e-4)


def test_conversations_together_have_the_gradient_of_each_alone(root: Path, tmp_path: Path) -> None:
    """What they begin with alike is computed once, and its gradient is the sum."""
    task = task_of(config_of(root, tmp_path))
    task.close()
    data = read_data(config_of(root, tmp_path))
    data.loader.close()
    rows = [replace(row, group="g") for row in read_chat_rows([str(root / "rows.jsonl")])]
    stream = ChatStream(
        rows, data.tokenizer, data.profile, 512, unused_tools=0, together=4, piece_tokens=2048
    )
    piece = stream.read(0)
    assert piece is not None
    parts = [piece.document_T == number for number in range(5)]
    alone = []
    for own in parts[1:]:
        tokens_T, targets_T = (
            np.append(x[parts[0]], x[own]) for x in (piece.tokens_T, piece.targets_T)
        )
        alone.append(lone_piece(tokens_T, targets_T))
    gradients, losses = [], []
    for micro in (pack([piece], 64), pack(alone)):
        task.model.zero_grad()
        loss = task.loss(task.phases[0], micro, [micro])
        loss.backward()
        losses.append(loss.item())
        found = [p.grad.flatten() for p in task.model.parameters() if p.grad is not None]
        gradients.append(torch.cat(found))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert torch.allclose(gradients[0], gradients[1], atol=1e-6, rtol=1e-4)
    assert gradients[0].abs().max() > 1e-3


def lone_piece(tokens_T: np.ndarray, targets_T: np.ndarray) -> Piece:
    count = len(tokens_T)
    return Piece(tokens_T, targets_T, np.arange(count), np.zeros(count, dtype=np.int32), 1)


def pieces_of(batch: list[MicroBatch]) -> list[Piece]:
    found = []
    for micro in batch:
        for number in range(micro.document_T[-1] + 1):
            own = micro.document_T == number
            if (micro.targets_T[own] != IGNORED).any():
                found.append(lone_piece(micro.tokens_T[own], micro.targets_T[own]))
    return found


@pytest.mark.parametrize("lora", [None, {"rank": 4}])
def test_a_run_resumed_is_the_run_itself(root: Path, tmp_path: Path, lora: Any) -> None:
    weights = []
    for name, stops in (("whole", ()), ("parts", (2, 3))):
        table = config_of(root, tmp_path / name, checkpoint_every=1).model_dump()
        table["lora"] = lora
        table["parts"] = [dict(table["parts"][0], unused_tools=2), table["parts"][1]]
        config = validate(SftConfig, table, "test")
        for stop in stops:
            task = build_task(config, "cpu", torch.float32)
            outcome = run(task, stop, config.train, SystemClock(), make_display(SystemClock()))
            task.close()
            assert outcome.step == stop
        sft(config, SystemClock(), PEAK)
        weights.append(load_pretrained(tmp_path / name).state_dict())
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_what_is_taught_is_learnt_and_served(root: Path, tmp_path: Path) -> None:
    config = config_of(root, tmp_path / "run", steps=60, sample_every=30)
    outcome, summary = sft(config, SystemClock(), PEAK)
    assert summary is not None
    assert summary == finished_summary(config, config.train)
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["val_loss.calls"] < 0.3 * rows[0]["val_loss.calls"]
    assert rows[-1]["val_loss.text"] < rows[0]["val_loss.text"]
    assert "functions.say:0" in rows[-1]["sample.1.text"]
    assert outcome.step == 60
    assert Tokenizer.load(tmp_path / "run").chat_template is not None
    report = (tmp_path / "run" / "report.html").read_text()
    assert "held-out loss" in report
    assert "not recorded" not in report


def test_adapters_alone_are_trained_and_merge_to_the_export(root: Path, tmp_path: Path) -> None:
    table = config_of(root, tmp_path / "run").model_dump()
    config = validate(SftConfig, table | {"lora": {"rank": 4}}, "test")
    sft(config, SystemClock(), PEAK)
    before, after = load_pretrained(root / "tiny"), load_pretrained(tmp_path / "run")
    merged = merge_lora(load_lora(load_pretrained(root / "tiny"), tmp_path / "run" / "adapter"))
    changed = 0
    for name, new in after.state_dict().items():
        assert torch.equal(merged.state_dict()[name], new), name
        changed += not torch.equal(before.state_dict()[name], new)
    assert changed


def test_the_compact_template_goes_with_the_model(root: Path, tmp_path: Path) -> None:
    """Prompts of the exported model have short declarations, those of its base have JSON."""
    sft(config_of(root, tmp_path / "run", steps=1, template="compact"), SystemClock(), PEAK)
    talk, tools = [Message("user", "Hi.")], [ToolSpec("say", "Says.", {})]
    prompts = {}
    for name, folder in (("base", root / "tiny"), ("taught", tmp_path / "run")):
        tokenizer = Tokenizer.load(folder)
        prompts[name] = tokenizer.decode(encode_conversation(tokenizer, talk, tools))
        assert detect_profile(tokenizer)[0].name == "k2"
    assert "say(): Says.<|im_end|>" in prompts["taught"]
    assert '"name":"say"' in prompts["base"]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda t: t["train"].update(init_from=t["train"]["out_dir"]), ConfigError, "is out_dir"),
        (lambda t: t["parts"][1].update(name="calls"), ConfigError, "a name of its own"),
        (lambda t: t["parts"].pop(0), ConfigError, "no conversations; give a part of kind chat"),
        (lambda t: t["parts"][1].update(window=4096), ConfigError, "window=4096 exceeds"),
        (lambda t: t["parts"][0].update(held_out=0.999999), DataError, "all conversations are"),
        (lambda t: t["parts"][0].update(paths=["nowhere.jsonl"]), DataError, "no such file"),
        (lambda t: t["train"].update(steps=None), ConfigError, "give exactly one"),
        (
            lambda t: t["train"].update(seq_len=8192, micro_batch_tokens=8192, batch_tokens=8192),
            ConfigError,
            "seq_len=8192 exceeds the 4096 positions",
        ),
        (
            lambda t: t.update(lora={}, optim={"qk_clip_tau": 9.0}),
            ConfigError,
            "lora: optim",
        ),
        (lambda t: t.update(lora={"rank": 2, "targets": ["nothing"]}), ConfigError, "nothing"),
    ],
)
def test_what_cannot_be_is_refused(
    root: Path,
    tmp_path: Path,
    change: Callable[[dict[str, Any]], None],
    error: type[Exception],
    message: str,
) -> None:
    table = config_of(root, tmp_path / "run").model_dump()
    table["parts"] = list(map(dict, table["parts"]))
    change(table)
    with pytest.raises(error, match=message):
        sft(validate(SftConfig, table, "test"), SystemClock(), PEAK)


def test_a_group_has_one_tool_of_a_name(root: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (root / "rows.jsonl").read_text().splitlines()]
    rows = [row | {"group": "g"} for row in rows]
    rows[7]["tools"][0]["function"]["description"] = "Another one."
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    table = config_of(root, tmp_path / "run").model_dump()
    part = {**table["parts"][0], "paths": [str(path)], "unused_tools": 1, "together": 2}
    config = validate(SftConfig, table | {"parts": [part]}, "test")
    with pytest.raises(DataError, match=r"line 8: say is another tool in an earlier row of group"):
        sft(config, SystemClock(), PEAK)


def test_other_rows_are_other_data(root: Path, tmp_path: Path) -> None:
    config = config_of(root, tmp_path / "run", steps=2, checkpoint_every=1)
    sft(config, SystemClock(), PEAK)
    text = (root / "rows.jsonl").read_text()
    (tmp_path / "fewer.jsonl").write_text(text[: text.rindex("\n", 0, -1) + 1])
    table = config.model_dump()
    table["parts"] = list(map(dict, table["parts"]))
    table["parts"][0]["paths"] = [str(tmp_path / "fewer.jsonl")]
    table["train"]["steps"] = 3
    with pytest.raises(CheckpointError, match="part calls"):
        sft(validate(SftConfig, table, "test"), SystemClock(), PEAK)
