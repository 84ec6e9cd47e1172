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


def test_an_allowance_is_spent_and_begins_anew(
    new_allowance: NewAllowance, raw: redis.Redis
) -> None:
    """So many in a minute, over all hosts; then the key is told when to come back."""
    allowance = new_allowance()
    for _ in range(3):
        allowance.consume("inbox")
    with pytest.raises(TooManyMisses) as spent:
        allowance.consume("inbox")
    allowance.consume("crm")
    raw.delete("pp:a:{inbox}")
    allowance.consume("inbox")

    assert spent.value.retry_after is not None
    assert 0 <= ALLOWANCE_WINDOW - spent.value.retry_after < SLACK
    assert 0 < raw.pttl("pp:a:{inbox}") <= 60_000


def test_an_allowance_of_zero_is_no_limit_and_stores_nothing(
    new_allowance: NewAllowance, raw: redis.Redis
) -> None:
    """PROXY_MISSES_PER_MINUTE=0."""
    allowance = new_allowance(misses_per_minute=0)

    for _ in range(100):
        allowance.consume("inbox")

    assert list(raw.scan_iter()) == []


def test_a_spent_allowance_is_known_without_a_trip(
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


def test_an_allowance_has_a_key_that_ends(
    new_allowance: NewAllowance, raw: redis.Redis
) -> None:
    """Nothing is kept for longer than its minute."""
    new_allowance().consume("inbox")

    [key] = raw.scan_iter()

    assert key == b"pp:a:{inbox}"
    assert 0 < raw.pttl(key) <= ALLOWANCE_WINDOW * 1000
