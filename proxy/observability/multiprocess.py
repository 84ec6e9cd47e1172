"""Metrics of several workers: the folder in which they are summed, and its reader."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable
from glob import glob
from itertools import count

from prometheus_client import values
from prometheus_client.core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

_slot: str | None = None
"""The slot of this process, after `share`."""

_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable in which the library looks for the folder."""


def share(folder: str) -> None:
    """Sum this process's metrics with those of all others that share *folder*.

    Call it before the first Metrics of the process is made: the library keeps the
    class of its values in a global, and reads it when a metric is made. The library
    would name files by process id, so that each worker that dies leaves its own for
    ever; a worker's slot outlives it, and its successor counts on from there.
    """
    global _slot
    _slot = slot = _take_slot(folder)
    mark_process_dead(slot, folder)
    os.environ[_FOLDER] = folder
    values.ValueClass = values.MultiProcessValue(lambda: slot)


def shared_folder() -> str | None:
    """The folder in which this process's metrics are summed; None when it is alone.

    `share` sets it, or the environment does, for another server than ours.
    """
    return os.environ[_FOLDER] if values.ValueClass._multiprocess else None


def is_first() -> bool:
    """Whether this process speaks for its instance: it is alone, or the first worker.

    A successor of that worker is the first one again. Under another server than ours
    each worker takes itself for the first.
    """
    return _slot in (None, "0")


def process_ids() -> list[str]:
    """The process ids of all workers; some may have ended. ``self`` for one alone."""
    folder = shared_folder()
    if folder is None or _slot is None:
        return ["self"]
    slots = filter(str.isdigit, os.listdir(folder))
    files = (os.path.join(folder, slot) for slot in slots)
    return [pid for pid in map(_content, files) if pid]


class WorkersCollector(Collector):
    """Collects what all workers have folded into the files of a *folder*.

    The library's own collector fails on a file that is still empty, because its
    worker begins this moment, or was killed in it.

    Source: https://github.com/prometheus/client_python/issues/1199
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def collect(self) -> Iterable[Metric]:
        files = glob(os.path.join(self._folder, "*.db"))
        return MultiProcessCollector.merge(filter(_has_content, files))  # type: ignore[no-any-return]


def _take_slot(folder: str) -> str:
    """Take the first slot that no living process holds.

    It is ours for as long as the file is open, so it is free however we end.
    """
    for slot in map(str, count()):
        file = os.open(os.path.join(folder, slot), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
        else:
            os.ftruncate(file, 0)
            os.write(file, str(os.getpid()).encode())
            return slot
    raise AssertionError("there is always another slot")


def _content(file: str) -> str:
    with open(file) as opened:
        return opened.read()


def _has_content(file: str) -> bool:
    try:
        return os.stat(file).st_size > 0
    except FileNotFoundError:
        return False  # A dead worker's gauge, whose slot was taken just now.
