"""The gate closes, lapses, is probed and opens, on every kind of store."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from proxy.coordination.doubt import DOUBT_THRESHOLD
from proxy.coordination.gate import (
    REMEMBERED_FOR,
    USAGE_TTL,
    Gate,
    Permit,
    RefreshCounter,
)
from proxy.domain.answer import FetchResult
from proxy.domain.backoff import LONGEST_CLOSURE, backoffs
from proxy.domain.failures import (
    Cause,
    GraphTimeout,
    GraphUnavailable,
    LookupFailure,
    Overloaded,
    PermissionMissing,
    Throttled,
    TokenRejected,
)
from proxy.domain.profile import Igsid, Reason
from proxy.storage.entries import EntryStore
from proxy.storage.flask_cache import ProfileCache
from tests.helpers.builders import ADA, a_profile, a_refusal
from tests.helpers.redis_servers import REAL_STORES

TOKEN, NEW_TOKEN = "0badcafe", "600dcafe"
TOKEN_RETRY = 60.0
PROBE_FOR = 6.0
SLACK = 2.0
"""Seconds that a test may take on a busy machine."""

NewGate = Callable[..., Gate]


@pytest.fixture
def new_gate(cache: ProfileCache) -> NewGate:
    def build(
        page: str = "default", monotonic: Callable[[], float] = time.monotonic
    ) -> Gate:
        return Gate(
            cache,
            page,
            guard=EntryStore(cache, page).guard,
            backoffs=backoffs(TOKEN_RETRY),
            probe_for=PROBE_FOR,
            usage_soft=75,
            monotonic=monotonic,
        )

    return build


@pytest.fixture
def gate(new_gate: NewGate) -> Gate:
    return new_gate()


def fail(gate: Gate, failure: LookupFailure, token: str = TOKEN) -> float:
    """Make one call to Meta that fails, and return for how long the gate is closed."""
    permit = gate.acquire(token)
    return gate.fail(permit, failure, FetchResult(failure, None, token))


def fail_late(gate: Gate, failure: LookupFailure) -> float:
    """The same for a call that was permitted before the gate was closed."""
    permit = Permit(TOKEN, "", None)
    return gate.fail(permit, failure, FetchResult(failure, None, TOKEN))


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


def test_open_gate_stores_nothing(gate, raw) -> None:
    """No key is written for a call that succeeds."""
    succeed(gate)

    assert gate.acquire(TOKEN) == Permit(TOKEN, "", None)
    assert list(raw.scan_iter()) == []


@pytest.mark.parametrize(
    ("failure", "times", "cause", "seconds"),
    [
        (Throttled(retry_after=180.0), 1, Throttled, 180.0),
        (Throttled(), 1, Throttled, 60.0),
        (TokenRejected(), 1, TokenRejected, TOKEN_RETRY),
        (PermissionMissing(), 20, PermissionMissing, 60.0),
        (GraphUnavailable(), 5, GraphUnavailable, 5.0),
        (GraphTimeout(), 5, GraphUnavailable, 5.0),
    ],
)
def test_each_cause_closes_the_gate_after_its_number_of_failures(
    gate, failure, times, cause, seconds
) -> None:
    """A stopped call raises the cause, with the time left, and Meta is not asked."""
    for _ in range(times - 1):
        assert fail(gate, failure) == 0.0

    closed_for = fail(gate, failure)
    stopped = stopped_by(gate)

    assert closed_for == about(seconds)
    assert type(stopped) is cause
    assert stopped.retry_after == about(seconds)
    assert stopped.asked is False


@pytest.mark.parametrize(
    ("failure", "times"), [(PermissionMissing(), 20), (GraphTimeout(), 5)]
)
def test_success_resets_the_count_of_failures(gate, failure, times) -> None:
    """Only failures in a row count."""
    for _ in range(times - 1):
        fail(gate, failure)
    succeed(gate)

    for _ in range(times - 1):
        assert fail(gate, failure) == 0.0
    assert fail(gate, failure) > 0.0


@pytest.mark.parametrize("reason", Reason)
def test_refusal_resets_the_permission_cause_unless_it_is_unavailable(
    gate, reason
) -> None:
    """Meta also answers 100/33 to an app that may see no people at all."""
    for _ in range(19):
        fail(gate, PermissionMissing())
    succeed(gate, a_refusal(reason=reason))

    closed_for = fail(gate, PermissionMissing())

    assert bool(closed_for) is (reason is Reason.UNAVAILABLE)


def test_causes_are_counted_apart(gate) -> None:
    """Four timeouts and a missing permission are not five of anything."""
    for _ in range(4):
        fail(gate, GraphTimeout())
    fail(gate, PermissionMissing())

    assert gate.acquire(TOKEN).probe == ""


def test_closure_is_only_lengthened(gate, raw) -> None:
    """Calls that were under way may report a longer wait, or a shorter one."""
    fail(gate, Throttled(retry_after=300.0))

    assert fail_late(gate, Throttled(retry_after=10.0)) == about(300.0)
    assert fail_late(gate, Throttled()) == about(300.0)
    assert fail_late(gate, Throttled(retry_after=600.0)) == about(600.0)


def test_closure_lasts_an_hour_at_most(gate) -> None:
    """However long Meta asks us to wait."""
    assert fail(gate, Throttled(retry_after=1e9)) == about(LONGEST_CLOSURE)


def test_gate_raises_the_cause_that_closes_it_longest(gate) -> None:
    """Otherwise a caller would come back too early."""
    fail_late(gate, TokenRejected())
    fail_late(gate, Throttled(retry_after=900.0))

    assert type(stopped_by(gate)) is Throttled


def test_rejected_token_stops_only_processes_that_use_it(gate) -> None:
    """A new token opens the gate, on every host that has it."""
    fail(gate, TokenRejected())

    assert type(stopped_by(gate, TOKEN)) is TokenRejected
    assert gate.acquire(NEW_TOKEN) == Permit(NEW_TOKEN, "", None)


def test_gate_is_per_page(new_gate) -> None:
    """A throttle of one business is not another's."""
    fail(new_gate("shop"), Throttled())

    assert new_gate("studio").acquire(TOKEN).probe == ""


def test_lapsed_cause_lets_one_caller_probe(gate, raw) -> None:
    """The others are stopped for as long as that one call may take."""
    fail(gate, Throttled())
    lapse(raw, Cause.THROTTLED)

    probe = gate.acquire(TOKEN)

    assert probe.probe
    assert stopped_by(gate).retry_after == about(PROBE_FOR)


def test_successful_probe_opens_the_gate(gate, raw, caplog) -> None:
    """Back-off and count are forgotten, and the log says so."""
    caplog.set_level(logging.INFO)
    fail(gate, Throttled())
    lapse(raw, Cause.THROTTLED)

    succeed(gate)

    assert gate.acquire(TOKEN).probe == ""
    assert list(raw.scan_iter()) == []
    assert [
        r.message for r in caplog.records if r.name == "proxy.coordination.gate"
    ] == [
        "gate closed",
        "gate opened",
    ]


@pytest.mark.parametrize(
    ("failure", "cause", "closures"),
    [
        (Throttled(), Cause.THROTTLED, [60, 120, 240, 480, 900, 900]),
        (GraphTimeout(), Cause.UNAVAILABLE, [5, 10, 20, 40, 80, 120, 120]),
        (TokenRejected(), Cause.TOKEN_REJECTED, [60, 60, 60]),
        (PermissionMissing(), Cause.PERMISSION, [60, 60]),
    ],
)
def test_failed_probe_closes_the_gate_for_twice_as_long(
    gate, raw, failure, cause, closures
) -> None:
    """Up to a bound."""
    for _ in range(backoffs(TOKEN_RETRY)[cause].failures - 1):
        fail(gate, failure)

    for seconds in closures:
        assert fail(gate, failure) == about(seconds)
        lapse(raw, cause)


def test_failures_within_one_closure_do_not_lengthen_the_next(gate, raw) -> None:
    """Fifty calls that were under way together fail together."""
    fail(gate, Throttled())
    for _ in range(50):
        fail_late(gate, Throttled())
    lapse(raw, Cause.THROTTLED)

    assert fail(gate, Throttled()) == about(120.0)


def test_probe_lapses_when_its_caller_dies(gate, raw) -> None:
    """Like a lease: then the next caller probes."""
    fail(gate, Throttled())
    lapse(raw, Cause.THROTTLED)
    dead = gate.acquire(TOKEN)
    lapse(raw, Cause.THROTTLED)

    successor = gate.acquire(TOKEN)

    assert successor.probe not in ("", dead.probe)


def test_success_of_an_earlier_call_does_not_open_the_gate(gate) -> None:
    """It shows how things were, not how they are."""
    before = gate.acquire(TOKEN)
    fail(gate, Throttled(retry_after=300.0))

    succeed_with(gate, before, a_profile())

    assert stopped_by(gate).retry_after == about(300.0)


def test_released_probe_goes_to_the_next_caller(gate, raw) -> None:
    """Otherwise all would wait for a call that is not made."""
    fail(gate, Throttled())
    lapse(raw, Cause.THROTTLED)

    gate.release_probe(gate.acquire(TOKEN))

    assert gate.acquire(TOKEN).probe


def test_probe_that_fails_for_another_cause_goes_to_the_next_caller(gate, raw) -> None:
    """A timeout says nothing of the throttle."""
    fail(gate, Throttled())
    lapse(raw, Cause.THROTTLED)

    fail(gate, GraphTimeout())

    assert gate.acquire(TOKEN).probe


@pytest.mark.parametrize("store_url", REAL_STORES, indirect=True)
def test_one_of_many_concurrent_callers_probes(gate, raw) -> None:
    """On a real server, with real threads."""
    fail(gate, Throttled())
    lapse(raw, Cause.THROTTLED)

    def is_permitted(_: int) -> bool:
        try:
            return bool(gate.acquire(TOKEN))
        except Throttled:
            return False

    with ThreadPoolExecutor(32) as pool:
        assert list(pool.map(is_permitted, range(32))).count(True) == 1


def test_permit_has_the_token_noted_in_the_store(gate, cache) -> None:
    """An emptied store must learn again which token is in use."""
    before = gate.acquire(NEW_TOKEN).noted_token
    EntryStore(cache, "default").note_token(TOKEN)

    assert (before, gate.acquire(NEW_TOKEN).noted_token) == (None, TOKEN)


def test_usage_is_shared_and_kept_for_five_minutes(gate, new_gate, raw) -> None:
    """One process's reading holds back the others."""
    succeed_with(gate, gate.acquire(TOKEN), a_profile(), 80.5)

    assert new_gate().acquire(TOKEN).usage_percent == 80.5
    assert 0 < raw.pttl("pp:u:{default}") <= USAGE_TTL * 1000


def test_failure_stores_the_usage_too(gate) -> None:
    """During a throttle it matters most."""
    failure = GraphUnavailable()
    gate.fail(gate.acquire(TOKEN), failure, FetchResult(failure, 99.0, TOKEN))

    assert gate.acquire(TOKEN).usage_percent == 99.0


def test_reply_without_usage_keeps_the_last_reading(gate) -> None:
    """Absent is not zero."""
    succeed_with(gate, gate.acquire(TOKEN), a_profile(), 80.0)
    succeed_with(gate, gate.acquire(TOKEN), a_profile(), None)

    assert gate.acquire(TOKEN).usage_percent == 80.0


@pytest.mark.parametrize(("percent", "stops"), [(74.9, False), (75.0, True)])
def test_soft_limit_stops_only_background_calls(gate, percent, stops) -> None:
    """Callers who wait still get their answer."""
    succeed_with(gate, gate.acquire(TOKEN), a_profile(), percent)

    assert gate.acquire(TOKEN).usage_percent == percent
    if stops:
        with pytest.raises(Overloaded):
            gate.acquire(TOKEN, in_background=True)
    else:
        gate.acquire(TOKEN, in_background=True)


def test_background_call_above_the_soft_limit_takes_no_probe(gate, raw) -> None:
    """Otherwise the gate would be closed for a call that is not made."""
    succeed_with(gate, gate.acquire(TOKEN), a_profile(), 80.0)
    fail(gate, Throttled())
    lapse(raw, Cause.THROTTLED)

    with pytest.raises(Overloaded):
        gate.acquire(TOKEN, in_background=True)

    assert gate.acquire(TOKEN).probe


def person(number: int) -> Igsid:
    return Igsid(f"1254002{number:09d}")


def test_doubt_needs_ten_different_people_in_a_row(gate) -> None:
    """A lost permission is likelier than that they all left at once."""
    doubts = [gate.doubt(person(n)) for n in range(DOUBT_THRESHOLD + 1)]

    assert doubts == [False] * (DOUBT_THRESHOLD - 1) + [True, True]


def test_doubt_counts_one_person_once(gate) -> None:
    """However often Meta does not show them."""
    assert not any(gate.doubt(ADA) for _ in range(50))


def test_doubt_is_ended_only_by_a_profile(gate) -> None:
    """A refusal does not show that we may see people."""
    for n in range(DOUBT_THRESHOLD - 1):
        gate.doubt(person(n))
    succeed(gate, a_refusal())
    after_refusal = gate.doubt(person(99))
    succeed(gate, a_profile())
    after_profile = gate.doubt(person(100))

    assert (after_refusal, after_profile) == (True, False)


def test_every_key_has_a_ttl_and_none_has_an_igsid(gate, raw) -> None:
    """An erasure must reach all that is stored of a person."""
    for failure in (Throttled(), TokenRejected(), PermissionMissing(), GraphTimeout()):
        fail_late(gate, failure)
    succeed_with(gate, Permit(TOKEN, "", None), a_refusal(), 20.0)
    gate.doubt(ADA)
    gate.count(RefreshCounter.REFRESHED)

    keys = {key.decode(): raw.pttl(key) for key in raw.scan_iter()}

    assert len(keys) == 5
    assert all(0 < ttl <= 86_400_000 for ttl in keys.values())
    assert keys[cause_key(Cause.THROTTLED)] > REMEMBERED_FOR * 1000
    assert ADA.encode() not in b"".join(raw.smembers("pp:d:{default}"))


def test_read_state_shows_all_and_changes_nothing(gate, raw) -> None:
    """For operators."""
    fail(gate, GraphTimeout())
    gate.count(RefreshCounter.REFRESH_FAILED)
    gate.doubt(ADA)
    failure = Throttled(retry_after=120.0)
    gate.fail(gate.acquire(TOKEN), failure, FetchResult(failure, 100.0, TOKEN))

    state, again = gate.read_state(TOKEN), gate.read_state(TOKEN)

    causes = {cause.cause: cause for cause in state.causes}
    assert causes[Cause.THROTTLED].closed_for == about(120.0)
    assert causes[Cause.UNAVAILABLE].failures == 1
    assert causes[Cause.UNAVAILABLE].closed_for == 0.0
    assert not any(cause.is_probed for cause in state.causes)
    assert (state.usage_percent, state.doubted) == (100.0, 1)
    assert state.refreshes == {
        RefreshCounter.REFRESHED: 0,
        RefreshCounter.REFRESH_FAILED: 1,
    }
    assert again.refreshes == state.refreshes


@pytest.mark.parametrize(
    ("failure", "level"),
    [(Throttled(), "WARNING"), (TokenRejected(), "ERROR")],
)
def test_closing_is_logged_once_at_its_causes_level(
    gate, caplog, failure, level
) -> None:
    """A dead token does not heal by itself, so it is an error."""
    for _ in range(3):
        fail_late(gate, failure)

    lines = [r for r in caplog.records if r.message == "gate closed"]

    assert [line.levelname for line in lines] == [level]
    assert lines[0].seconds == about(60.0)


def test_late_failure_takes_no_probe_from_its_holder(gate, raw) -> None:
    """It lengthens the closure; the probe's success is later knowledge, and opens."""
    fail(gate, Throttled())
    lapse(raw, Cause.THROTTLED)
    probe = gate.acquire(TOKEN)
    fail_late(gate, Throttled(retry_after=300.0))

    succeed_with(gate, probe, a_profile())

    assert gate.acquire(TOKEN).probe == ""


def test_permission_probe_answered_100_33_goes_to_the_next_caller(gate, raw) -> None:
    """100/33 does not say whether the permission is there."""
    for _ in range(20):
        fail(gate, PermissionMissing())
    lapse(raw, Cause.PERMISSION)

    succeed(gate, a_refusal(reason=Reason.UNAVAILABLE))

    assert gate.acquire(TOKEN).probe
