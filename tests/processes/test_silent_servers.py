"""A Redis and a Meta that accept a connection and never speak TLS hold no caller up."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from tests.helpers.processes import ADA, PAGE_TOKEN, Service

GRAPH_TIMEOUT = 2.0


@pytest.fixture
def silent_port() -> Iterator[int]:
    """The port of a server that accepts every connection, and sends nothing."""
    accepted: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    accepted.append(listener.accept()[0])
                except OSError:  # The listener is shut down.
                    return

        accepting = threading.Thread(target=accept)
        accepting.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        accepting.join()
    for connection in accepted:
        connection.close()


def test_handshake_that_never_ends_is_given_up(silent_port: int) -> None:
    """With Redis within its timeouts, with Meta within the deadline of a call."""
    service = Service(
        PAGE_TOKEN=PAGE_TOKEN,
        STORE_URL=f"rediss://127.0.0.1:{silent_port}/0",
        GRAPH_URL=f"https://127.0.0.1:{silent_port}",
        GRAPH_TIMEOUT=f"{GRAPH_TIMEOUT}s",
        WORKERS="1",
    )
    try:
        ready = service.get("/readyz")
        asked = service.get(f"/profiles/{ADA}")
    finally:
        service.stop()

    assert ready.json()["reasons"] == ["store_unavailable"]
    assert ready.elapsed.total_seconds() < 1.5
    assert (asked.status_code, asked.json()["code"]) == (504, "graph_timeout")
    assert asked.elapsed.total_seconds() < GRAPH_TIMEOUT + 1.5
