"""Routing replay: the trainer computes each token by the experts that computed it in the engine."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from selenite.errors import ConfigError, DataError
from selenite.model.hf_adapter import save_pretrained
from selenite.model.transformer import Transformer
from selenite.ops.attention_context import packed_context
from selenite.ops.logprobs import token_logprobs
from selenite.rl import journal
from selenite.rl.batch import counts, rollout_batches, teachable
from selenite.rl.objective import K2Config, Scored
from selenite.rl.rollout import Rollout
from selenite.train.inputs import to_inputs
from selenite.train.step import train_step
from tests.fixtures.server import make_model
from tests.fixtures.tiny import k2_config, llama_config, tiny_model
from tests.rl.test_batch import TAU, make_groups
from tests.rl.test_run import config_of, opened

L, E, K = 2, 8, 2


def routed(rollout: Rollout, same: int = 1000) -> Rollout:
    """With experts of nobody's choice; the first ``same`` tokens of a task have the same ones, and
    no engine has computed the last token."""
    own = np.random.default_rng(1000 + 100 * rollout.task + rollout.number)
    ids = np.random.default_rng(rollout.task).permuted(np.tile(np.arange(E), (99, L, 1)), axis=-1)
    other = own.permuted(np.tile(np.arange(E), (99, L, 1)), axis=-1)
    prompt = int(rollout.is_sampled_T.argmax())
    first = np.arange(99)[:, None, None] < min(prompt, same)
    chosen = np.sort(np.where(first, ids, other)[..., :K], axis=-1).astype(np.uint8)
    return dataclasses.replace(rollout, expert_ids_PLK=chosen[: len(rollout.token_ids_T) - 1])


def routed_groups(same: int = 1000) -> list[list[Rollout]]:
    return [[routed(rollout, same) for rollout in group] for group in make_groups()]


@pytest.fixture(scope="module")
def model() -> Transformer:
    return tiny_model(k2_config(vocab_size=300, max_positions=512))


def loss_packed(model: Transformer, groups: list[list[Rollout]], num_tokens: int) -> Tensor:
    found, _ = teachable(groups, K2Config(tau=TAU))
    losses = []
    for batch in rollout_batches(found, num_tokens, replays=True):
        inputs = to_inputs(batch.packed, "cpu")
        assert batch.expert_ids_LTK is not None
        replay_LTK = torch.from_numpy(batch.expert_ids_LTK)
        output = model(inputs.tokens_T, inputs.context.positions_T, inputs.context, replay_LTK)
        assert output.load_LE is not None
        assert output.expert_ids_LTK is not None
        is_given_LT = replay_LTK[..., 0] >= 0
        assert torch.equal(output.expert_ids_LTK[is_given_LT], replay_LTK[is_given_LT])
        assert output.load_LE.sum() == L * K * len(inputs.tokens_T)
        rows = torch.from_numpy(np.flatnonzero(batch.rollout_T >= 0))
        targets_T = inputs.targets_T[rows]
        logprobs_T = token_logprobs(output.hidden_TD[rows], model.head_weight, targets_T)
        engine_T = torch.from_numpy(batch.engine_logprobs_T)[rows]
        scored = Scored(
            *(logprobs_T, engine_T, engine_T, torch.from_numpy(batch.rollout_T)[rows]),
            *(torch.from_numpy(batch.advantages_R), torch.from_numpy(batch.weights_R)),
        )
        losses.append(K2Config(tau=TAU).loss(scored, counts(found))[0])
    return torch.stack(losses).sum()


def loss_alone(model: Transformer, groups: list[list[Rollout]]) -> Tensor:
    """The objective from its definition, each rollout in a pass of its own."""
    found, _ = teachable(groups, K2Config(tau=TAU))
    total = torch.zeros((), dtype=torch.float64)
    for group in found:
        for rollout, advantage in zip(group.rollouts, group.advantages_R, strict=True):
            ids_T = torch.from_numpy(rollout.token_ids_T)[:-1]
            context = packed_context([len(ids_T)])
            assert rollout.expert_ids_PLK is not None
            replay_LTK = torch.from_numpy(rollout.expert_ids_PLK.astype(np.int16)).transpose(0, 1)
            hidden_TD = model(ids_T, context.positions_T, context, replay_LTK).hidden_TD
            rows = torch.from_numpy(np.flatnonzero(rollout.is_sampled_T))
            targets_T = torch.from_numpy(rollout.token_ids_T)[rows]
            logprobs_T = token_logprobs(hidden_TD[rows - 1], model.head_weight, targets_T)
            rho = (logprobs_T - torch.from_numpy(rollout.engine_logprobs_T)[rows]).sum()
            total = total + (advantage - TAU * rho).square() / (2 * TAU) / 12
    return total * 12 / counts(found).num_tokens


@pytest.mark.parametrize("num_tokens", [4096, 200, 90])
@pytest.mark.parametrize("same", [1000, 17, 0])
def test_packed_rollouts_have_the_experts_of_each(
    model: Transformer, num_tokens: int, same: int
) -> None:
    """Where the beginning of a group was not routed alike, less of it is there once."""
    groups = routed_groups(same)
    parameters = list(model.parameters())
    packed, alone = loss_packed(model, groups, num_tokens), loss_alone(model, groups)
    assert packed.item() == pytest.approx(alone.item(), rel=1e-5)
    by_packed = torch.autograd.grad(packed, parameters, allow_unused=True)
    by_alone = torch.autograd.grad(alone, parameters, allow_unused=True)
    for a, b in zip(by_packed, by_alone, strict=True):
        if b is None:
            assert a is None
        else:
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * float(b.abs().max()))


def test_a_beginning_is_there_once_as_far_as_it_was_routed_alike() -> None:
    sizes = []
    for same in (1000, 17, 0):
        found, _ = teachable(routed_groups(same), K2Config())
        (batch,) = rollout_batches(found, 4096, replays=True)
        sizes.append(int((batch.packed.document_T < batch.packed.document_T[-1]).sum()))
        known = sum(
            len(r.expert_ids_PLK) for g in found for r in g.rollouts if r.expert_ids_PLK is not None
        )
        assert batch.num_routed == L * (known - sum(3 * min(same, 39) for _ in found))
    # 39 tokens that three of each group of four need not have, or 17, or none.
    assert np.diff(sizes).tolist() == [3 * 3 * (39 - 17), 3 * 3 * 17]


def test_what_was_not_recorded_is_told(model: Transformer) -> None:
    found, _ = teachable(make_groups(), K2Config())
    assert rollout_batches(found, 4096)[0].expert_ids_LTK is None
    with pytest.raises(DataError, match=r"rollouts\.routing"):
        rollout_batches(found, 4096, replays=True)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_ids_on_disk_are_the_ids(tmp_path: Path, dtype: Any) -> None:
    group = [
        dataclasses.replace(r, expert_ids_PLK=None if r.expert_ids_PLK is None else
                            r.expert_ids_PLK.astype(dtype) + (300 if dtype is np.uint16 else 0))
        for r in routed_groups()[0]
    ]  # fmt: skip
    journal.write(tmp_path, 0, [[*group, make_groups()[0][0]]])
    *found, without = journal.read(journal.steps(tmp_path)[0])[0]
    for own, back in zip(group, found, strict=True):
        assert own.expert_ids_PLK is not None
        assert back.expert_ids_PLK is not None
        assert back.expert_ids_PLK.dtype == dtype
        np.testing.assert_array_equal(back.expert_ids_PLK, own.expert_ids_PLK)
    assert without.expert_ids_PLK is None


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("routing")
    make_model(root)
    return root


def talking(root: Path, out_dir: Path, **changes: Any) -> Any:
    environment = {"kind": "python", "factory": "tests.fixtures.talks:Talks"}
    rollouts = {"groups": 2, "size": 3, "cache_tokens": 4096, "routing": "replay"}
    tables = {"environments": [environment], "rollouts": rollouts} | changes
    return config_of(root, out_dir, **tables)


def by_model(model: Transformer, rollout: Rollout) -> np.ndarray:
    """``[T, L, K]``: what a pass over the whole conversation chooses."""
    ids_T = torch.from_numpy(rollout.token_ids_T)
    context = packed_context([len(ids_T)])
    with torch.no_grad():
        ids_LTK = model(ids_T, context.positions_T, context).expert_ids_LTK
    assert ids_LTK is not None
    return ids_LTK.transpose(0, 1).numpy()


@pytest.mark.parametrize("engines", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_turns_and_groups_are_recorded_whole(root: Path, tmp_path: Path, engines: int) -> None:
    """Three turns; prompts computed once for a group; later turns on top of what is cached; in this
    process and in another one."""
    config = talking(root, tmp_path / "run", rollouts__engines=engines)
    with ExitStack() as stack:
        task = opened(config, stack)
        task.next_batch()
        [path] = journal.steps(tmp_path / "run")
        turns = 0
        for rollout in (rollout for group in journal.read(path) for rollout in group):
            assert rollout.expert_ids_PLK is not None
            last = int(np.flatnonzero(rollout.is_sampled_T)[-1])
            assert last <= len(rollout.expert_ids_PLK) < len(rollout.token_ids_T)
            expected = by_model(task.model, rollout)[: len(rollout.expert_ids_PLK)]
            np.testing.assert_array_equal(rollout.expert_ids_PLK, expected)
            turns = max(turns, len(journal.runs(rollout.is_sampled_T)))
        assert turns > 1


def test_where_nothing_differs_nothing_changes(root: Path, tmp_path: Path) -> None:
    """In float32 engine and trainer choose alike: the same losses and weights, to the bit; also
    from the rollouts on disk."""
    weights, losses = [], []
    replayed = str(tmp_path / "replay")
    for name, changes in (
        ("own", {"rollouts__routing": "own"}),
        ("replay", {}),
        ("again", {"rollouts__replay": replayed}),
    ):
        config = talking(root, tmp_path / name, **changes)
        with ExitStack() as stack:
            task = opened(config, stack)
            rows = [train_step(task, step) for step in range(2)]
            losses.append([row["loss"] for row in rows])
            weights.append([p.detach().clone() for p in task.model.parameters()])
        assert [row.get("routing_differs") for row in rows] == [None if name == "own" else 0.0] * 2
    assert losses[0] == losses[1] == losses[2]
    for other in weights[1:]:
        assert all(torch.equal(a, b) for a, b in zip(weights[0], other, strict=True))


def test_the_trainer_uses_the_engines_experts_where_its_own_are_others(
    root: Path, tmp_path: Path
) -> None:
    """An engine whose balancing bias was lost: every log-probability agrees, although the routers
    do not; and what is balanced is what was used."""
    gaps = {}
    for routing in ("own", "replay"):
        config = talking(root, tmp_path / routing, rollouts__routing=routing)
        with ExitStack() as stack:
            task = opened(config, stack)
            for layer in task.model.layers[1:]:
                layer.ffn.router.bias.copy_(layer.ffn.router.bias.flip(0))  # the engine has it not
            batch = task.next_batch()
            for micro_batch in batch:
                task.loss(task.phases[0], micro_batch, batch)
            gaps[routing] = task._sums["mismatch_max"]
            if routing == "replay":
                assert 0.01 < task._sums["routing_differs"] < 1
                used = np.zeros((L, E), dtype=np.int64)
                for _, data in batch:
                    for layer, ids_TK in enumerate(data.expert_ids_LTK):
                        used[layer] += np.bincount(ids_TK[ids_TK >= 0], minlength=E)
                assert task._load_LE is not None
                rest = task._load_LE.numpy() - used
                unknown = sum(int((data.expert_ids_LTK[0, :, 0] < 0).sum()) for _, data in batch)
                assert rest.min() >= 0
                assert rest.sum(1).tolist() == [K * unknown] * L
    assert gaps["replay"] < 1e-4
    assert gaps["own"] > 0.1


@pytest.mark.slow
def test_a_group_that_goes_on_has_the_experts_of_each_tokens_weights(
    root: Path, tmp_path: Path
) -> None:
    """The routers' biases move fast between the versions, as balancing moves them. Of the groups in
    flight every second one is long, so that it is not complete when the short ones are."""
    environments = [
        {
            "kind": "python",
            "factory": "tests.fixtures.talks:talks",
            "settings": {"tokens": tokens, "name": f"talks-{tokens}"},
        }
        for tokens in (30, 240)
    ]
    config = talking(
        root,
        tmp_path / "ahead",
        environments=environments,
        rollouts__ahead=2,
        rollouts__most_stale=2,
        optim__router_bias_speed=0.1,
    )
    versions = dict[int, Transformer]()
    with ExitStack() as stack:
        task = opened(config, stack)
        versions[0] = tiny_copy(task.model)
        for step in range(4):
            row = train_step(task, step)
            versions[step + 1] = tiny_copy(task.model)
            assert np.isfinite(row["loss"])
    mixed = 0
    for path in journal.steps(tmp_path / "ahead"):
        for rollout in (rollout for group in journal.read(path) for rollout in group):
            assert rollout.expert_ids_PLK is not None
            found = sorted(set(rollout.weight_version_T[rollout.is_sampled_T].tolist()))
            mixed += len(found) > 1
            for version in found:
                # The row that a token was drawn from is the one before it.
                rows = np.flatnonzero(rollout.weight_version_T == version) - 1
                np.testing.assert_array_equal(
                    rollout.expert_ids_PLK[rows], by_model(versions[version], rollout)[rows]
                )
    assert mixed > 0


def tiny_copy(model: Transformer) -> Transformer:
    other = Transformer(model.config)
    other.load_state_dict(model.state_dict())
    return other


def test_a_model_without_experts_has_none_to_replay(root: Path, tmp_path: Path) -> None:
    dense = tmp_path / "dense"
    save_pretrained(tiny_model(llama_config(vocab_size=600, max_positions=512)), dense)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (dense / name).write_bytes((root / "tiny" / name).read_bytes())
    config = talking(root, tmp_path / "run", train__init_from=str(dense))
    with ExitStack() as stack, pytest.raises(ConfigError, match="no experts"):
        opened(config, stack)
