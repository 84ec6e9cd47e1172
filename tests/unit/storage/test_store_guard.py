"""When the store is said to be away, and to be back; and who tries one that hangs."""

import logging
from collections.abc import Callable
from contextlib import suppress

import pytest
import redis

from proxy.domain.failures import StoreUnavailable
from proxy.storage.store_guard import PROBED_EVERY, StoreGuard
from tests.helpers.fakes import FakeClock


def fail(
    guard: StoreGuard,
    kind: str,
    place: str,
    error: type[redis.RedisError] = redis.ConnectionError,
) -> None:
    with suppress(StoreUnavailable), guard.call(kind, place):
        raise error


def succeed(guard: StoreGuard, kind: str, place: str) -> None:
    with guard.call(kind, place):
        pass


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What has been logged since it was last asked."""
    caplog.set_level(logging.INFO)

    def since() -> list[str]:
        messages = [record.message for record in caplog.records]
        caplog.clear()
        return messages

    return since


def test_a_node_that_fails_is_away_whatever_the_others_do(said) -> None:
    """Else it would be away and back with each of the people who live there."""
    guard = StoreGuard(lambda: {"", "one", "other"})

    for _ in range(3):
        fail(guard, "reads", "one")
        succeed(guard, "reads", "other")
    assert said() == ["store away"]

    succeed(guard, "reads", "one")
    assert said() == ["store back"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            redis.AuthenticationError("Authentication required."),
            "Authentication required.",
        ),
        (redis.ResponseError("DB index is out of range"), "DB index is out of range"),
        (
            redis.ResponseError("unknown command 'X', with args: 'pp:e:{1}'"),
            "unknown command",
        ),
        (
            redis.ResponseError("unknown command `X`, with args: `pp:e:{1}`"),
            "unknown command",
        ),
        (redis.ReadOnlyError("You can't write here."), "You can't write here."),
        (redis.ResponseError("no such key e{1:1254001}"), "no such key e{1:...}"),
        (redis.ConnectionError("Error 111 connecting to 10.0.0.1:6379"), None),
        (redis.TimeoutError(), None),
    ],
)
def test_it_is_said_why_without_what_was_asked(
    caplog: pytest.LogCaptureFixture, error: redis.RedisError, words: str | None
) -> None:
    """A password or a grant that is missing; but never a key, which has an id."""
    guard = StoreGuard(lambda: {""})

    with suppress(StoreUnavailable), guard.call("reads"):
        raise error

    [line] = caplog.records
    assert vars(line)["error"] == type(error).__name__
    assert vars(line)["said"] == words


def test_what_goes_through_all_nodes_is_about_each_of_them(said) -> None:
    """A ping or a flush that works has met none that is away."""
    guard = StoreGuard(lambda: {"", "one", "other"})
    fail(guard, "reads", "one")
    fail(guard, "reads", "")

    succeed(guard, "reads", "")

    assert said() == ["store away", "store back"]


def test_a_node_that_is_no_more_is_not_waited_for(said) -> None:
    """Its replica has taken its place."""
    places = {"", "one", "other"}
    guard = StoreGuard(lambda: places)
    fail(guard, "writes", "one")

    places.remove("one")
    succeed(guard, "reads", "other")

    assert said() == ["store away", "store back"]


def test_every_error_is_counted_by_its_kind() -> None:
    """Also those after the first, which are not logged again."""
    counted: list[str] = []
    guard = StoreGuard(lambda: {"", "one", "other"}, count_error=counted.append)

    fail(guard, "reads", "one")
    fail(guard, "reads", "one")
    succeed(guard, "reads", "one")
    fail(guard, "writes", "other")

    assert counted == ["reads", "reads", "writes"]


def tries(
    guard: StoreGuard, place: str = "", *, ends: type[Exception] | None = None
) -> bool:
    """Whether a trip to *node_name* is made at all; it *ends* so, or well."""
    tried = False
    with suppress(StoreUnavailable, ends or StoreUnavailable):
        with guard.call("reads", place):
            tried = True
            if ends:
                raise ends
    return tried


def hang(guard: StoreGuard, clock: FakeClock) -> None:
    """Two in a row time out, and it is time for a probe."""
    tries(guard, ends=redis.TimeoutError)
    tries(guard, ends=redis.TimeoutError)
    clock.now += PROBED_EVERY


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def guard(clock: FakeClock) -> StoreGuard:
    return StoreGuard(lambda: {"", "one", "other"}, monotonic=clock)


def test_a_store_that_did_not_answer_for_once_is_used_at_once(guard) -> None:
    """By all, not by one of them: a hiccup would else cost everybody a failure."""
    tries(guard, ends=redis.TimeoutError)

    with guard.call("reads"):
        assert tries(guard)
    assert tries(guard)


def test_while_one_tries_a_store_that_hangs_nobody_else_does(guard, clock) -> None:
    """A timeout each is what they are spared."""
    hang(guard, clock)

    with guard.call("reads"):
        assert not tries(guard)
        assert not tries(guard)


def test_a_store_that_goes_on_hanging_costs_a_timeout_a_second(guard, clock) -> None:
    """However many ask meanwhile."""
    assert tries(guard, ends=redis.TimeoutError)

    for _ in range(3):
        assert tries(guard, ends=redis.TimeoutError)
        assert not tries(guard)
        clock.now += PROBED_EVERY - 0.01
        assert not tries(guard)
        clock.now += 0.01
    assert tries(guard)
    assert tries(guard)


def test_a_store_whose_name_takes_long_to_be_found_unknown_hangs_too(
    guard, clock
) -> None:
    """There is no timeout for that, and all that ask would wait for it in turn."""
    for _ in range(2):
        with suppress(StoreUnavailable), guard.call("reads"):
            clock.now += 10.0
            raise redis.ConnectionError

    assert not tries(guard)


def test_a_store_that_has_answered_somebody_else_is_used_at_once(clock) -> None:
    """But not one that was asked before the last timeout, and answered then."""
    last_reply_at = [clock.now]
    guard = StoreGuard(
        lambda: {""}, monotonic=clock, last_reply_at=lambda: last_reply_at[0]
    )
    clock.now += 0.1
    tries(guard, ends=redis.TimeoutError)
    tries(guard, ends=redis.TimeoutError)
    assert not tries(guard)

    last_reply_at[0] = clock.now
    assert not tries(guard)

    clock.now += 0.1
    last_reply_at[0] = clock.now
    assert tries(guard)
    assert tries(guard)


def test_the_second_begins_when_the_probe_has_ended(guard, clock) -> None:
    """Its own timeout must not count, or those after it would follow at once."""
    hang(guard, clock)

    with suppress(StoreUnavailable), guard.call("reads"):
        clock.now += 0.25
        raise redis.TimeoutError
    clock.now += PROBED_EVERY - 0.01

    assert not tries(guard)


def test_those_who_were_under_way_make_no_hang_of_a_hiccup(guard, clock) -> None:
    """Their timeouts are about the same moment as the first."""
    with suppress(StoreUnavailable), guard.call("reads"):
        clock.now += 0.2
        tries(guard, ends=redis.TimeoutError)
        clock.now += 0.05
        raise redis.TimeoutError

    assert tries(guard)


def test_an_answer_between_two_timeouts_is_no_hang(guard, clock) -> None:
    """It is slow, and everybody's trip may be the one that comes back."""
    for _ in range(3):
        clock.now += 0.25
        tries(guard, ends=redis.TimeoutError)
        assert tries(guard)


def test_reads_and_writes_hang_together(guard) -> None:
    """Unlike a full store, one that hangs does so for both."""
    fail(guard, "writes", "", redis.TimeoutError)
    fail(guard, "writes", "", redis.TimeoutError)

    assert not tries(guard)


@pytest.mark.parametrize(
    "answer", [redis.ConnectionError, redis.ResponseError, redis.BusyLoadingError]
)
def test_a_store_that_refuses_is_tried_by_all(guard, clock, answer) -> None:
    """Whatever it says, it says at once."""
    assert tries(guard, ends=answer)
    with guard.call("reads"):
        assert tries(guard, ends=answer)

    hang(guard, clock)
    assert tries(guard, ends=answer)
    with guard.call("reads"):
        assert tries(guard)


def test_a_probe_that_never_ends_stops_nobody_for_long(guard, clock) -> None:
    """It may be a flush, or end in a bug of ours."""
    hang(guard, clock)
    assert tries(guard, ends=ZeroDivisionError)
    assert not tries(guard)

    clock.now += PROBED_EVERY

    assert tries(guard)


def test_a_node_that_hangs_does_so_for_itself(guard) -> None:
    """The people of the others do not notice."""
    for _ in range(2):
        tries(guard, "one", ends=redis.TimeoutError)

    assert not tries(guard, "one")
    assert tries(guard, "other")
    assert not tries(guard, "one")


def test_what_goes_through_all_nodes_ends_the_doubt_about_each(guard) -> None:
    """A ping that works has met none that hangs."""
    for _ in range(2):
        tries(guard, "one", ends=redis.TimeoutError)

    assert tries(guard)

    assert tries(guard, "one")


def test_a_node_that_hung_and_is_no_more_is_forgotten(clock) -> None:
    """Whoever has its address one day is another."""
    places = {"", "one", "other"}
    guard = StoreGuard(lambda: places, monotonic=clock)
    for _ in range(2):
        tries(guard, "one", ends=redis.TimeoutError)

    places.remove("one")
    tries(guard, "other")

    assert tries(guard, "one")
