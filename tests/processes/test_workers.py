"""A worker for each core, and each on its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from servers import require
from services import Service, all_at_once, wait_until

from proxy.settings import usable_cores

CALLERS = 20


@pytest.fixture
def start(stack) -> Iterator[Callable[..., Service]]:
    """Start a service, of as many workers as it is told; it is stopped at the end."""
    with ExitStack() as ending:

        def start(workers: str | None) -> Service:
            settings = stack.settings | {"WORKERS": workers or ""}
            if workers is None:
                del settings["WORKERS"]
            service = Service(**settings)
            ending.callback(service.stop)
            return service

        yield start


def cores() -> set[int]:
    """The cores of this machine, if all that we may run on are ours to the full."""
    require(hasattr(os, "sched_getaffinity"), "a system that pins processes")
    ours = os.sched_getaffinity(0)
    require(1 < len(ours) == usable_cores(), "two cores without a quota")
    return ours


def cores_of_threads(worker: int) -> set[frozenset[int]]:
    """The sets of cores on which the threads of *worker* may run, once it is up."""
    threads = Path(f"/proc/{worker}/task")
    wait_until(lambda: len(list(threads.iterdir())) > 1, 5, "it has begun to serve")
    return {
        frozenset(os.sched_getaffinity(int(task.name))) for task in threads.iterdir()
    }


def test_each_worker_stays_on_a_core_of_its_own(start) -> None:
    """With all of its threads, also those that it makes for a crowd."""
    ours = cores()
    service = start(None)

    all_at_once([lambda: service.get("/readyz")] * CALLERS)

    found = [cores_of_threads(worker) for worker in service.workers()]
    assert sorted(found, key=str) == sorted(
        ({frozenset({core})} for core in ours), key=str
    )


def test_a_worker_that_replaces_another_has_its_core(start) -> None:
    """Else two would share one, and one would be idle."""
    cores()
    service = start(None)
    *others, killed = service.workers()
    was = cores_of_threads(killed)

    os.kill(killed, signal.SIGKILL)
    wait_until(
        lambda: len(set(service.workers()) - {killed}) > len(others), 5, "a successor"
    )
    [successor] = set(service.workers()) - {killed, *others}

    assert cores_of_threads(successor) == was


def test_fewer_workers_than_cores_are_where_there_is_room(start) -> None:
    """The system moves them away from what else runs."""
    ours = cores()
    service = start("1")

    [worker] = service.workers()

    assert cores_of_threads(worker) == {frozenset(ours)}
