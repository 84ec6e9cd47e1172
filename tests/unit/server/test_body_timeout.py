"""A body that does not come is answered by another thread, which frees the reader."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from proxy.server.body_timeout import BodyTimeouts
from proxy.server.client_connections import Connection

SECONDS = 10.0
ANSWER = (408, [("Connection", "close")], b"too late")


class Protocol:
    """In place of granian's object for one request."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def response_bytes(self, *answer: Any) -> None:
        self.sent.append(answer)


class Watched(Connection):
    shut: list[int] = []

    def stop_reading(self) -> None:
        self.shut.append(self.peer[1])


def a_connection(port: int, since_sent: float, segments: int) -> Connection:
    return Watched(
        ("192.0.2.1", port), since_sent, since_sent, segments, 0, False, True
    )


class Server:
    """Reads of bodies, at a time that the test sets."""

    def __init__(self) -> None:
        self.now = 0.0
        self.connections: list[Connection] = []
        self.timeouts = BodyTimeouts(lambda: self.connections, lambda: self.now)
        self.protocol = Protocol()
        Watched.shut = []

    def read(self):
        return self.timeouts.limit(self.protocol, SECONDS, lambda: ANSWER)


@pytest.fixture
def server() -> Server:
    return Server()


def test_body_in_time_is_not_answered(server) -> None:
    with server.read() as read:
        server.now = 9.9
        server.timeouts.give_up_overdue()
    server.now = 11.0
    server.timeouts.give_up_overdue()

    assert (server.protocol.sent, read.is_given_up) == ([], False)


def test_late_body_is_answered_once(server) -> None:
    with server.read() as read:
        for server.now in (10.0, 10.2, 10.4):
            server.timeouts.give_up_overdue()

    assert (server.protocol.sent, read.is_given_up) == ([ANSWER], True)


def test_connection_that_was_silent_until_the_answer_is_shut(server) -> None:
    """Others are busy, or idle, or were answered before."""
    before = {1: (10.0, 0), 2: (10.0, 7), 3: (0.5, 1), 4: (10.0, 2)}
    after = {1: (0.1, 1), 2: (10.1, 7), 3: (0.1, 2), 5: (0.1, 1)}
    with server.read():
        server.now = 10.0
        server.connections = [a_connection(p, *seen) for p, seen in before.items()]
        server.timeouts.give_up_overdue()
        server.now = 10.2
        server.connections = [a_connection(p, *seen) for p, seen in after.items()]
        server.timeouts.give_up_overdue()

    assert Watched.shut == [1]


def test_readers_are_watched_by_one_thread(server) -> None:
    names = threading.active_count()
    with server.read(), server.read(), server.read():
        assert threading.active_count() == names + 1
