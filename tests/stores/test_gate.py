"""Whether Meta may be asked: closing, lapsing, probing and opening, on every store."""

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
    """One call to Meta that ends so; for how long the gate is closed then."""
    permit = gate.acquire(token)
    return gate.fail(permit, failure, FetchResult(failure, None, token))


def straggle(gate: Gate, failure: LookupFailure) -> float:
    """The same of a call that had passed before the gate was closed."""
    permit = Permit(TOKEN, "", None)
    return gate.fail(permit, failure, FetchResult(failure, None, TOKEN))


def tell(gate: Gate, permit: Permit, outcome, percent: float | None = None) -> None:
    gate.succeed(permit, outcome, FetchResult(outcome, percent, TOKEN))


def succeed(gate: Gate, outcome=None) -> None:
    tell(gate, gate.acquire(TOKEN), outcome or a_profile(), None)


def cause_key(cause: Cause, token: str = TOKEN) -> str:
    name = f"{cause}:{token}" if cause is Cause.TOKEN_REJECTED else cause.value
    return f"pp:g:{{default}}:{name}"


def lapse(raw: redis.Redis, cause: Cause) -> None:
    """Let the time pass for which *cause* keeps the gate closed."""
    assert raw.hexists(cause_key(cause), "until")
    raw.hset(cause_key(cause), "until", 1)


def stopped_by(gate: Gate, token: str = TOKEN) -> LookupFailure:
    with pytest.raises(LookupFailure) as stopped:
        gate.acquire(token)
    return stopped.value


def about(seconds: float) -> object:
    return pytest.approx(seconds - SLACK / 2, abs=SLACK / 2 + 0.01)


def test_an_open_gate_costs_nothing_and_leaves_nothing(gate, raw) -> None:
    """No key is written for a call that goes well."""
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
    """A stopped call is answered as the cause, says until when, and asked nobody."""
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
def test_a_success_between_starts_the_count_anew(gate, failure, times) -> None:
    """In a row means in a row."""
    for _ in range(times - 1):
        fail(gate, failure)
    succeed(gate)

    for _ in range(times - 1):
        assert fail(gate, failure) == 0.0
    assert fail(gate, failure) > 0.0


@pytest.mark.parametrize("reason", Reason)
def test_a_refusal_shows_that_the_permission_is_there_unless_it_is_vague(
    gate, reason
) -> None:
    """100/33 is what Meta also says to somebody who may see nobody."""
    for _ in range(19):
        fail(gate, PermissionMissing())
    succeed(gate, a_refusal(reason=reason))

    closed_for = fail(gate, PermissionMissing())

    assert bool(closed_for) is (reason is Reason.UNAVAILABLE)


def test_causes_are_apart(gate) -> None:
    """Four timeouts and a permission are not five of anything."""
    for _ in range(4):
        fail(gate, GraphTimeout())
    fail(gate, PermissionMissing())

    assert gate.acquire(TOKEN).probe == ""


def test_a_closure_is_only_ever_lengthened(gate, raw) -> None:
    """Calls that were under way may know of a longer wait, or of a shorter one."""
    fail(gate, Throttled(retry_after=300.0))

    assert straggle(gate, Throttled(retry_after=10.0)) == about(300.0)
    assert straggle(gate, Throttled()) == about(300.0)
    assert straggle(gate, Throttled(retry_after=600.0)) == about(600.0)


def test_no_closure_lasts_longer_than_an_hour(gate) -> None:
    """Whoever asks for it."""
    assert fail(gate, Throttled(retry_after=1e9)) == about(LONGEST_CLOSURE)


def test_the_longest_of_several_causes_is_the_answer(gate) -> None:
    """Nobody is sent away to come back too early."""
    straggle(gate, TokenRejected())
    straggle(gate, Throttled(retry_after=900.0))

    assert type(stopped_by(gate)) is Throttled


def test_a_rejected_token_stops_only_its_holders(gate) -> None:
    """A new token opens the gate, on this host and on those that have it."""
    fail(gate, TokenRejected())

    assert type(stopped_by(gate, TOKEN)) is TokenRejected
    assert gate.acquire(NEW_TOKEN) == Permit(NEW_TOKEN, "", None)


def test_pages_have_gates_of_their_own(new_gate) -> None:
    """A throttle of one business is not another's."""
    fail(new_gate("shop"), Throttled())

    assert new_gate("studio").acquire(TOKEN).probe == ""


def test_when_a_cause_lapses_one_caller_probes(gate, raw) -> None:
    """The others are stopped for as long as that one call may take."""
    fail(gate, Throttled())
    lapse(raw, Cause.THROTTLED)

    probe = gate.acquire(TOKEN)

    assert probe.probe
    assert stopped_by(gate).retry_after == about(PROBE_FOR)


def test_a_probe_that_succeeds_opens_the_gate(gate, raw, caplog) -> None:
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
def test_a_probe_that_fails_closes_the_gate_for_longer(
    gate, raw, failure, cause, closures
) -> None:
    """Twice as long each time, up to a bound."""
    for _ in range(backoffs(TOKEN_RETRY)[cause].failures - 1):
        fail(gate, failure)

    for seconds in closures:
        assert fail(gate, failure) == about(seconds)
        lapse(raw, cause)


def test_failures_of_one_closure_make_the_next_no_longer(gate, raw) -> None:
    """Fifty calls that were under way together fail together."""
    fail(gate, Throttled())
    for _ in range(50):
        straggle(gate, Throttled())
    lapse(raw, Cause.THROTTLED)

    assert fail(gate, Throttled()) == about(120.0)


def test_a_prober_that_dies_is_succeeded(gate, raw) -> None:
    """Its probe lapses like a lease."""
    fail(gate, Throttled())
    lapse(raw, Cause.THROTTLED)
    dead = gate.acquire(TOKEN)
    lapse(raw, Cause.THROTTLED)

    heir = gate.acquire(TOKEN)

    assert heir.probe not in ("", dead.probe)


def test_the_success_of_a_call_from_before_opens_nothing(gate) -> None:
    """It says how things were, not how they are."""
    before = gate.acquire(TOKEN)
    fail(gate, Throttled(retry_after=300.0))

    tell(gate, before, a_profile())

    assert stopped_by(gate).retry_after == about(300.0)


def test_a_probe_that_is_given_back_is_the_next_callers(gate, raw) -> None:
    """Nobody waits for a call that is not made."""
    fail(gate, Throttled())
    lapse(raw, Cause.THROTTLED)

    gate.release_probe(gate.acquire(TOKEN))

    assert gate.acquire(TOKEN).probe


def test_a_probe_that_fails_otherwise_lets_the_next_caller_probe(gate, raw) -> None:
    """A timeout says nothing of the throttle."""
    fail(gate, Throttled())
    lapse(raw, Cause.THROTTLED)

    fail(gate, GraphTimeout())

    assert gate.acquire(TOKEN).probe


@pytest.mark.parametrize("store_url", REAL_STORES, indirect=True)
def test_of_many_callers_at_once_one_probes(gate, raw) -> None:
    """On a real server, with real threads."""
    fail(gate, Throttled())
    lapse(raw, Cause.THROTTLED)

    def passes(_: int) -> bool:
        try:
            return bool(gate.acquire(TOKEN))
        except Throttled:
            return False

    with ThreadPoolExecutor(32) as pool:
        assert list(pool.map(passes, range(32))).count(True) == 1


def test_a_passage_says_which_token_is_noted(gate, cache) -> None:
    """A store that was emptied must be told again which token asks."""
    before = gate.acquire(NEW_TOKEN).noted_token
    EntryStore(cache, "default").note_token(TOKEN)

    assert (before, gate.acquire(NEW_TOKEN).noted_token) == (None, TOKEN)


def test_usage_is_shared_and_believed_for_five_minutes(gate, new_gate, raw) -> None:
    """What one process reads in a reply holds back the others."""
    tell(gate, gate.acquire(TOKEN), a_profile(), 80.5)

    assert new_gate().acquire(TOKEN).usage_percent == 80.5
    assert 0 < raw.pttl("pp:u:{default}") <= USAGE_TTL * 1000


def test_a_failure_tells_the_usage_too(gate) -> None:
    """A throttle is when it is most interesting."""
    failure = GraphUnavailable()
    gate.fail(gate.acquire(TOKEN), failure, FetchResult(failure, 99.0, TOKEN))

    assert gate.acquire(TOKEN).usage_percent == 99.0


def test_a_reply_that_says_nothing_of_usage_changes_nothing(gate) -> None:
    """Absent is not zero."""
    tell(gate, gate.acquire(TOKEN), a_profile(), 80.0)
    tell(gate, gate.acquire(TOKEN), a_profile(), None)

    assert gate.acquire(TOKEN).usage_percent == 80.0


@pytest.mark.parametrize(("percent", "stops"), [(74.9, False), (75.0, True)])
def test_above_the_soft_limit_only_the_background_is_stopped(
    gate, percent, stops
) -> None:
    """Callers who wait still get their answer."""
    tell(gate, gate.acquire(TOKEN), a_profile(), percent)

    assert gate.acquire(TOKEN).usage_percent == percent
    if stops:
        with pytest.raises(Overloaded):
            gate.acquire(TOKEN, in_background=True)
    else:
        gate.acquire(TOKEN, in_background=True)


def test_the_background_takes_no_probe_when_it_is_held_back(gate, raw) -> None:
    """Or the gate would be closed for a call that nobody makes."""
    tell(gate, gate.acquire(TOKEN), a_profile(), 80.0)
    fail(gate, Throttled())
    lapse(raw, Cause.THROTTLED)

    with pytest.raises(Overloaded):
        gate.acquire(TOKEN, in_background=True)

    assert gate.acquire(TOKEN).probe


def crowd(number: int) -> Igsid:
    return Igsid(f"1254002{number:09d}")


def test_ten_different_people_in_a_row_raise_a_doubt(gate) -> None:
    """That we may see nobody is likelier than that they all left at once."""
    doubts = [gate.doubt(crowd(n)) for n in range(DOUBT_THRESHOLD + 1)]

    assert doubts == [False] * (DOUBT_THRESHOLD - 1) + [True, True]


def test_one_person_many_times_raises_no_doubt(gate) -> None:
    """Ten different ones."""
    assert not any(gate.doubt(ADA) for _ in range(50))


def test_a_profile_between_ends_the_doubt_and_nothing_else_does(gate) -> None:
    """A refusal is no sign that we see anybody."""
    for n in range(DOUBT_THRESHOLD - 1):
        gate.doubt(crowd(n))
    succeed(gate, a_refusal())
    still = gate.doubt(crowd(99))
    succeed(gate, a_profile())
    after = gate.doubt(crowd(100))

    assert (still, after) == (True, False)


def test_every_key_has_an_end_and_none_has_an_id(gate, raw) -> None:
    """An erasure must reach all that is stored of a person."""
    for failure in (Throttled(), TokenRejected(), PermissionMissing(), GraphTimeout()):
        straggle(gate, failure)
    tell(gate, Permit(TOKEN, "", None), a_refusal(), 20.0)
    gate.doubt(ADA)
    gate.count(RefreshCounter.REFRESHED)

    keys = {key.decode(): raw.pttl(key) for key in raw.scan_iter()}

    assert len(keys) == 5
    assert all(0 < ttl <= 86_400_000 for ttl in keys.values())
    assert keys[cause_key(Cause.THROTTLED)] > REMEMBERED_FOR * 1000
    assert ADA.encode() not in b"".join(raw.smembers("pp:d:{default}"))


def test_an_operator_sees_how_it_is(gate, raw) -> None:
    """Without changing it."""
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
def test_closing_is_said_once_and_loudly_where_somebody_must_act(
    gate, caplog, failure, level
) -> None:
    """A dead token does not heal by itself."""
    for _ in range(3):
        straggle(gate, failure)

    lines = [r for r in caplog.records if r.message == "gate closed"]

    assert [line.levelname for line in lines] == [level]
    assert lines[0].seconds == about(60.0)


def test_a_straggler_takes_no_probe_from_its_holder(gate, raw) -> None:
    """It lengthens the closure; the probe's success is later knowledge, and opens."""
    fail(gate, Throttled())
    lapse(raw, Cause.THROTTLED)
    probe = gate.acquire(TOKEN)
    straggle(gate, Throttled(retry_after=300.0))

    tell(gate, probe, a_profile())

    assert gate.acquire(TOKEN).probe == ""


def test_a_probe_that_learns_nothing_of_the_permission_is_the_next_callers(
    gate, raw
) -> None:
    """100/33 is no answer to the question, so the next caller may put it."""
    for _ in range(20):
        fail(gate, PermissionMissing())
    lapse(raw, Cause.PERMISSION)

    succeed(gate, a_refusal(reason=Reason.UNAVAILABLE))

    assert gate.acquire(TOKEN).probe
