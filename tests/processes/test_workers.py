"""Workers: the core that each is pinned to, and the priority of its threads."""

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

from proxy.config.rows import usable_cores
from proxy.server.thread_priority import NETWORK_NICENESS, THREAD_POLL_INTERVAL
from tests.helpers.processes import Service, all_at_once, wait_until
from tests.helpers.redis_servers import can_raise_priority, require

CALLERS = 20

USUAL = os.getpriority(os.PRIO_PROCESS, 0)
"""The niceness of every thread here that was not given another."""


@pytest.fixture
def start(stack) -> Iterator[Callable[..., Service]]:
    """Start a service of that many workers, and stop it at the end."""
    with ExitStack() as cleanup:

        def start(workers: str | None) -> Service:
            settings = stack.settings | {"WORKERS": workers or ""}
            if workers is None:
                del settings["WORKERS"]
            service = Service(**settings)
            cleanup.callback(service.stop)
            return service

        yield start


def cores() -> set[int]:
    """Return the cores that we may run on, if no quota limits our use of them."""
    require(hasattr(os, "sched_getaffinity"), "a system that pins processes")
    ours = os.sched_getaffinity(0)
    require(1 < len(ours) == usable_cores(), "two cores without a quota")
    return ours


def cores_of_threads(worker: int) -> set[frozenset[int]]:
    """Return the sets of cores on which the threads of *worker* may run."""
    threads = Path(f"/proc/{worker}/task")
    wait_until(lambda: len(list(threads.iterdir())) > 1, 5, "the worker serves")
    return {
        frozenset(os.sched_getaffinity(int(task.name))) for task in threads.iterdir()
    }


def test_each_worker_is_pinned_to_its_own_core(start) -> None:
    """With all of its threads, those it creates for a crowd included."""
    ours = cores()
    service = start(None)

    all_at_once([lambda: service.get("/readyz")] * CALLERS)

    found = [cores_of_threads(worker) for worker in service.workers()]
    assert sorted(found, key=str) == sorted(
        ({frozenset({core})} for core in ours), key=str
    )


def test_worker_gets_the_core_of_the_one_it_replaces(start) -> None:
    """Otherwise two would share one, and one would be idle."""
    cores()
    service = start(None)
    *others, killed = service.workers()
    previous = cores_of_threads(killed)

    os.kill(killed, signal.SIGKILL)
    wait_until(
        lambda: len(set(service.workers()) - {killed}) > len(others), 5, "a successor"
    )
    [successor] = set(service.workers()) - {killed, *others}

    assert cores_of_threads(successor) == previous


def test_fewer_workers_than_cores_are_not_pinned(start) -> None:
    """The system moves them away from busy cores."""
    ours = cores()
    service = start("1")

    [worker] = service.workers()

    assert cores_of_threads(worker) == {frozenset(ours)}


def niceness_of_threads(worker: int) -> list[int]:
    threads = Path(f"/proc/{worker}/task")
    return sorted(
        os.getpriority(os.PRIO_PROCESS, int(task.name)) for task in threads.iterdir()
    )


def await_priority(stack, worker: int) -> int:
    """Wait until the network thread of *worker* has its niceness, and return that.

    Without the near cache, or where the system does not permit it, it is the usual.
    """
    has_near_cache = stack.settings["NEAR_ENTRIES"] != "0"
    first = NETWORK_NICENESS if has_near_cache and can_raise_priority() else USUAL
    wait_until(
        lambda: (found := niceness_of_threads(worker))[0] == first and len(found) > 1,
        5,
        "the network thread has priority",
    )
    return first


def niceness_in_a_crowd(stack, service: Service, worker: int) -> list[int]:
    """Return it of the threads of *worker* once those for a crowd have the usual."""
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
                "all others have the usual niceness",
            )
            return niceness_of_threads(worker)
        finally:
            stack.meta.order("release")


def test_network_thread_has_priority_over_threads_that_run_python(stack, start) -> None:
    """With the near cache; the threads that it creates start with its niceness."""
    require(Path("/proc/self/task").exists(), "a system that lists threads")
    service = start("1")
    [worker] = service.workers()
    first = await_priority(stack, worker)

    network, *others = niceness_in_a_crowd(stack, service, worker)

    assert network == first
    assert len(others) > CALLERS


def test_worker_recovers_from_a_time_without_file_descriptors(stack, start) -> None:
    """With so many connections that no file can be opened, it accepts no more."""
    require(hasattr(resource, "prlimit"), "a system that limits others' open files")
    service = start("1")
    [worker] = service.workers()
    first = await_priority(stack, worker)

    soft, hard = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (0, hard))
    with pytest.raises(requests.ReadTimeout):
        requests.get(f"{service.url}/healthz", timeout=5 * THREAD_POLL_INTERVAL)
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (soft, hard))

    network, *others = niceness_in_a_crowd(stack, service, worker)
    assert network == first
    assert len(others) > CALLERS
    assert service.workers() == [worker]
