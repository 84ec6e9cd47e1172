"""Things that are waited for side by side: few threads, shared by all who have many."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")

Task = tuple[Future[Any], Callable[[], Any]]


class CallerRunsPool:
    """Threads made on demand, which help whoever asks and end when there is nothing.

    Whoever asks does their own jobs too. So somebody is always at them, however many
    others have all the help; and no job is left behind when its asker has gone.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._working = 0
        self._open: deque[deque[Task]] = deque()
        self._lock = threading.Lock()

    def run(self, jobs: Sequence[Callable[[], T]]) -> list[T]:
        """What the *jobs* give, which are begun in their order and end by themselves.

        Help goes round among those who have jobs left, one at a time.
        """
        mine: deque[Task] = deque((Future(), job) for job in jobs)
        results = [future for future, _ in mine]
        with self._lock:
            self._open.append(mine)
            wanted = min(len(mine) - 1, self._threads - self._working)
            self._working += max(wanted, 0)
        for _ in range(wanted):
            threading.Thread(target=self._help, daemon=True).start()
        try:
            while task := self._next(mine):
                _do(task)
        finally:
            with self._lock:
                self._open.remove(mine)
        return [result.result() for result in results]

    def _next(self, mine: deque[Task]) -> Task | None:
        with self._lock:
            return mine.popleft() if mine else None

    def _help(self) -> None:
        while task := self._next_of_any():
            _do(task)

    def _next_of_any(self) -> Task | None:
        with self._lock:
            for _ in range(len(self._open)):
                theirs = self._open[0]
                self._open.rotate(-1)
                if theirs:
                    return theirs.popleft()
            self._working -= 1
            return None


def _do(task: Task) -> None:
    future, job = task
    try:
        future.set_result(job())
    except BaseException as exc:  # Raised anew for whoever asked.
        future.set_exception(exc)
