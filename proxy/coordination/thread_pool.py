"""A bounded thread pool for parallel jobs, shared fairly between its callers."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")

Task = tuple[Future[Any], Callable[[], Any]]


class CallerRunsPool:
    """Threads made on demand that help callers, and end when no jobs are left.

    A caller runs its own jobs too. So they always progress, even while other callers
    have all the threads; and no job is left behind when its caller has gone.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._working = 0
        self._queues: deque[deque[Task]] = deque()
        self._lock = threading.Lock()

    def run(self, jobs: Sequence[Callable[[], T]]) -> list[T]:
        """Run *jobs*, begun in their order, and return their results in that order.

        Each job must end by itself. Threads take one job of each caller in turn. The
        context variables are the caller's, whose request log lines name.
        """
        own: deque[Task] = deque(
            (Future(), partial(copy_context().run, job)) for job in jobs
        )
        results = [future for future, _ in own]
        with self._lock:
            self._queues.append(own)
            wanted = min(len(own) - 1, self._threads - self._working)
            self._working += max(wanted, 0)
        for _ in range(wanted):
            threading.Thread(target=self._help, daemon=True).start()
        try:
            while task := self._next(own):
                _run(task)
        finally:
            with self._lock:
                self._queues.remove(own)
        return [result.result() for result in results]

    def _next(self, own: deque[Task]) -> Task | None:
        with self._lock:
            return own.popleft() if own else None

    def _help(self) -> None:
        while task := self._next_of_any_caller():
            _run(task)

    def _next_of_any_caller(self) -> Task | None:
        with self._lock:
            for _ in range(len(self._queues)):
                tasks = self._queues[0]
                self._queues.rotate(-1)
                if tasks:
                    return tasks.popleft()
            self._working -= 1
            return None


def _run(task: Task) -> None:
    future, job = task
    try:
        future.set_result(job())
    except BaseException as exc:  # `run` raises it in the caller's thread.
        future.set_exception(exc)
