"""The calls to Meta that one API key may cause, on every kind of store."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import redis

from proxy.coordination.allowance import ALLOWANCE_WINDOW, Allowance
from proxy.domain.failures import TooManyMisses
from proxy.storage.entries import EntryStore
from proxy.storage.flask_cache import ProfileCache

SLACK = 2.0
"""Seconds that a test may take on a busy machine."""

NewAllowance = Callable[..., Allowance]


@pytest.fixture
def new_allowance(cache: ProfileCache) -> NewAllowance:
    def build(
        misses_per_minute: int = 3, monotonic: Callable[[], float] = time.monotonic
    ) -> Allowance:
        return Allowance(
            cache,
            guard=EntryStore(cache, "default").guard,
            misses_per_minute=misses_per_minute,
            monotonic=monotonic,
        )

    return build


def test_allowance_is_used_up_and_starts_again(
    new_allowance: NewAllowance, raw: redis.Redis
) -> None:
    """Counted over all hosts; the failure says when the next one starts."""
    allowance = new_allowance()
    for _ in range(3):
        allowance.consume("inbox")
    with pytest.raises(TooManyMisses) as refused:
        allowance.consume("inbox")
    allowance.consume("crm")
    raw.delete("pp:a:{inbox}")
    allowance.consume("inbox")

    assert refused.value.retry_after is not None
    assert 0 <= ALLOWANCE_WINDOW - refused.value.retry_after < SLACK
    assert 0 < raw.pttl("pp:a:{inbox}") <= 60_000


def test_allowance_of_zero_is_no_limit_and_stores_nothing(
    new_allowance: NewAllowance, raw: redis.Redis
) -> None:
    """PROXY_MISSES_PER_MINUTE=0."""
    allowance = new_allowance(misses_per_minute=0)

    for _ in range(100):
        allowance.consume("inbox")

    assert list(raw.scan_iter()) == []


def test_check_stops_a_spent_allowance_without_a_trip(
    new_allowance: NewAllowance, raw: redis.Redis
) -> None:
    """Until the window ends, and not for other keys."""
    now = [0.0]
    allowance = new_allowance(monotonic=lambda: now[0])
    for _ in range(3):
        allowance.consume("inbox")
    allowance.check("inbox")
    with pytest.raises(TooManyMisses):
        allowance.consume("inbox")
    raw.delete("pp:a:{inbox}")

    with pytest.raises(TooManyMisses):
        allowance.check("inbox")
    allowance.check("crm")
    now[0] = 61.0
    allowance.check("inbox")


def test_allowance_key_has_a_ttl_of_a_minute(
    new_allowance: NewAllowance, raw: redis.Redis
) -> None:
    """Nothing is kept for longer."""
    new_allowance().consume("inbox")

    [key] = raw.scan_iter()

    assert key == b"pp:a:{inbox}"
    assert 0 < raw.pttl(key) <= ALLOWANCE_WINDOW * 1000
