"""Parallel jobs: how many at once, in which order, and of which caller."""

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


def test_jobs_run_in_parallel() -> None:
    """Eight that all wait for one another: seven threads and the caller."""
    meeting = threading.Barrier(8)

    CallerRunsPool(7).run([lambda: meeting.wait(WITHIN)] * 8)


@pytest.mark.parametrize("callers", [1, 5])
def test_pool_never_exceeds_its_threads(callers: int) -> None:
    """Over all callers at once."""
    pool, threads, lock = CallerRunsPool(3), set(), threading.Lock()

    def job() -> None:
        with lock:
            threads.add(threading.current_thread())
            most.append(sum(thread.is_alive() for thread in threads))

    most: list[int] = []
    with ThreadPoolExecutor(callers) as executor:
        list(executor.map(pool.run, [[job] * 200] * callers))

    assert max(most) <= 3 + callers


def test_caller_runs_all_jobs_without_threads() -> None:
    """In the order of the jobs."""
    done: list[int] = []

    CallerRunsPool(0).run([lambda n=n: done.append(n) for n in range(10)])

    assert done == list(range(10))


def test_freed_thread_helps_a_caller_that_still_waits() -> None:
    """One thread, held up by one caller; it helps the other once it is free."""
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


def test_threads_take_jobs_of_each_caller_in_turn() -> None:
    """A long batch does not keep them from a short one that came later."""
    pool = CallerRunsPool(1)
    order: list[str] = []
    at_work, submitted = threading.Barrier(3), threading.Event()
    go_on, is_over = threading.Event(), threading.Event()
    callers: list[threading.Thread] = []

    def hold_up() -> None:
        """Hold up the caller till the end, so that the pool's thread runs the rest."""
        at_work.wait(WITHIN)
        is_caller = threading.current_thread() in callers
        (is_over if is_caller else go_on).wait(WITHIN)

    def submit_briefly() -> None:
        submitted.set()
        is_over.wait(WITHIN)

    long = [hold_up, hold_up] + [lambda: order.append("long")] * 20
    short = [submit_briefly, lambda: (order.append("short"), is_over.set())]
    callers.append(in_background(lambda: pool.run(long)))
    at_work.wait(WITHIN)
    callers.append(in_background(lambda: pool.run(short)))
    submitted.wait(WITHIN)
    go_on.set()
    for caller in callers:
        caller.join(WITHIN)

    assert order.index("short") <= 1


def test_bug_in_a_job_is_raised_to_its_caller() -> None:
    """The pool keeps its threads."""
    pool = CallerRunsPool(2)

    def bug() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        pool.run([bug] * 6)

    meeting = threading.Barrier(3)
    pool.run([lambda: meeting.wait(WITHIN)] * 3)


def test_threads_end_when_no_jobs_are_left() -> None:
    """An idle process has none of them."""
    pool, threads = CallerRunsPool(5), set()
    pool.run([lambda: threads.add(threading.current_thread())] * 30)

    for thread in threads - {threading.current_thread()}:
        thread.join(WITHIN)
        assert not thread.is_alive()
