"""The gate closes, lapses, is probed and opens, on every kind of store."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor

import pytest

from proxy.coordination.gate import FAILING_FOR
from proxy.coordination.gate_state import RefreshCounter
from proxy.coordination.permit import REMEMBERED_FOR, USAGE_TTL, Permit
from proxy.domain.answer import FetchResult
from proxy.domain.backoff import LONGEST_CLOSURE
from proxy.domain.failures import (
    Cause,
    GraphTimeout,
    GraphUnavailable,
    Overloaded,
    PermissionMissing,
    Throttled,
    TokenRejected,
)
from proxy.storage.entries import EntryStore
from tests.helpers.builders import ADA, a_profile
from tests.helpers.gate_calls import (
    NEW_TOKEN,
    PROBE_FOR,
    TOKEN,
    TOKEN_RETRY,
    about,
    cause_key,
    fail,
    fail_late,
    fail_with,
    lapse,
    stopped_by,
    succeed,
    succeed_with,
)
from tests.helpers.redis_servers import REAL_STORES
from tests.helpers.world import BEN


def test_open_gate_stores_no_cause(gate, raw) -> None:
    """A call that succeeds leaves its person as a witness, and a mark of success."""
    succeed(gate)

    assert gate.acquire(TOKEN) == Permit(TOKEN, "", None)
    assert sorted(raw.scan_iter()) == [
        b"pp:d:{default}:success",
        b"pp:d:{default}:witnesses",
    ]


@pytest.mark.parametrize(
    ("failure", "times", "cause", "seconds"),
    [
        (Throttled(retry_after=180.0), 1, Throttled, 180.0),
        (Throttled(), 1, Throttled, 60.0),
        (TokenRejected(), 1, TokenRejected, TOKEN_RETRY),
        (PermissionMissing(), 2, PermissionMissing, 60.0),
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


def test_success_resets_the_count_of_failures(gate) -> None:
    """Only failures in a row count."""
    for _ in range(4):
        fail(gate, GraphTimeout())
    succeed(gate)

    for _ in range(4):
        assert fail(gate, GraphTimeout()) == 0.0
    assert fail(gate, GraphTimeout()) > 0.0


def test_failures_about_two_people_do_not_close_the_gate(gate) -> None:
    """However often they are asked about: that says little of Meta."""
    for n in range(40):
        assert fail(gate, GraphUnavailable(), (ADA, BEN)[n % 2]) == 0.0

    assert fail(gate, GraphUnavailable()) == about(5.0)


def test_failures_about_one_person_close_the_gate_if_no_call_succeeds(
    gate, raw
) -> None:
    """After two minutes: nothing shows that Meta answers about other people."""
    for _ in range(5):
        assert fail(gate, GraphTimeout(), ADA) == 0.0
    earlier = -int(FAILING_FOR * 1000)
    raw.hincrby(cause_key(Cause.UNAVAILABLE), "since", earlier)

    assert fail(gate, GraphTimeout(), ADA) == about(5.0)


def test_reply_that_is_odd_about_one_person_counts_for_no_gate(gate, raw) -> None:
    """Its usage is noted all the same, and a probe is given back."""
    odd = GraphUnavailable.about_person()
    for _ in range(40):
        assert fail(gate, odd) == 0.0
    fail(gate, Throttled())
    lapse(raw, Cause.THROTTLED)
    permit = gate.acquire(TOKEN)
    gate.fail(permit, odd, FetchResult(odd, 50.0, TOKEN), ADA)

    probe = gate.acquire(TOKEN)

    assert (probe.probe != "", probe.usage_percent) == (True, 50.0)
    assert not raw.exists(cause_key(Cause.UNAVAILABLE))


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
    assert not list(raw.scan_iter("pp:g:*"))
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
    for _ in range(1 if cause is Cause.PERMISSION else 4):
        if cause in (Cause.PERMISSION, Cause.UNAVAILABLE):
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
    gate.fail(gate.acquire(TOKEN), failure, FetchResult(failure, 99.0, TOKEN), ADA)

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


def test_every_key_has_a_ttl_and_no_row_has_an_igsid(gate, raw) -> None:
    """An erasure must reach all that is stored of a person."""
    succeed_with(gate, Permit(TOKEN, "", None), a_profile(), 20.0)
    for failure in (Throttled(), TokenRejected(), PermissionMissing(), GraphTimeout()):
        fail_with(gate, Permit(TOKEN, "", None), failure, ADA)
    gate.witnesses.note_not_shown(ADA)
    gate.count(RefreshCounter.REFRESHED)

    keys = {key.decode(): raw.pttl(key) for key in raw.scan_iter()}
    witnesses = "pp:d:{default}:witnesses"
    rows = [
        raw.smembers("pp:d:{default}:not_shown"),
        raw.smembers("pp:d:{default}:failed"),
        raw.zrange("pp:d:{default}:refused", 0, -1),
    ]

    assert len(keys) == 11
    assert all(0 < ttl <= 7 * 86_400_000 for ttl in keys.values())
    assert all(ttl <= 86_400_000 for key, ttl in keys.items() if key != witnesses)
    assert keys[cause_key(Cause.THROTTLED)] > REMEMBERED_FOR * 1000
    assert [len(row) for row in rows] == [1, 1, 1]
    assert all(ADA.encode() not in row for row in rows)


def test_read_state_shows_all_and_changes_nothing(gate, raw) -> None:
    """For operators."""
    succeed(gate)
    fail(gate, GraphTimeout())
    gate.count(RefreshCounter.REFRESH_FAILED)
    gate.witnesses.note_not_shown(ADA)
    fail(gate, PermissionMissing())
    failure = Throttled(retry_after=120.0)
    gate.fail(gate.acquire(TOKEN), failure, FetchResult(failure, 100.0, TOKEN), ADA)

    state, again = gate.read_state(TOKEN), gate.read_state(TOKEN)

    causes = {cause.cause: cause for cause in state.causes}
    assert causes[Cause.THROTTLED].closed_for == about(120.0)
    assert causes[Cause.UNAVAILABLE].failures == 1
    assert causes[Cause.UNAVAILABLE].closed_for == 0.0
    assert not any(cause.is_probed for cause in state.causes)
    assert (state.usage_percent, state.doubted, state.refused) == (100.0, 1, 1)
    assert (state.witnesses, state.lacks_permission) == (1, False)
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
