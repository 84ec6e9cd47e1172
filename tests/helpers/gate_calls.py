"""Calls to Meta as a gate sees them, for tests of the gate."""

from __future__ import annotations

from itertools import count

import pytest
import redis

from proxy.coordination.gate import Gate
from proxy.coordination.permit import Permit
from proxy.domain.answer import FetchResult
from proxy.domain.failures import Cause, LookupFailure
from proxy.domain.profile import Igsid
from tests.helpers.builders import a_profile

TOKEN, NEW_TOKEN = "0badcafe", "600dcafe"
TOKEN_RETRY = 60.0
PROBE_FOR = 6.0
SLACK = 2.0
"""Seconds that a test may take on a busy machine."""

strangers = (Igsid(f"1254009{number:09d}") for number in count())
"""People about whom no other test asks, each different."""


def fail(
    gate: Gate,
    failure: LookupFailure,
    igsid: Igsid | None = None,
    *,
    token: str = TOKEN,
    client: str | None = None,
) -> float:
    """Make one call to Meta that fails, and return for how long the gate is closed.

    About *igsid*, or another person each time, for the API key *client*.
    """
    permit = gate.acquire(token, client=client)
    return fail_with(gate, permit, failure, igsid)


def fail_late(gate: Gate, failure: LookupFailure) -> float:
    """The same for a call that was permitted before the gate was closed."""
    return fail_with(gate, Permit(TOKEN, "", None), failure)


def fail_with(
    gate: Gate, permit: Permit, failure: LookupFailure, igsid: Igsid | None = None
) -> float:
    result = FetchResult(failure, None, permit.token_digest)
    return gate.fail(permit, failure, result, igsid or next(strangers)).closed_for


def succeed_with(
    gate: Gate, permit: Permit, outcome, percent: float | None = None
) -> None:
    gate.succeed(permit, outcome, FetchResult(outcome, percent, TOKEN))


def succeed(gate: Gate, outcome=None) -> None:
    succeed_with(gate, gate.acquire(TOKEN), outcome or a_profile(), None)


def cause_key(cause: Cause, token: str = TOKEN) -> str:
    name = f"{cause}:{token}" if cause is Cause.TOKEN_REJECTED else cause.value
    return f"pp:g:{{default}}:{name}"


def lapse(raw: redis.Redis, cause: Cause) -> None:
    """End the time for which *cause* keeps the gate closed."""
    assert raw.hexists(cause_key(cause), "until")
    raw.hset(cause_key(cause), "until", 1)


def stopped_by(gate: Gate, token: str = TOKEN) -> LookupFailure:
    with pytest.raises(LookupFailure) as stopped:
        gate.acquire(token)
    return stopped.value


def about(seconds: float) -> object:
    return pytest.approx(seconds - SLACK / 2, abs=SLACK / 2 + 0.01)
