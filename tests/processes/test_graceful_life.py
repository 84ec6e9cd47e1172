"""Graceful stops: a stop and a deploy lose no request, dead workers are replaced."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from tests.helpers.processes import ADA, BEN, BIN, Service, crowd, free_port, wait_until

DRAIN_FOR = 1.0
CALLERS = 10


@pytest.fixture
def start(stack) -> Iterator[Callable[..., Service]]:
    """Start a service with these settings, and stop it at the test's end."""
    with ExitStack() as cleanup:

        def start(**settings: str) -> Service:
            service = Service(**stack.settings | settings)
            cleanup.callback(service.stop)
            return service

        yield start


@pytest.fixture
def service(start) -> Service:
    """A service of two workers, which drains."""
    return start(WORKERS="2", DRAIN_FOR=f"{DRAIN_FOR}s", GRAPH_TIMEOUT="5s")


def is_listening(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=10).close()
    except OSError:
        return False
    return True


def status_of(service: Service) -> str:
    """Return ``readyz``'s status, over a new connection; empty if that is refused."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=10)
    try:
        connection.connect()
    except OSError:
        return ""
    connection.request("GET", "/readyz")
    answer = connection.getresponse()
    status: str = json.load(answer)["status"]
    connection.close()
    assert answer.status == (503 if status == "draining" else 200)
    return status


def await_drain(service: Service) -> None:
    wait_until(lambda: status_of(service) == "draining", 5, "readyz reports draining")


def logged(service: Service) -> list[dict[str, object]]:
    return [json.loads(line) for line in service.log().splitlines()]


def hang(stack, service: Service, pool: ThreadPoolExecutor, people: list[str]):
    """Request *people*, for which Meta does not answer until it is released."""
    for igsid in people:
        stack.meta.person(igsid, wire="hang", times=1)
    asked = [pool.submit(service.get, f"/profiles/{igsid}") for igsid in people]
    for igsid in people:
        stack.meta.await_calls(igsid)
    return asked


class Callers:
    """Clients that request one person again and again, each over one connection.

    After ``Connection: close`` they connect again, to the port that *find* returns.
    A refused connection has cost no request; any other error has.
    """

    def __init__(self, find: Callable[[], int]) -> None:
        self._find = find
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(CALLERS)
        self.answered: Counter[int] = Counter()
        self.lost: list[str] = []
        self._asking: list[Future[None]] = [
            self._pool.submit(self._ask_repeatedly) for _ in range(CALLERS)
        ]

    def __enter__(self) -> Callers:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._pool.shutdown()
        for caller in self._asking:
            caller.result()

    def _ask_repeatedly(self) -> None:
        while not self._stop.is_set():
            connection = http.client.HTTPConnection(
                "127.0.0.1", self._find(), timeout=10
            )
            try:
                connection.connect()
            except OSError:
                continue
            try:
                self._ask_until_closed(connection)
            except (OSError, http.client.HTTPException) as exc:
                self.lost.append(repr(exc))
            finally:
                connection.close()

    def _ask_until_closed(self, connection: http.client.HTTPConnection) -> None:
        closed = False
        while not (closed or self._stop.is_set()):
            connection.request("GET", f"/profiles/{ADA}")
            answer = connection.getresponse()
            answer.read()
            self.answered[answer.status] += 1
            closed = answer.getheader("Connection") == "close"


def test_stop_finishes_requests_in_flight_and_loses_none(stack, service) -> None:
    """40 misses hang beyond the drain; 10 clients go on until they are refused."""
    assert service.get(f"/profiles/{ADA}").ok
    with ThreadPoolExecutor(40) as pool:
        asked = hang(stack, service, pool, [crowd(n) for n in range(40)])
        with Callers(lambda: service.port) as callers:
            wait_until(
                lambda: callers.answered[200] > 100, 10, "the clients are answered"
            )
            service.process.send_signal(signal.SIGTERM)
            wait_until(
                lambda: not is_listening(service.port), 10, "the listener is closed"
            )
        stack.meta.order("release")
        statuses = [answer.result().status_code for answer in asked]

    assert statuses == 40 * [200]
    assert callers.lost == []
    assert set(callers.answered) == {200}
    assert service.process.wait(10) == 0
    phases = [
        line for line in logged(service) if line["logger"] == "proxy.server.parent"
    ]
    assert [line["message"] for line in phases] == ["serving", "draining", "stopping"]
    assert phases[1]["seconds"] == DRAIN_FOR


def test_drain_closes_the_connection_with_every_answer(stack, service) -> None:
    """Hits, refusals, problems and probes alike; no answer before the drain does."""
    paths = {
        f"/profiles/{ADA}": 200,
        f"/profiles/{BEN}": 403,
        "/profiles/x": 400,
        "/nothing": 404,
        "/healthz": 200,
    }
    for path, status in paths.items():
        answer = service.get(path)
        assert answer.status_code == status
        assert "Connection" not in answer.headers

    service.process.send_signal(signal.SIGTERM)
    await_drain(service)

    for path, status in paths.items():
        answer = service.get(path)
        assert (answer.status_code, answer.headers.get("Connection")) == (
            status,
            "close",
        )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_to_all_processes_drains_too(service, number) -> None:
    """As systemd sends it to a unit, and a terminal to its foreground processes."""
    workers = service.workers()
    started = time.monotonic()

    os.killpg(service.process.pid, number)
    await_drain(service)

    assert service.workers() == workers
    assert service.process.wait(10) == 0
    assert time.monotonic() - started > DRAIN_FOR


def test_second_signal_ends_the_drain_but_no_request_in_flight(stack, start) -> None:
    """An operator in a hurry costs no client its answer."""
    service = start(DRAIN_FOR="10m")
    with ThreadPoolExecutor(1) as pool:
        (asked,) = hang(stack, service, pool, [ADA])
        service.process.send_signal(signal.SIGTERM)
        await_drain(service)
        service.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not is_listening(service.port), 5, "the listener is closed")
        stack.meta.order("release")
        answer = asked.result()

    assert answer.status_code == 200
    assert service.process.wait(5) == 0


def test_demo_ends_without_a_drain() -> None:
    """Ctrl-C reaches its workers too; the demo needs no drain."""
    port = free_port()
    demo = subprocess.Popen(
        [BIN / "profile-proxy", "demo"],
        env=os.environ | {"PROXY_LISTEN": f"127.0.0.1:{port}"},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_until(lambda: is_listening(port), 15, "the demo listens")
        # To the whole process group, as from a terminal.
        os.killpg(demo.pid, signal.SIGINT)
        status = demo.wait(4)
    finally:
        demo.kill()

    assert status == 0


def test_rolling_restart_loses_no_request(start) -> None:
    """Of two instances, one after the other, under clients that read readyz."""
    instances = [start(DRAIN_FOR="0.5s"), start(DRAIN_FOR="0.5s")]
    first = list(instances)
    turns = iter(range(10**9))

    def find() -> int:
        """Return the port of the next instance that is ready."""
        instance = instances[next(turns) % 2]
        return instance.port if status_of(instance) == "ok" else find()

    with Callers(find) as callers:
        for number, instance in enumerate(first):
            before = sum(callers.answered.values())
            instance.stop()
            instances[number] = start(DRAIN_FOR="0.5s")
            wait_until(
                lambda before=before: sum(callers.answered.values()) > before + 100,
                10,
                "the callers are answered",
            )

    assert callers.lost == []
    assert set(callers.answered) == {200}
    assert [instance.process.returncode for instance in first] == [0, 0]


def test_killed_worker_is_replaced_and_its_successor_drains(service) -> None:
    """It shares the phase too, and the exit is clean."""
    killed = service.workers()
    for worker in killed:
        os.kill(worker, signal.SIGKILL)
    wait_until(
        lambda: len(set(service.workers()) - set(killed)) == 2, 5, "two new workers"
    )
    wait_until(lambda: is_listening(service.port), 5, "they listen")

    service.process.send_signal(signal.SIGTERM)
    await_drain(service)

    assert service.process.wait(10) == 0


def test_worker_that_dies_again_and_again_ends_the_service(start) -> None:
    """With an error in the log, and a status that makes a supervisor restart it."""
    service = start(DRAIN_FOR="10m")
    (worker,) = service.workers()
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: service.workers() not in ([], [worker]), 5, "a successor")
    for successor in service.workers():
        os.kill(successor, signal.SIGKILL)
    status = service.process.wait(5)

    assert status == 1
    assert "Worker crash loop detected, exiting" in [
        line["message"] for line in logged(service) if line["level"] == "error"
    ]


def test_worker_that_is_still_starting_is_stopped_too(start) -> None:
    """The parent stops it before it can listen, and that must not be lost."""
    service = start()
    (killed,) = service.workers()
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: service.workers() not in ([], [killed]), 5, "a successor")

    service.process.send_signal(signal.SIGTERM)

    assert service.process.wait(5) == 0


def test_service_speaks_only_http_1(service) -> None:
    """With HTTP/2, a client that connects and sends nothing would stay for ever."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=5) as client:
        client.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")

        assert client.recv(1) == b""
