"""The pre-training task on a tiny K2: accumulation, resuming, recomputation, clipping, loads."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_run import tiny_config, tiny_corpus, tiny_task, write_text

from selenite.clock import ManualClock
from selenite.data.loader import evaluation_batches
from selenite.errors import NonFiniteError
from selenite.model.accounting import matrix_parameters, training_flops_per_token
from selenite.model.hf_adapter import load_pretrained, save_pretrained
from selenite.ops.attention_context import packed_context
from selenite.train.evaluate import evaluate
from selenite.train.loop import run
from selenite.train.pretrain_task import PretrainTask
from selenite.train.progress import LogLines
from selenite.train.step import train_step


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pretrain")
    write_text(root / "text")
    return root


def _weights(task: PretrainTask) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in task.model.parameters()])


def _after(root: Path, tmp_path: Path, steps: int, *settings: str) -> PretrainTask:
    task = tiny_task(tiny_config(root, tmp_path, *settings))
    for step in range(steps):
        train_step(task, step)
    task.close()
    return task


def test_accumulation_1x8_equals_8x1(root: Path, tmp_path: Path) -> None:
    """The same pieces of text in one pass or in eight: windows and seq_len are both 64 tokens."""

    def gradients(micro_batch_tokens: int) -> tuple[float, dict[str, torch.Tensor]]:
        settings = ("train.batch_tokens=512", f"train.micro_batch_tokens={micro_batch_tokens}")
        task = tiny_task(tiny_config(root, tmp_path, *settings))
        batch = task.next_batch()
        losses = [task.loss(task.phases[0], micro_batch, batch) for micro_batch in batch]
        for loss in losses:
            loss.backward()
        task.close()
        return sum(loss.item() for loss in losses), {
            name: p.grad.clone() for name, p in task.model.named_parameters() if p.grad is not None
        }

    one_loss, one = gradients(512)
    many_loss, many = gradients(64)
    assert many_loss == pytest.approx(one_loss, rel=1e-6)
    for name, gradient in one.items():
        # float32 sums over 512 tokens in another order
        assert (many[name] - gradient).norm() <= 1e-5 * gradient.norm(), name


@pytest.mark.parametrize("cut", [3])
def test_resumed_run_equals_uninterrupted_run_bit_for_bit(
    root: Path, tmp_path: Path, cut: int
) -> None:
    clock = ManualClock()

    def train(name: str, steps: int) -> PretrainTask:
        config = tiny_config(root, tmp_path / name, "train.sample_every=2")
        task = tiny_task(config)
        run(task, steps, config.train, clock, LogLines(clock))
        task.close()
        return task

    whole = train("whole", 6)
    train("parts", cut)
    resumed = train("parts", 6)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    states = whole.phases[0].optimizer.state_dict(), resumed.phases[0].optimizer.state_dict()
    for index, state in states[0]["state"].items():
        for name, value in state.items():
            assert torch.equal(
                torch.as_tensor(value), torch.as_tensor(states[1]["state"][index][name])
            ), (index, name)


def test_recomputed_activations_change_nothing(root: Path, tmp_path: Path) -> None:
    plain = _after(root, tmp_path, 2)
    recomputed = _after(root, tmp_path, 2, "train.checkpoint_activations=true")
    assert torch.equal(_weights(plain), _weights(recomputed))
    for (name, a), (_, b) in zip(
        plain.model.named_buffers(), recomputed.model.named_buffers(), strict=True
    ):
        assert torch.equal(a, b), f"{name}: loads were counted twice"


def test_step_metrics_and_router_bias(root: Path, tmp_path: Path) -> None:
    task = tiny_task(tiny_config(root, tmp_path))
    metrics = train_step(task, 0)
    task.close()
    assert metrics["tokens"] == 512
    assert metrics["loss"] == pytest.approx(math.log(512), rel=0.02)  # untrained: near uniform
    assert 1 <= metrics["load_max_over_mean"] <= 2  # at most experts / experts_per_token
    bias = dict(task.model.named_buffers())["layers.1.ffn.router.bias"]
    assert bias.abs().max() > 0
    assert float(bias.sum()) == pytest.approx(0, abs=1e-8)


def test_qk_clip_acts_on_the_logits_of_all_micro_batches(root: Path, tmp_path: Path) -> None:
    # One layer: clipping a layer changes the inputs, and so the logits, of those above it.
    exact = ("optim.qk_clip_statistic=exact", "optim.lr=1e-9", "model.num_layers=1")
    task = tiny_task(tiny_config(root, tmp_path, "optim.qk_clip_tau=0.01", *exact))
    metrics = train_step(task, 0)
    task.close()
    assert metrics["max_logit"] > 0.01
    assert metrics["clipped_heads"] >= 1
    # The weights have hardly moved, so the same text must now reach exactly the bound.
    again = tiny_task(tiny_config(root, tmp_path, "optim.qk_clip_tau=none", *exact))
    again.model.load_state_dict(task.model.state_dict())
    assert train_step(again, 0)["max_logit"] == pytest.approx(0.01, rel=1e-5)
    again.close()


def test_the_largest_logit_of_micro_batches_is_that_of_all_in_one(
    root: Path, tmp_path: Path
) -> None:
    settings = ("optim.qk_clip_tau=0.01", "optim.qk_clip_statistic=exact", "train.batch_tokens=512")
    largest = []
    for micro_batch_tokens in (64, 512):
        more = f"train.micro_batch_tokens={micro_batch_tokens}"
        task = tiny_task(tiny_config(root, tmp_path, *settings, more))
        metrics = train_step(task, 0)
        largest.append((metrics["max_logit"], metrics["clipped_heads"]))
        task.close()
    assert largest[0][1] == largest[1][1] >= 1
    assert largest[0][0] == pytest.approx(largest[1][0], rel=1e-6)


def test_a_clipped_master_and_its_bfloat16_copy_are_one_model(root: Path, tmp_path: Path) -> None:
    """What is served (matrices cast once) computes, bit for bit, what the trainer's float32
    masters do after QK-Clip scaled them: no copy of before the clip is left anywhere."""
    task = tiny_task(tiny_config(root, tmp_path, "optim.qk_clip_tau=0.01"))
    assert train_step(task, 0)["clipped_heads"] >= 1
    task.close()
    task.model.compute_dtype = torch.bfloat16
    save_pretrained(task.model, tmp_path / "export")
    copy = load_pretrained(tmp_path / "export").cast(torch.bfloat16)
    masters = dict(task.model.named_parameters())
    for name, parameter in copy.named_parameters():
        assert torch.equal(parameter, masters[name].to(parameter.dtype)), name
    tokens_T = torch.arange(40) % task.model.config.vocab_size
    context = packed_context([25, 15])
    with torch.no_grad():
        trained, served = (
            model(tokens_T, context.positions_T, context).hidden_TD for model in (task.model, copy)
        )
    assert torch.equal(trained, served)


def test_nan_in_a_weight_names_parameters(root: Path, tmp_path: Path) -> None:
    task = tiny_task(tiny_config(root, tmp_path))
    with torch.no_grad():
        task.model.layers[1].attention_norm.weight[0] = float("nan")
    with pytest.raises(NonFiniteError, match=r"step 1.*micro-batch 1 of 2 is nan.*model\."):
        train_step(task, 0)
    task.close()


def test_evaluation_against_the_full_logits(root: Path, tmp_path: Path) -> None:
    config = tiny_config(root, tmp_path)
    task, corpus = tiny_task(config), tiny_corpus(config)
    batches = list(evaluation_batches(corpus.val, 128, 64, 384))
    result = evaluate(task.model, batches)
    nats, count = 0.0, 0
    for batch in batches:
        for piece in range(int(batch.document_T[-1]) + 1):  # each piece by itself, in float64
            rows = batch.document_T == piece
            tokens_T = torch.from_numpy(batch.tokens_T[rows])
            context = packed_context([len(tokens_T)])
            with torch.no_grad():
                hidden_TD = task.model(tokens_T, context.positions_T, context).hidden_TD
                logits_TV = task.model.logits(hidden_TD).double()
            targets_T = torch.from_numpy(batch.targets_T[rows])
            nats += float(
                torch.nn.functional.cross_entropy(
                    logits_TV, targets_T, ignore_index=-1, reduction="sum"
                )
            )
            count += int((targets_T >= 0).sum())
    num_bytes = sum(batch.num_bytes for batch in batches)
    assert (result.tokens, result.bytes) == (count, num_bytes)
    assert result.loss == pytest.approx(nats / count, rel=1e-6)
    assert result.bits_per_byte == pytest.approx(nats / math.log(2) / num_bytes, rel=1e-6)


def test_export_predicts_the_same(root: Path, tmp_path: Path) -> None:
    config = tiny_config(root, tmp_path)
    task = tiny_task(config)
    train_step(task, 0)
    task.close()
    save_pretrained(task.model, tmp_path / "export")
    batches = list(evaluation_batches(tiny_corpus(config).val, 128, 64, 256))
    assert evaluate(load_pretrained(tmp_path / "export"), batches) == evaluate(task.model, batches)


def test_golden_curve(root: Path, tmp_path: Path) -> None:
    """The loss of ten steps, as recorded; on another kind of processor the sums differ."""
    golden = Path(__file__).resolve().parents[1] / "golden" / "tiny_loss.txt"
    capability, *expected = golden.read_text().split()
    if torch.backends.cpu.get_cpu_capability() != capability:
        pytest.skip(f"recorded on {capability}")
    task = tiny_task(tiny_config(root, tmp_path, "optim.ns_dtype=float32"))
    found = [train_step(task, step)["loss"] for step in range(10)]
    task.close()
    # Processors of one capability still get different kernels from MKL, and Newton-Schulz
    # amplifies the last bit; 1e-4 nats is far below what a change of the mathematics makes.
    assert found == pytest.approx([float(loss) for loss in expected], abs=1e-4)


def test_flops_count_the_attention_within_the_pieces_that_were_read(
    root: Path, tmp_path: Path
) -> None:
    task = tiny_task(tiny_config(root, tmp_path, "train.seq_len=200"))  # of 256: pieces differ
    found = train_step(task, 0)["flops"]
    config = task.model.config
    pairs = 0
    for micro_batch in task._batch:
        _, lengths = np.unique(micro_batch.document_T, return_counts=True)
        pairs += int((lengths * (lengths + 1) // 2).sum())
    task.close()
    per_pair = 2 * config.num_layers * config.num_heads * (config.qk_dim + config.v_dim)
    expected = 6 * matrix_parameters(config) * 512 + 3 * per_pair * pairs
    assert found == pytest.approx(expected, rel=1e-12)
    assert found < 512 * training_flops_per_token(config, 200), "no piece is longer than seq_len"
