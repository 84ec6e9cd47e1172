"""Work that nobody waits for: bounded, and each thing at most once."""

from __future__ import annotations

import threading

from proxy.coordination.task_queue import TaskQueue


def test_a_job_is_run() -> None:
    """In a thread of its own, soon."""
    ran = threading.Event()

    assert TaskQueue().submit("a", ran.set)
    assert ran.wait(10)


def test_what_is_pending_is_not_taken_again_and_what_is_done_is() -> None:
    """Pending means waiting or running."""
    background = TaskQueue(threads=1)
    running, end = threading.Event(), threading.Event()

    def job() -> None:
        running.set()
        assert end.wait(10)

    background.submit("a", job)
    assert running.wait(10)
    while_running = background.submit("a", job)
    again = threading.Event()
    background.submit("b", again.set)
    while_waiting = background.submit("b", again.set)
    end.set()
    assert again.wait(10)
    last = threading.Event()
    background.submit("c", last.set)
    assert last.wait(10)

    assert (while_running, while_waiting) == (False, False)
    assert background.submit("a", end.set)


def test_a_full_queue_takes_no_more() -> None:
    """What is refused is asked for again; what is kept without a limit is not freed."""
    background = TaskQueue(threads=2, waiting=3)
    started, end = threading.Semaphore(0), threading.Event()

    def job() -> None:
        started.release()
        assert end.wait(10)

    for n in range(2):
        assert background.submit(n, job)
        assert started.acquire(timeout=10)
    taken = [background.submit(n, job) for n in range(2, 10)]
    end.set()

    assert taken == [True] * 3 + [False] * 5


def test_a_bug_in_a_job_is_logged_and_stops_no_other(caplog) -> None:
    """Nobody waits for it, so nobody else would tell."""
    background = TaskQueue(threads=1)
    after = threading.Event()

    def bug() -> None:
        raise ZeroDivisionError

    background.submit("a", bug)
    background.submit("b", after.set)

    assert after.wait(10)
    assert [record.message for record in caplog.records] == ["a bug in the background"]
