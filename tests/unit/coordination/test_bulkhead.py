"""How many may call, and wait, at once: the next is told so, and nobody is lost."""

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


def test_there_are_so_many_seats_and_no_more() -> None:
    """Whoever stands up leaves one."""
    bulkhead = Bulkhead(seats=2, waiters=10)

    with bulkhead.seat():
        with bulkhead.seat():
            assert not is_free(bulkhead)
        assert is_free(bulkhead)


def test_a_seat_is_left_whatever_happens_in_it() -> None:
    """A failure, a bug: the seat is the next caller's."""
    bulkhead = Bulkhead(seats=1, waiters=10)

    with pytest.raises(ZeroDivisionError), bulkhead.seat():
        raise ZeroDivisionError

    assert is_free(bulkhead)


def test_a_seat_that_comes_free_is_taken_by_who_waits() -> None:
    """Within a second, and not after it."""
    bulkhead = Bulkhead(seats=1, waiters=10)
    seated, leave = threading.Event(), threading.Event()

    def sit() -> None:
        with bulkhead.seat():
            seated.set()
            assert leave.wait(10)

    def wait_for_it() -> bool:
        leave.set()
        with bulkhead.seat(within=10.0):
            return True

    with ThreadPoolExecutor(2) as pool:
        sitting = pool.submit(sit)
        assert seated.wait(10)
        assert pool.submit(wait_for_it).result(10)
        sitting.result(10)


def test_when_it_is_narrow_one_calls_at_a_time() -> None:
    """Those who sit stay; nobody joins them; and wide it is as before."""
    bulkhead = Bulkhead(seats=3, waiters=10)

    with bulkhead.seat():
        bulkhead.serialize(True)
        assert not is_free(bulkhead)
        bulkhead.serialize(False)
        assert is_free(bulkhead)


def test_pages_share_seats_and_one_that_is_narrow_leaves_them_to_others() -> None:
    """One Page's quota is nearly used up: that says nothing of another's."""
    shop = Bulkhead(seats=3, waiters=10)
    outlet = shop.of_page()
    shop.serialize(True)

    with outlet.seat(), outlet.seat():
        assert is_free(shop)  # Its first call, whatever others make.
        with shop.seat():
            assert not is_free(shop)
            assert not is_free(outlet)
        assert is_free(outlet)


def test_pages_share_the_room_and_the_calls_without_a_store() -> None:
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


def test_a_call_without_a_store_has_its_seat_for_a_while_at_least() -> None:
    """Else a Meta that fails at once would be asked as often as anybody asks us."""
    clock = FakeClock()
    bulkhead = Bulkhead(seats=3, waiters=10, monotonic=clock)
    calls = [0, 0, 0]

    for turn in range(3):
        for _ in range(2 * CALLS_WITHOUT_STORE):
            with suppress(Overloaded), bulkhead.seat_without_store():
                calls[turn] += 1
        clock.now += SEAT_WITHOUT_STORE
    with ExitStack() as longer:
        for _ in range(CALLS_WITHOUT_STORE):
            longer.enter_context(bulkhead.seat_without_store())
        clock.now += 2 * SEAT_WITHOUT_STORE
        with pytest.raises(Overloaded), bulkhead.seat_without_store():
            pass

    assert calls == 3 * [CALLS_WITHOUT_STORE]
    with bulkhead.seat_without_store():
        pass


def test_there_is_room_for_so_many_to_wait() -> None:
    """The next is told at once: waiting is what there is too much of."""
    bulkhead = Bulkhead(seats=1, waiters=3)

    with ExitStack() as waiting:
        for _ in range(3):
            waiting.enter_context(bulkhead.waiting())
        with pytest.raises(Overloaded) as turned_away, bulkhead.waiting():
            pass

    assert turned_away.value.retry_after == 1.0
    assert turned_away.value.is_shared is False
    with bulkhead.waiting():
        pass
