"""Pauses between tries: doubled, bounded, spread, and as the endpoint asks."""

from __future__ import annotations

import pytest

from selenite.agent.models.failure import RETRIED, Fault, Reason
from selenite.agent.models.retry import RetryPolicy
from selenite.agent.models.transport import retry_after
from selenite.errors import ConfigError

POLICY = RetryPolicy(retries=12, first_pause=1.0, longest_pause=100.0)
BROKEN = Fault(Reason.SERVER_ERROR, "")


def test_pauses_double_up_to_the_longest() -> None:
    for retry in range(12):
        pauses = [POLICY.pause(BROKEN, retry, f"key {number}") for number in range(50)]
        whole = min(2.0**retry, 100.0)
        assert all(pause is not None and whole / 2 <= pause <= whole for pause in pauses)
        assert len(set(pauses)) == 50  # who failed together does not come back together
    assert POLICY.pause(BROKEN, 3, "key") == POLICY.pause(BROKEN, 3, "key")
    assert POLICY.pause(BROKEN, 12, "key") is None
    assert RetryPolicy(retries=5000).pause(BROKEN, 4000, "key") is not None


def test_what_the_endpoint_asks_for() -> None:
    for seconds, pause in ((0.0, 0.0), (7.5, 7.5), (100.0, 100.0), (100.5, None)):
        assert POLICY.pause(Fault(Reason.RATE_LIMITED, "", seconds), 0, "key") == pause


@pytest.mark.parametrize("reason", list(Reason))
def test_what_is_asked_again(reason: Reason) -> None:
    assert (POLICY.pause(Fault(reason, ""), 0, "key") is not None) == (reason in RETRIED)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("7", 7.0),
        ("0.25", 0.25),
        ("Sat, 28 Nov 2026 10:01:30 GMT", 90.0),
        ("Sat, 28 Nov 2026 09:00:00 GMT", 0.0),
        ("", None),
        ("soon", None),
        ("-3", None),
        (".", None),
        ("1.2.3", None),
    ],
)
def test_retry_after(said: str, seconds: float | None) -> None:
    date = "Sat, 28 Nov 2026 10:00:00 GMT"
    assert retry_after({"Retry-After": said, "Date": date}) == seconds
    if ":" in said:
        assert retry_after({"Retry-After": said}) is None
        assert retry_after({"Retry-After": said, "Date": "today"}) is None
        assert (
            retry_after({"Retry-After": said, "Date": date.removesuffix("GMT") + "-0000"}) is None
        )


@pytest.mark.parametrize(
    "fields",
    [
        {"retries": -1},
        {"first_pause": -1.0},
        {"first_pause": 9.0, "longest_pause": 8.0},
        {"longest_pause": float("inf")},
        {"first_pause": float("nan")},
    ],
)
def test_what_is_no_policy(fields: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="must be"):
        RetryPolicy(**fields)  # type: ignore[arg-type]
