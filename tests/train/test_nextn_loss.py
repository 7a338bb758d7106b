"""Extra prediction layers in training: targets, the loss, statistics, and what they learn."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_run import tiny_config, tiny_corpus, tiny_task, write_text
from torch.nn import functional as F

from selenite.data.packing import MicroBatch
from selenite.model.accounting import forward_flops_per_token, nextn_flops_per_token
from selenite.model.decode import CachedModel, decode
from selenite.model.draft import Drafter
from selenite.model.transformer import ModelOutput
from selenite.ops.attention_context import packed_context
from selenite.train.nextn import depth_targets, next_tokens, num_depth_targets
from selenite.train.pretrain_task import PretrainTask
from selenite.train.step import train_step
from selenite.types import SamplingParams

TWO = "model.num_nextn_predict_layers=2"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("nextn")
    write_text(root / "text")
    return root


def by_hand() -> MicroBatch:
    """A document that ends, one that seq_len cuts after 4, a token alone, one that the window cuts;
    20 and the like stand for tokens, and row 5 is not trained on."""
    return MicroBatch(
        tokens_T=np.array([10, 11, 12, 20, 21, 22, 23, 24, 30, 40, 41]),
        targets_T=np.array([11, 12, -1, 21, 22, -1, 24, -1, -1, 41, 42]),
        positions_T=np.array([0, 1, 2, 0, 1, 2, 3, 0, 0, 0, 1]),
        document_T=np.array([0, 0, 0, 1, 1, 1, 1, 2, 3, 4, 4], dtype=np.int32),
        num_bytes=0,
    )


def test_targets_stay_within_the_piece_and_ignored_ones_stay_ignored() -> None:
    batch = by_hand()
    assert depth_targets(batch, 1).tolist() == [12, -1, -1, 22, -1, 24, -1, -1, -1, 42, -1]
    assert depth_targets(batch, 2).tolist() == [-1, -1, -1, -1, 24, -1, -1, -1, -1, -1, -1]
    assert depth_targets(batch, 20).tolist() == [-1] * 11
    assert num_depth_targets([batch, batch], 1) == 8


def test_a_row_reads_the_token_that_the_depth_before_predicted() -> None:
    """Also where that is not trained on (row 5), and where only the target knows it (6 and 10)."""
    batch = by_hand()
    assert next_tokens(batch, 1).tolist() == [11, 12, 12, 21, 22, 23, 24, 24, 30, 41, 42]
    assert next_tokens(batch, 2).tolist() == [12, 11, 12, 22, 23, 24, 23, 24, 30, 42, 41]
    for depth in (1, 2, 3):  # a row with a target has read the token before it
        trained = depth_targets(batch, depth) != -1
        before = depth_targets(batch, depth - 1)
        known = trained & (before != -1)
        assert (next_tokens(batch, depth)[known] == before[known]).all()


def test_the_loss_gains_the_mean_over_depths(root: Path, tmp_path: Path) -> None:
    """Against full logits of each piece by itself, in float64."""
    task = tiny_task(tiny_config(root, tmp_path, TWO, "train.nextn_loss_weight=0.7"))
    batch = task.next_batch()
    model = task.model
    sums, counts, hits = torch.zeros(3, dtype=torch.float64), [0, 0, 0], 0
    for micro_batch in batch:
        for piece in range(int(micro_batch.document_T[-1]) + 1):
            rows = micro_batch.document_T == piece
            tokens_T = torch.from_numpy(micro_batch.tokens_T[rows])
            targets_T = torch.from_numpy(micro_batch.targets_T[rows])
            context = packed_context([len(tokens_T)])
            with torch.no_grad():
                hidden_TD = model(tokens_T, context.positions_T, context).hidden_TD
                for depth in range(3):
                    if depth:
                        # Targets of rows before: from depth 2 on the last rows have no token.
                        next_T = torch.cat((targets_T[depth - 1 :], tokens_T))[: len(tokens_T)]
                        hidden_TD = model.predict_further(
                            depth, hidden_TD, next_T.clamp(min=0), context.positions_T, context
                        ).hidden_TD
                    wanted_T = targets_T[depth:]
                    logits_TV = model.logits(hidden_TD[: len(wanted_T)]).double()
                    sums[depth] += F.cross_entropy(
                        logits_TV, wanted_T, ignore_index=-1, reduction="sum"
                    )
                    counts[depth] += int((wanted_T >= 0).sum())
                    hits += int((logits_TV.argmax(-1) == wanted_T).sum()) if depth else 0
    means = (sums / torch.tensor(counts)).tolist()
    total = sum(task.loss(task.phases[0], one, batch).item() for one in batch)
    assert total == pytest.approx(means[0] + 0.7 * (means[1] + means[2]) / 2, rel=1e-6)
    metrics = task._nextn_metrics()
    task.close()
    assert metrics["nextn_loss"] == pytest.approx((means[1] + means[2]) / 2, rel=1e-6)
    assert metrics["nextn_accuracy"] == pytest.approx(hits / (counts[1] + counts[2]))


def trained(root: Path, tmp_path: Path, steps: int, *settings: str) -> tuple[PretrainTask, dict]:
    task = tiny_task(tiny_config(root, tmp_path, *settings))
    metrics = {}
    for step in range(steps):
        metrics = train_step(task, step)
    task.close()
    return task, metrics


def test_a_step_updates_clips_and_balances_the_extra_layers(root: Path, tmp_path: Path) -> None:
    clip = ("optim.qk_clip_tau=1e-3", "optim.qk_clip_statistic=exact", "optim.lr=1e-9")
    before = tiny_task(tiny_config(root, tmp_path, TWO))
    before.close()
    task, metrics = trained(root, tmp_path, 1, TWO, *clip)
    assert metrics["loss"] == pytest.approx(1.3 * math.log(512), rel=0.02)  # untrained
    assert metrics["nextn_loss"] == pytest.approx(math.log(512), rel=0.02)
    assert 0 <= metrics["nextn_accuracy"] < 0.1
    config = task.model.config
    old, new = (dict(t.model.named_parameters()) for t in (before, task))
    for k in range(2):
        block = f"nextn.{k}.block"
        assert dict(task.model.named_buffers())[f"{block}.ffn.router.bias"].abs().max() > 0
        name = f"{block}.attention.q_b.weight"
        ratio_NH = (new[name] / old[name]).view(config.num_heads, -1)
        assert (ratio_NH.median(1).values < 0.99).all(), "every head was above so low a bound"
    assert all(p.grad is not None for p in task.model.parameters())
    positions = [batch.positions_T + 1 for batch in task._batch]
    keys = sum(int(position.sum()) for position in positions) / 512
    a_token = forward_flops_per_token(config, keys) + nextn_flops_per_token(config, keys)
    assert metrics["flops"] == pytest.approx(3 * 512 * a_token, rel=1e-12)


def test_statistics_of_the_extra_layers_come_last_and_in_order(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = tiny_task(tiny_config(root, tmp_path, TWO))
    further = task.model.predict_further
    seen: list[ModelOutput] = []
    monkeypatch.setattr(
        task.model, "predict_further", lambda *args: seen.append(further(*args)) or seen[-1]
    )
    [micro_batch, *_] = batch = task.next_batch()
    task.loss(task.phases[0], micro_batch, batch)
    task.close()
    one, two = seen
    assert not torch.equal(one.load_LE, two.load_LE)
    assert torch.equal(task._load_LE[1:], torch.cat((one.load_LE, two.load_LE)))
    assert torch.equal(task._max_logit.take()[2:], torch.cat((one.max_logit_LN, two.max_logit_LN)))


def test_recomputed_activations_change_nothing(root: Path, tmp_path: Path) -> None:
    plain, _ = trained(root, tmp_path, 2, TWO)
    again, _ = trained(root, tmp_path, 2, TWO, "train.checkpoint_activations=true")
    for name, value in plain.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name


def test_drafts_on_repetitive_text_are_mostly_accepted(tmp_path: Path) -> None:
    """In the step's own measure, and by cached drafts beside the model's own greedy choices. Chance
    is one in 320; always proposing the most frequent token is right as often as that occurs."""
    lines = ["for x in range(y):", "    print(self.value + x)", "if y:", "    return x + y + 1"]
    (tmp_path / "text").mkdir()
    for number in range(24):
        text = "\n".join(lines[(number + i) % 4] for i in range(60 + number))
        (tmp_path / "text" / f"{number:02d}.py").write_text(text + "\n")
    settings = ("model.num_nextn_predict_layers=1", "data.dedup=none", "train.steps=40")
    task, metrics = trained(tmp_path, tmp_path / "run", 40, *settings)
    assert metrics["nextn_accuracy"] > 0.9

    tokenizer = tiny_corpus(tiny_config(tmp_path, tmp_path / "run", *settings)).tokenizer
    prompt = tokenizer.encode("\n".join(lines) + "\n")
    wanted = 64 - len(prompt)  # it was trained on pieces of 64 tokens
    [greedy] = decode(task.model, [prompt], [SamplingParams(temperature=0, max_tokens=wanted)])
    text_ids = prompt + greedy.token_ids
    drafter = Drafter(CachedModel(task.model, 1, len(text_ids)))
    drafter.extend({0: prompt})
    accepted = 0
    for place in range(len(prompt), len(text_ids) - 1):
        accepted += drafter.propose(0, text_ids[place], 1) == [text_ids[place + 1]]
        drafter.extend({0: [text_ids[place]]})
    assert max(map(greedy.token_ids.count, greedy.token_ids)) < 0.25 * wanted
    assert accepted > 0.9 * (wanted - 1)
