"""The limits on concurrent calls and waiting threads: the next caller is refused."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import pytest

from proxy.coordination.bulkhead import (
    CALLS_WITHOUT_STORE,
    SEAT_WITHOUT_STORE,
    Bulkhead,
)
from proxy.domain.failures import Overloaded
from tests.helpers.fakes import FakeClock


def is_free(bulkhead: Bulkhead) -> bool:
    try:
        with bulkhead.seat(within=0.0):
            return True
    except Overloaded:
        return False


def test_bulkhead_has_so_many_seats_and_no_more() -> None:
    """A call that ends frees its seat."""
    bulkhead = Bulkhead(seats=2, waiters=10)

    with bulkhead.seat():
        with bulkhead.seat():
            assert not is_free(bulkhead)
        assert is_free(bulkhead)


def test_seat_is_freed_after_an_exception() -> None:
    """After a failure or a bug, the next caller gets it."""
    bulkhead = Bulkhead(seats=1, waiters=10)

    with pytest.raises(ZeroDivisionError), bulkhead.seat():
        raise ZeroDivisionError

    assert is_free(bulkhead)


def test_freed_seat_goes_to_a_waiting_caller() -> None:
    """Within the caller's time, and not after it."""
    bulkhead = Bulkhead(seats=1, waiters=10)
    seated, leave = threading.Event(), threading.Event()

    def hold_seat() -> None:
        with bulkhead.seat():
            seated.set()
            assert leave.wait(10)

    def wait_for_seat() -> bool:
        leave.set()
        with bulkhead.seat(within=10.0):
            return True

    with ThreadPoolExecutor(2) as pool:
        holding = pool.submit(hold_seat)
        assert seated.wait(10)
        assert pool.submit(wait_for_seat).result(10)
        holding.result(10)


def test_serialized_bulkhead_allows_one_call_at_a_time() -> None:
    """Calls under way go on, no other joins them; afterwards it is as before."""
    bulkhead = Bulkhead(seats=3, waiters=10)

    with bulkhead.seat():
        bulkhead.serialize(True)
        assert not is_free(bulkhead)
        bulkhead.serialize(False)
        assert is_free(bulkhead)


def has_turn(bulkhead: Bulkhead) -> bool:
    try:
        with bulkhead.turn(within=0.0):
            return True
    except Overloaded:
        return False


def test_seated_callers_take_turns_once_calls_are_serialized() -> None:
    """They had their seats before the usage was known; calls under way count too."""
    bulkhead = Bulkhead(seats=3, waiters=10)

    with bulkhead.seat(), bulkhead.seat(), bulkhead.turn():
        assert has_turn(bulkhead)
        bulkhead.serialize(True)
        assert not has_turn(bulkhead)
        bulkhead.serialize(False)
        assert has_turn(bulkhead)


def test_turn_that_ends_goes_to_a_waiting_caller() -> None:
    """One after the other, until all have had theirs."""
    bulkhead = Bulkhead(seats=3, waiters=10)
    bulkhead.serialize(True)

    def call() -> None:
        with bulkhead.turn(within=10.0):
            pass

    with ThreadPoolExecutor(8) as pool:
        with bulkhead.turn():
            calls = [pool.submit(call) for _ in range(8)]
            assert not has_turn(bulkhead)
        for each in calls:
            each.result(10)


def test_pages_take_turns_each_on_its_own() -> None:
    """One Page's quota is nearly used up: another's is not."""
    shop = Bulkhead(seats=3, waiters=10)
    outlet = shop.of_page()
    shop.serialize(True)

    with shop.turn():
        assert not has_turn(shop)
        assert has_turn(outlet)


def test_pages_share_seats_and_a_serialized_one_leaves_them_to_others() -> None:
    """One Page's quota is nearly used up: another's is not."""
    shop = Bulkhead(seats=3, waiters=10)
    outlet = shop.of_page()
    shop.serialize(True)

    with outlet.seat(), outlet.seat():
        assert is_free(shop)  # Its first call, however many others make.
        with shop.seat():
            assert not is_free(shop)
            assert not is_free(outlet)
        assert is_free(outlet)


def test_pages_share_waiters_and_calls_without_a_store() -> None:
    """The threads that hits need are the process's, not a Page's."""
    shop = Bulkhead(seats=3, waiters=1)
    outlet = shop.of_page()

    with shop.waiting(), pytest.raises(Overloaded), outlet.waiting():
        pass
    with ExitStack() as calls:
        for _ in range(CALLS_WITHOUT_STORE):
            calls.enter_context(shop.seat_without_store())
        with pytest.raises(Overloaded), outlet.seat_without_store():
            pass


def test_call_without_a_store_holds_its_seat_for_a_minimum_time() -> None:
    """Otherwise a Meta that fails at once would be called for every request to us."""
    clock = FakeClock()
    bulkhead = Bulkhead(seats=3, waiters=10, monotonic=clock)
    calls = [0, 0, 0]

    for period in range(3):
        for _ in range(2 * CALLS_WITHOUT_STORE):
            with suppress(Overloaded), bulkhead.seat_without_store():
                calls[period] += 1
        clock.now += SEAT_WITHOUT_STORE
    with ExitStack() as longer:
        for _ in range(CALLS_WITHOUT_STORE):
            longer.enter_context(bulkhead.seat_without_store())
        clock.now += 2 * SEAT_WITHOUT_STORE
        with pytest.raises(Overloaded) as refused, bulkhead.seat_without_store():
            pass

    assert str(refused.value).startswith("the store cannot be reached")
    assert calls == 3 * [CALLS_WITHOUT_STORE]
    with bulkhead.seat_without_store():
        pass


def test_waiting_is_refused_at_once_beyond_the_limit() -> None:
    """Threads that wait are what there is too much of, so the refusal must not wait."""
    bulkhead = Bulkhead(seats=1, waiters=3)

    with ExitStack() as waiting:
        for _ in range(3):
            waiting.enter_context(bulkhead.waiting())
        with pytest.raises(Overloaded) as refused, bulkhead.waiting():
            pass

    assert refused.value.retry_after == 1.0
    assert refused.value.is_shared is False
    with bulkhead.waiting():
        pass
