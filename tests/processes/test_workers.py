"""A worker for each core, and each on its own."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from proxy.config.settings import usable_cores
from proxy.server.thread_priority import NETWORK_NICENESS, THREAD_POLL_INTERVAL
from tests.helpers.processes import Service, all_at_once, wait_until
from tests.helpers.redis_servers import may_go_first, require

CALLERS = 20

USUAL = os.getpriority(os.PRIO_PROCESS, 0)
"""How nice the threads of everybody here are."""


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


def niceness_of_threads(worker: int) -> list[int]:
    threads = Path(f"/proc/{worker}/task")
    return sorted(
        os.getpriority(os.PRIO_PROCESS, int(task.name)) for task in threads.iterdir()
    )


def await_network(stack, worker: int) -> int:
    """Wait until the network's thread of *worker* goes first; how nice it is then.

    Where there are no copies, or the system does not permit it, it is as all are.
    """
    has_copies = stack.settings["NEAR_ENTRIES"] != "0"
    first = NETWORK_NICENESS if has_copies and may_go_first() else USUAL
    wait_until(
        lambda: (there := niceness_of_threads(worker))[0] == first and len(there) > 1,
        5,
        "the network goes first",
    )
    return first


def niceness_in_a_crowd(stack, service: Service, worker: int) -> list[int]:
    """Of the threads of *worker*, once those that a crowd has it make are as usual."""
    waiting = [str(10_000 + n) for n in range(CALLERS)]
    for igsid in waiting:
        stack.meta.person(igsid, wire="hang", times=1)
    with ThreadPoolExecutor(CALLERS) as pool:
        for igsid in waiting:
            pool.submit(service.get, f"/profiles/{igsid}")
        for igsid in waiting:
            stack.meta.await_calls(igsid)
        try:
            wait_until(
                lambda: set(niceness_of_threads(worker)[1:]) == {USUAL},
                5,
                "all others to be as they were",
            )
            return niceness_of_threads(worker)
        finally:
            stack.meta.order("release")


def test_the_network_goes_before_what_runs_python(stack, start) -> None:
    """Where there are copies; one thread does, and those that it makes begin so."""
    require(Path("/proc/self/task").exists(), "a system that lists threads")
    service = start("1")
    [worker] = service.workers()
    first = await_network(stack, worker)

    goes_first, *others = niceness_in_a_crowd(stack, service, worker)

    assert goes_first == first
    assert len(others) > CALLERS


def test_a_worker_that_could_open_nothing_for_a_while_is_as_before(
    stack, start
) -> None:
    """So many connections that no file can be opened: it takes no more meanwhile."""
    require(hasattr(resource, "prlimit"), "a system that limits others' open files")
    service = start("1")
    [worker] = service.workers()
    first = await_network(stack, worker)

    soft, hard = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (0, hard))
    with pytest.raises(requests.ReadTimeout):
        requests.get(f"{service.url}/healthz", timeout=5 * THREAD_POLL_INTERVAL)
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (soft, hard))

    goes_first, *others = niceness_in_a_crowd(stack, service, worker)
    assert goes_first == first
    assert len(others) > CALLERS
    assert service.workers() == [worker]
