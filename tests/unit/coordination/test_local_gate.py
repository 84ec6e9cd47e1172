"""The gate of one process, while the store is away."""

from __future__ import annotations

import pytest

from proxy.coordination.local_gate import LocalGate
from proxy.domain.answer import FetchResult
from proxy.domain.backoff import backoffs
from proxy.domain.failures import (
    GraphTimeout,
    GraphUnavailable,
    LookupFailure,
    PermissionMissing,
    Throttled,
    TokenRejected,
)
from tests.helpers.fakes import FakeClock

TOKEN = "0badcafe"


def local_gate() -> LocalGate:
    return LocalGate(backoffs(60.0), FakeClock())


@pytest.mark.parametrize(
    "failure",
    [
        GraphUnavailable(),
        GraphUnavailable.about_person(),
        GraphTimeout(),
        PermissionMissing(),
    ],
)
def test_failures_that_may_be_about_one_person_do_not_close_it(failure) -> None:
    """However many: people are not counted without the store."""
    gate = local_gate()

    for _ in range(50):
        gate.fail(failure, FetchResult(failure, None, TOKEN))

    gate.acquire(TOKEN)


@pytest.mark.parametrize("failure", [Throttled(), TokenRejected()])
def test_failures_that_are_about_us_close_it(failure: LookupFailure) -> None:
    """One is enough, about any person."""
    gate = local_gate()

    gate.fail(failure, FetchResult(failure, None, TOKEN))

    with pytest.raises(type(failure)) as stopped:
        gate.acquire(TOKEN)
    assert stopped.value.retry_after == 60.0
