"""The store guard: what it logs, when its circuit opens, which call is the probe."""

import logging
from collections.abc import Callable
from contextlib import suppress

import pytest
import redis

from proxy.domain.failures import StoreUnavailable
from proxy.storage.store_guard import (
    CALLS_AT_ONCE,
    PROBED_EVERY,
    ConcurrencyLimiter,
    StoreGuard,
)
from tests.helpers.fakes import FakeClock


def fail(
    guard: StoreGuard,
    kind: str,
    node: str,
    error: type[redis.RedisError] = redis.ConnectionError,
) -> None:
    with suppress(StoreUnavailable), guard.call(kind, node):
        raise error


def succeed(guard: StoreGuard, kind: str, node: str) -> None:
    with guard.call(kind, node):
        pass


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Returns what has been logged since its last call."""
    caplog.set_level(logging.INFO)

    def since() -> list[str]:
        messages = [record.message for record in caplog.records]
        caplog.clear()
        return messages

    return since


def test_node_that_fails_is_away_whatever_the_others_do(logged) -> None:
    """Otherwise the log would have a line for each call to one or the other."""
    guard = StoreGuard(lambda: {"", "one", "other"})

    for _ in range(3):
        fail(guard, "reads", "one")
        succeed(guard, "reads", "other")
    assert logged() == ["store away"]

    succeed(guard, "reads", "one")
    assert logged() == ["store back"]


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
            "unknown command 'X'",
        ),
        (
            redis.ResponseError("unknown command `X`, with args: `pp:e:{1}`"),
            "unknown command `X`",
        ),
        (
            redis.OutOfMemoryError(
                "command not allowed when used memory > 'maxmemory'."
            ),
            "command not allowed when used memory > 'maxmemory'.",
        ),
        (
            redis.exceptions.NoPermissionError(
                "User inbox has no permissions to run the 'evalsha' command"
            ),
            "User inbox has no permissions to run the 'evalsha' command",
        ),
        (
            redis.ResponseError("the value is 'O'Brien Ada' and 'more'"),
            "the value is ...",
        ),
        (redis.ResponseError('wrong: "[3,"Ada'), "wrong: ..."),
        (redis.ReadOnlyError("You can't write here."), "You can't write here."),
        (redis.ResponseError("no such key e{1:1254001}"), "no such key e{1:...}"),
        (redis.ConnectionError("Error 111 connecting to 10.0.0.1:6379"), None),
        (redis.TimeoutError(), None),
    ],
)
def test_log_has_the_first_words_of_redis_and_not_the_command(
    caplog: pytest.LogCaptureFixture, error: redis.RedisError, words: str | None
) -> None:
    """They name a missing password or permission, but never a key, which has an id."""
    guard = StoreGuard(lambda: {""})

    with suppress(StoreUnavailable), guard.call("reads"):
        raise error

    [line] = caplog.records
    assert vars(line)["error"] == type(error).__name__
    assert vars(line)["said"] == words


def test_call_to_all_nodes_that_succeeds_clears_each_node(logged) -> None:
    """A ping or a flush that succeeds has reached every node."""
    guard = StoreGuard(lambda: {"", "one", "other"})
    fail(guard, "reads", "one")
    fail(guard, "reads", "")

    succeed(guard, "reads", "")

    assert logged() == ["store away", "store back"]


def test_node_that_left_the_cluster_is_no_longer_away(logged) -> None:
    """Its replica has been promoted."""
    nodes = {"", "one", "other"}
    guard = StoreGuard(lambda: nodes)
    fail(guard, "writes", "one")

    nodes.remove("one")
    succeed(guard, "reads", "other")

    assert logged() == ["store away", "store back"]


def test_guard_counts_every_error_by_its_kind() -> None:
    """Also the errors after the first, which are not logged again."""
    counted: list[str] = []
    guard = StoreGuard(lambda: {"", "one", "other"}, count_error=counted.append)

    fail(guard, "reads", "one")
    fail(guard, "reads", "one")
    succeed(guard, "reads", "one")
    fail(guard, "writes", "other")

    assert counted == ["reads", "reads", "writes"]


def tries(
    guard: StoreGuard, node: str = "", *, ends: type[Exception] | None = None
) -> bool:
    """Whether a call to *node* is made; it succeeds, or *ends* with an error."""
    tried = False
    with suppress(StoreUnavailable, ends or StoreUnavailable):
        with guard.call("reads", node):
            tried = True
            if ends:
                raise ends
    return tried


def hang(guard: StoreGuard, clock: FakeClock) -> None:
    """Two calls in a row time out, and a probe is due."""
    tries(guard, ends=redis.TimeoutError)
    tries(guard, ends=redis.TimeoutError)
    clock.now += PROBED_EVERY


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def guard(clock: FakeClock) -> StoreGuard:
    return StoreGuard(lambda: {"", "one", "other"}, monotonic=clock)


def test_one_timeout_does_not_open_the_circuit(guard) -> None:
    """Not even for a probe: otherwise a hiccup would fail every other call."""
    tries(guard, ends=redis.TimeoutError)

    with guard.call("reads"):
        assert tries(guard)
    assert tries(guard)


def test_during_a_probe_no_other_call_is_made(guard, clock) -> None:
    """Each would cost a timeout."""
    hang(guard, clock)

    with guard.call("reads"):
        assert not tries(guard)
        assert not tries(guard)


def test_store_that_hangs_costs_one_timeout_a_second(guard, clock) -> None:
    """However many callers there are meanwhile."""
    assert tries(guard, ends=redis.TimeoutError)

    for _ in range(3):
        assert tries(guard, ends=redis.TimeoutError)
        assert not tries(guard)
        clock.now += PROBED_EVERY - 0.01
        assert not tries(guard)
        clock.now += 0.01
    assert tries(guard)
    assert tries(guard)


def test_slow_failure_to_resolve_the_name_opens_the_circuit(guard, clock) -> None:
    """A name server has no timeout, and every caller would wait for it in turn."""
    for _ in range(2):
        with suppress(StoreUnavailable), guard.call("reads"):
            clock.now += 10.0
            raise redis.ConnectionError

    assert not tries(guard)


def test_reply_to_another_part_of_the_process_closes_the_circuit(clock) -> None:
    """But not a reply to a question from before the last timeout."""
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


def test_second_between_probes_counts_from_the_end_of_a_probe(guard, clock) -> None:
    """Its own timeout must not count, or the next probe would follow at once."""
    hang(guard, clock)

    with suppress(StoreUnavailable), guard.call("reads"):
        clock.now += 0.25
        raise redis.TimeoutError
    clock.now += PROBED_EVERY - 0.01

    assert not tries(guard)


def test_timeouts_of_concurrent_calls_do_not_open_the_circuit(guard, clock) -> None:
    """They are about the same moment as the first."""
    with suppress(StoreUnavailable), guard.call("reads"):
        clock.now += 0.2
        tries(guard, ends=redis.TimeoutError)
        clock.now += 0.05
        raise redis.TimeoutError

    assert tries(guard)


def test_success_between_two_timeouts_keeps_the_circuit_closed(guard, clock) -> None:
    """The store is slow, and any call may be one that succeeds."""
    for _ in range(3):
        clock.now += 0.25
        tries(guard, ends=redis.TimeoutError)
        assert tries(guard)


def test_timeouts_of_writes_open_the_circuit_for_reads(guard) -> None:
    """Unlike a full store, a store that hangs does so for both."""
    fail(guard, "writes", "", redis.TimeoutError)
    fail(guard, "writes", "", redis.TimeoutError)

    assert not tries(guard)


@pytest.mark.parametrize(
    "error", [redis.ConnectionError, redis.ResponseError, redis.BusyLoadingError]
)
def test_store_that_refuses_does_not_open_the_circuit(guard, clock, error) -> None:
    """Its error comes at once, so no call costs a timeout."""
    assert tries(guard, ends=error)
    with guard.call("reads"):
        assert tries(guard, ends=error)

    hang(guard, clock)
    assert tries(guard, ends=error)
    with guard.call("reads"):
        assert tries(guard)


def test_probe_without_a_result_is_followed_by_another(guard, clock) -> None:
    """It may be a long flush, or end in a bug of ours."""
    hang(guard, clock)
    assert tries(guard, ends=ZeroDivisionError)
    assert not tries(guard)

    clock.now += PROBED_EVERY

    assert tries(guard)


def test_circuit_of_one_node_does_not_concern_the_others(guard) -> None:
    """People whose entries are on the other nodes are served."""
    for _ in range(2):
        tries(guard, "one", ends=redis.TimeoutError)

    assert not tries(guard, "one")
    assert tries(guard, "other")
    assert not tries(guard, "one")


def test_call_to_all_nodes_that_succeeds_closes_every_circuit(guard) -> None:
    """A ping that succeeds has reached every node."""
    for _ in range(2):
        tries(guard, "one", ends=redis.TimeoutError)

    assert tries(guard)

    assert tries(guard, "one")


def test_circuit_of_a_node_that_left_the_cluster_is_forgotten(clock) -> None:
    """A later node with its address is another one."""
    nodes = {"", "one", "other"}
    guard = StoreGuard(lambda: nodes, monotonic=clock)
    for _ in range(2):
        tries(guard, "one", ends=redis.TimeoutError)

    nodes.remove("one")
    tries(guard, "other")

    assert tries(guard, "one")


def test_limiter_refuses_a_caller_while_every_slot_is_taken() -> None:
    """The caller waits a second for one to become free."""
    limiter = ConcurrencyLimiter(2)
    assert limiter.acquire()
    assert limiter.acquire()

    assert not limiter.acquire()
    limiter.release()

    assert limiter.acquire()


def test_call_that_the_circuit_refuses_keeps_no_slot(guard, clock) -> None:
    """Otherwise a store that hangs would use up all slots."""
    hang(guard, clock)

    with guard.call("reads"):
        for _ in range(2 * CALLS_AT_ONCE):
            assert not tries(guard)
    assert tries(guard)
