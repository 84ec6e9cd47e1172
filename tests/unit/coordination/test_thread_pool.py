"""Jobs side by side: how many at once, in which order, and whose."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from proxy.coordination.thread_pool import CallerRunsPool

WITHIN = 10.0


def in_background(part: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=part, daemon=True)
    thread.start()
    return thread


def test_results_come_in_the_order_of_the_jobs() -> None:
    """However the jobs were shared out."""
    pool = CallerRunsPool(4)

    assert pool.run([lambda n=n: n * n for n in range(50)]) == [
        n * n for n in range(50)
    ]
    assert pool.run([]) == []


def test_jobs_are_done_side_by_side() -> None:
    """Eight that all wait for one another: seven helpers and whoever asked."""
    meeting = threading.Barrier(8)

    CallerRunsPool(7).run([lambda: meeting.wait(WITHIN)] * 8)


@pytest.mark.parametrize("pages", [1, 5])
def test_no_more_help_than_there_are_threads(pages: int) -> None:
    """Over all who ask at once."""
    pool, threads, lock = CallerRunsPool(3), set(), threading.Lock()

    def job() -> None:
        with lock:
            threads.add(threading.current_thread())
            most.append(sum(thread.is_alive() for thread in threads))

    most: list[int] = []
    with ThreadPoolExecutor(pages) as askers:
        list(askers.map(pool.run, [[job] * 200] * pages))

    assert max(most) <= 3 + pages


def test_without_help_whoever_asks_does_it_all() -> None:
    """In the order of the jobs."""
    done: list[int] = []

    CallerRunsPool(0).run([lambda n=n: done.append(n) for n in range(10)])

    assert done == list(range(10))


def test_help_that_comes_free_goes_to_who_still_waits() -> None:
    """One helper, held up by one asker; another's jobs are helped once it is free."""
    pool = CallerRunsPool(1)
    go_on, meeting = threading.Event(), threading.Barrier(2)
    held_up = threading.Barrier(3)

    def hold_up() -> None:
        held_up.wait(WITHIN)
        go_on.wait(WITHIN)

    first = in_background(lambda: pool.run([hold_up, hold_up]))
    held_up.wait(WITHIN)
    second = in_background(lambda: pool.run([lambda: meeting.wait(WITHIN)] * 2))
    go_on.set()

    first.join(WITHIN)
    second.join(WITHIN)

    assert not meeting.broken
    assert not first.is_alive()
    assert not second.is_alive()


def test_help_goes_round() -> None:
    """A long page does not keep it from a short one that came later."""
    pool = CallerRunsPool(1)
    order: list[str] = []
    at_work, asked = threading.Barrier(3), threading.Event()
    go_on, is_over = threading.Event(), threading.Event()
    askers: list[threading.Thread] = []

    def hold_up() -> None:
        """Whoever asks till the end, so that the rest is the helper's."""
        at_work.wait(WITHIN)
        is_asker = threading.current_thread() in askers
        (is_over if is_asker else go_on).wait(WITHIN)

    def ask_briefly() -> None:
        asked.set()
        is_over.wait(WITHIN)

    long = [hold_up, hold_up] + [lambda: order.append("long")] * 20
    short = [ask_briefly, lambda: (order.append("short"), is_over.set())]
    askers.append(in_background(lambda: pool.run(long)))
    at_work.wait(WITHIN)
    askers.append(in_background(lambda: pool.run(short)))
    asked.wait(WITHIN)
    go_on.set()
    for asker in askers:
        asker.join(WITHIN)

    assert order.index("short") <= 1


def test_a_bug_in_a_job_is_the_asker_s_to_hear_of() -> None:
    """And costs nobody the help."""
    pool = CallerRunsPool(2)

    def bug() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        pool.run([bug] * 6)

    meeting = threading.Barrier(3)
    pool.run([lambda: meeting.wait(WITHIN)] * 3)


def test_threads_end_when_there_is_nothing_to_do() -> None:
    """An idle process has none of them."""
    pool, helpers = CallerRunsPool(5), set()
    pool.run([lambda: helpers.add(threading.current_thread())] * 30)

    for helper in helpers - {threading.current_thread()}:
        helper.join(WITHIN)
        assert not helper.is_alive()
