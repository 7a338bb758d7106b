"""Log-probabilities against ``torch.log_softmax``, value and gradient, by chunks of any size."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from selenite.ops import logprobs, native
from selenite.ops.logprobs import log_softmax, token_logprobs, token_logprobs_and_hits
from selenite.types import IGNORED

D, V = 16, 37


def case(T: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(T)
    hidden_TD = torch.randn(T, D, generator=generator).to(dtype).requires_grad_()
    head_VD = torch.randn(V, D, generator=generator).requires_grad_()
    return hidden_TD, head_VD, torch.randint(V, (T,), generator=generator)


def by_torch(hidden_TD: Tensor, head_VD: Tensor, targets_T: Tensor) -> Tensor:
    logits = hidden_TD @ head_VD.to(hidden_TD.dtype).T
    chosen = logits.float().log_softmax(-1).gather(1, targets_T.clamp(min=0)[:, None])[:, 0]
    return torch.where(targets_T == IGNORED, 0.0, chosen)


@pytest.mark.parametrize("rows_of_a_chunk", [1, 2, 5, 11, 12, 100])
def test_value_and_gradients(rows_of_a_chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """12 rows: chunks that divide them, that leave a rest, of all rows, and larger."""
    monkeypatch.setattr(logprobs, "_CHUNK_ELEMENTS", rows_of_a_chunk * V)
    hidden, head, targets = case(12)
    targets[[0, 4, 11]] = IGNORED
    weights = torch.linspace(-1, 2, 12)
    found, expected = token_logprobs(hidden, head, targets), by_torch(hidden, head, targets)
    assert found.dtype == torch.float32
    # Logits of order ten in float32.
    assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert (found[[0, 4, 11]] == 0).all()
    mine = torch.autograd.grad((found * weights).sum(), (hidden, head))
    theirs = torch.autograd.grad((expected * weights).sum(), (hidden, head))
    for a, b in zip(mine, theirs, strict=True):
        assert_close(a, b, atol=2e-5, rtol=1e-5)
    assert (mine[0][[0, 4, 11]] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows_of_a_chunk", [5, 100])
def test_rows_of_a_temperature_of_their_own(
    rows_of_a_chunk: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logprobs, "_CHUNK_ELEMENTS", rows_of_a_chunk * V)
    hidden, head, targets = case(12, dtype)
    targets[[0, 4, 11]] = IGNORED
    temperature_T = torch.linspace(0.3, 2, 12)
    logits_TV = (hidden @ head.to(dtype).T).float() / temperature_T[:, None]
    chosen_T = logits_TV.log_softmax(-1).gather(1, targets.clamp(min=0)[:, None])[:, 0]
    expected = torch.where(targets == IGNORED, 0.0, chosen_T)
    found = token_logprobs(hidden, head, targets, temperature_T)
    assert_close(found, expected, atol=2e-5, rtol=1e-5)
    mine = torch.autograd.grad(found.sum(), (hidden, head))
    theirs = torch.autograd.grad(expected.sum(), (hidden, head))
    # In bfloat16 gradients are rounded to 8 bits, here and there.
    tolerance = 5e-5 if dtype == torch.float32 else 2e-2
    for a, b in zip(mine, theirs, strict=True):
        assert a.dtype == b.dtype
        assert_close(a, b, atol=tolerance * float(b.abs().max()), rtol=0)


@pytest.mark.parametrize("rows_of_a_chunk", [5, 100])
def test_hits_are_the_rows_whose_target_is_greedy(
    rows_of_a_chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logprobs, "_CHUNK_ELEMENTS", rows_of_a_chunk * V)
    hidden, head, targets = case(12)
    with torch.no_grad():
        hidden[4] = 10 * head[0]
    greedy = (hidden @ head.T).argmax(-1)
    assert greedy[4] == 0
    targets[::2] = greedy[::2]
    targets[4] = IGNORED  # not to be taken for token 0
    found, hit = token_logprobs_and_hits(hidden, head, targets)
    assert torch.equal(hit, targets == greedy)
    plain = token_logprobs(hidden, head, targets)
    assert torch.equal(found, plain)
    mine = torch.autograd.grad(found.sum(), (hidden, head))
    theirs = torch.autograd.grad(plain.sum(), (hidden, head))
    assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


def test_a_vocabulary_larger_than_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logprobs, "_CHUNK_ELEMENTS", V // 2)
    hidden, head, targets = case(3)
    assert_close(token_logprobs(hidden, head, targets), by_torch(hidden, head, targets))


def test_all_rows_ignored() -> None:
    hidden, head, targets = case(4)
    out = token_logprobs(hidden, head, torch.full_like(targets, IGNORED))
    assert (out == 0).all()
    for gradient in torch.autograd.grad(out.sum(), (hidden, head)):
        assert (gradient == 0).all()


@pytest.mark.parametrize("target", [V, -100])
def test_other_targets_outside_the_vocabulary_are_refused(target: int) -> None:
    """-100, other libraries' mark for an ignored target, must not be trained on as token 0."""
    hidden, head, targets = case(4)
    targets[2] = target
    with pytest.raises(RuntimeError, match="out of bounds"):
        token_logprobs(hidden, head, targets)


def test_gradient_check_in_float64() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(5, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    head = torch.randn(7, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([1, IGNORED, 6, 0, 3])
    found = torch.autograd.grad(token_logprobs(hidden, head, targets).sum(), (hidden, head))
    theirs = torch.autograd.grad(by_torch(hidden, head, targets).sum(), (hidden, head))
    for a, b in zip(found, theirs, strict=True):
        assert_close(a, b, atol=1e-6, rtol=1e-5)  # the softmax is float32 in both


def test_a_frozen_head_gets_no_gradient_and_changes_no_other() -> None:
    hidden, head, targets = case(40)
    (expected,) = torch.autograd.grad(token_logprobs(hidden, head, targets).sum(), hidden)
    frozen = head.detach()
    (found,) = torch.autograd.grad(token_logprobs(hidden, frozen, targets).sum(), hidden)
    assert torch.equal(found, expected)


def test_bfloat16_hidden_over_a_float32_master() -> None:
    """Products round at 2**-9 of logits of order ten; the float32 softmax adds nothing."""
    hidden, head, targets = case(40, torch.bfloat16)
    found = token_logprobs(hidden, head, targets)
    assert found.dtype == torch.float32
    assert_close(found, by_torch(hidden, head, targets), atol=1e-5, rtol=1e-5)  # same products
    wide = by_torch(hidden.float(), head, targets)
    assert_close(found, wide, atol=0.15, rtol=0)
    mine = torch.autograd.grad(found.sum(), (hidden, head))
    theirs = torch.autograd.grad(wide.sum(), (hidden, head))
    assert mine[0].dtype == torch.bfloat16
    assert mine[1].dtype == torch.float32
    for a, b in zip(mine, theirs, strict=True):
        assert (a - b).norm() / b.norm() < 2e-2


def test_log_softmax() -> None:
    logits = torch.randn(6, V) * 50
    assert_close(log_softmax(logits), logits.log_softmax(-1), atol=2e-5, rtol=1e-6)
    assert log_softmax(logits.bfloat16()).dtype == torch.float32


def test_logits_that_overflow_exp() -> None:
    hidden, head, targets = case(6)
    out = token_logprobs(hidden * 1000, head, targets)
    assert out.isfinite().all()
    assert (out <= 0).all()


kernels = pytest.mark.skipif(not native.is_available(), reason=native.availability().reason)


@kernels
@pytest.mark.parametrize("rows_of_a_chunk", [1, 5, 12, 100])
@pytest.mark.parametrize("vocab", [1, 2, 31, 37, 1000])
def test_the_kernel_equals_the_plain_path(
    vocab: int, rows_of_a_chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On logits of the same products; gradients differ by a rounding to bfloat16 here and there."""
    monkeypatch.setattr(logprobs, "_KERNEL_CHUNK_ELEMENTS", rows_of_a_chunk * vocab)
    generator = torch.Generator().manual_seed(vocab)
    hidden = torch.randn(12, D, generator=generator).bfloat16().requires_grad_()
    head = torch.randn(vocab, D, generator=generator, requires_grad=True)
    targets = torch.randint(vocab, (12,), generator=generator)
    targets[:4] = (hidden @ head.bfloat16().T).argmax(-1)[:4]
    targets[[0, 11]] = IGNORED
    weights = torch.linspace(-1, 2, 12)

    def run() -> tuple[Tensor, ...]:
        found, hit = token_logprobs_and_hits(hidden, head, targets)
        return found, hit, *torch.autograd.grad((found * weights).sum(), (hidden, head))

    mine = run()
    monkeypatch.setattr(native, "serves", lambda *_: False)
    theirs = run()
    assert_close(mine[0], theirs[0], atol=1e-5, rtol=1e-6)
    assert torch.equal(mine[1], theirs[1])
    for a, b in zip(mine[2:], theirs[2:], strict=True):
        # Sums of a few products of which each may be rounded the other way.
        assert_close(a.float(), b.float(), atol=2e-2, rtol=2e-2)
    assert (mine[2][[0, 11]] == 0).all()


@kernels
def test_rows_that_are_not_finite_are_as_in_the_plain_path() -> None:
    inf, nan = torch.inf, torch.nan
    rows = [[1.0, -inf, 2.0], [inf, 1, 2], [inf, inf, 0], [-inf] * 3, [nan, 1, inf], [2, nan, nan]]
    rows += [[3.0, 3.0, 1.0], [300.0, -300.0, 0.0]]
    logits_TV = torch.tensor(rows).bfloat16()
    grad_T1 = torch.linspace(-1, 1, len(rows))[:, None]
    for target in range(3):
        index_T1 = torch.full((len(rows), 1), target)
        lse_T, hit_T = torch.empty(len(rows)), torch.empty(len(rows), dtype=torch.bool)
        native.call("softmax_rows_forward", logits_TV, index_T1, lse_T, hit_T, *logits_TV.shape)
        assert_close(lse_T, logprobs.logsumexp(logits_TV), equal_nan=True)
        assert torch.equal(hit_T, logits_TV.argmax(-1) == target)
        plain = logprobs._to_gradient(logits_TV, index_T1, lse_T, grad_T1)
        mine = logprobs._to_gradient_by_kernel(logits_TV.clone(), index_T1, lse_T, grad_T1)
        assert_close(mine, plain, equal_nan=True, atol=0, rtol=2**-7)


@kernels
def test_a_second_backward_pass_through_kept_logits_is_refused() -> None:
    hidden, head, targets = case(4, torch.bfloat16)
    total = token_logprobs(hidden, head, targets).sum()
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()
