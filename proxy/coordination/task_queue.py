"""Background jobs: few threads, a short queue, each job at most once."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Hashable

THREADS = 16
"""Concurrent jobs in a process: at 0.3 s per call, fifty refreshes per second."""

QUEUE = 256
"""Jobs that wait for a thread; those beyond are submitted again soon enough."""

log = logging.getLogger(__name__)


class TaskQueue:
    """Threads made on demand that end with the process and never delay its end."""

    def __init__(self, threads: int = THREADS, waiting: int = QUEUE) -> None:
        self._threads = threads
        self._started = 0
        self._idle = 0
        self._jobs: queue.Queue[tuple[Hashable, Callable[[], None]]]
        self._jobs = queue.Queue(waiting)
        self._pending: set[Hashable] = set()
        self._lock = threading.Lock()

    def submit(self, key: Hashable, job: Callable[[], None]) -> bool:
        """Run *job* soon; return False if *key* is pending or the queue is full."""
        with self._lock:
            if key in self._pending or self._jobs.full():
                return False
            self._pending.add(key)
            self._jobs.put_nowait((key, job))
            if self._idle < self._jobs.qsize() and self._started < self._threads:
                self._started += 1
                threading.Thread(target=self._work, daemon=True).start()
            return True

    def _work(self) -> None:
        while True:
            with self._lock:
                self._idle += 1
            key, job = self._jobs.get()
            with self._lock:
                self._idle -= 1
            try:
                job()
            except Exception:
                log.exception("bug in a background job")
            finally:
                with self._lock:
                    self._pending.discard(key)
