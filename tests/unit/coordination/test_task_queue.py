"""Background jobs: bounded, and each at most once."""

from __future__ import annotations

import threading

from proxy.coordination.task_queue import TaskQueue


def test_job_runs_in_another_thread() -> None:
    """Soon after it is submitted."""
    ran = threading.Event()

    assert TaskQueue().submit("a", ran.set)
    assert ran.wait(10)


def test_pending_key_is_refused_until_its_job_is_done() -> None:
    """Pending means waiting or running."""
    tasks = TaskQueue(threads=1)
    running, end = threading.Event(), threading.Event()

    def job() -> None:
        running.set()
        assert end.wait(10)

    tasks.submit("a", job)
    assert running.wait(10)
    while_running = tasks.submit("a", job)
    again = threading.Event()
    tasks.submit("b", again.set)
    while_waiting = tasks.submit("b", again.set)
    end.set()
    assert again.wait(10)
    last = threading.Event()
    tasks.submit("c", last.set)
    assert last.wait(10)

    assert (while_running, while_waiting) == (False, False)
    assert tasks.submit("a", end.set)


def test_full_queue_refuses_jobs() -> None:
    """A refused job is submitted again later; an unbounded queue would never shrink."""
    tasks = TaskQueue(threads=2, waiting=3)
    started, end = threading.Semaphore(0), threading.Event()

    def job() -> None:
        started.release()
        assert end.wait(10)

    for n in range(2):
        assert tasks.submit(n, job)
        assert started.acquire(timeout=10)
    accepted = [tasks.submit(n, job) for n in range(2, 10)]
    end.set()

    assert accepted == [True] * 3 + [False] * 5


def test_bug_in_a_job_is_logged_and_stops_no_other(caplog) -> None:
    """No caller waits for the job, so the log alone reports it."""
    tasks = TaskQueue(threads=1)
    after = threading.Event()

    def bug() -> None:
        raise ZeroDivisionError

    tasks.submit("a", bug)
    tasks.submit("b", after.set)

    assert after.wait(10)
    assert [record.message for record in caplog.records] == ["bug in a background job"]
