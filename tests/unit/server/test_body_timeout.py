"""A body that does not come is answered by another thread, which frees the reader."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import Any

import pytest

from proxy.server.body_timeout import BodyTimeouts
from proxy.server.client_connections import Connection

SECONDS = 10.0
ADDRESS = "192.0.2.1"
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


def a_connection(
    port: int,
    since_sent: float,
    segments: int,
    since_received: float = 10.0,
    address: str = ADDRESS,
) -> Connection:
    return Watched((address, port), since_sent, since_received, segments, 0, 0, True)


class Server:
    """Reads of bodies, at a time that the test sets."""

    def __init__(self) -> None:
        self.now = 0.0
        self.connections: list[Connection] = []
        self.timeouts = BodyTimeouts(lambda: self.connections, lambda: self.now)
        self.protocol = Protocol()
        Watched.shut = []

    def read(self):
        return self.timeouts.limit(self.protocol, ADDRESS, SECONDS, lambda: ANSWER)

    def give_up(self, now: float, *connections: Connection) -> list[int]:
        """Return the ports of the connections that are shut now."""
        self.now, self.connections = now, list(connections)
        Watched.shut.clear()
        self.timeouts.give_up_overdue()
        return sorted(Watched.shut)


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


def test_error_at_one_request_does_not_keep_the_others_waiting(server, caplog) -> None:
    """It is logged, and each of the others is answered at its own time."""

    class Broken(Protocol):
        def response_bytes(self, *answer: Any) -> None:
            raise RuntimeError("gone")

    with ExitStack() as reads:
        for protocol in (Broken(), server.protocol, Broken()):
            reads.enter_context(
                server.timeouts.limit(protocol, ADDRESS, SECONDS, lambda: ANSWER)
            )
        server.give_up(10.0)

    assert server.protocol.sent == [ANSWER]
    assert [r.message for r in caplog.records] == ["cannot give up a request body"] * 2


def test_connection_that_was_silent_until_the_answer_is_shut(server) -> None:
    """Others are busy, or idle, or were answered before."""
    before = {1: (10.0, 0), 2: (10.0, 7), 3: (0.5, 1), 4: (10.0, 2)}
    after = {1: (0.1, 1), 2: (10.1, 7), 3: (0.1, 2), 5: (0.1, 1)}
    with server.read():
        server.give_up(10.0, *(a_connection(p, *seen) for p, seen in before.items()))

        shut = server.give_up(10.2, *(a_connection(p, *s) for p, s in after.items()))

    assert shut == [1]


def test_client_that_was_silent_by_chance_keeps_its_connection(server) -> None:
    """Its request has just come; or its address is another."""
    elsewhere = {"address": "192.0.2.2"}
    with server.read():
        server.give_up(
            10.0,
            *(a_connection(port, 10.0, 7) for port in (1, 2)),
            a_connection(3, 10.0, 7, **elsewhere),
        )

        shut = server.give_up(
            10.2,
            a_connection(1, 0.1, 8),
            a_connection(2, 0.1, 8, since_received=0.1),
            a_connection(3, 0.1, 8, **elsewhere),
        )

    assert shut == [1]


def test_client_that_sends_a_little_is_shut_all_the_same(server) -> None:
    with server.read():
        server.give_up(10.0, a_connection(1, 10.0, 7, since_received=0.1))

        assert server.give_up(10.2, a_connection(1, 0.1, 8, since_received=0.1)) == [1]


def test_reader_is_freed_if_an_earlier_answer_was_taken_late(server) -> None:
    """30 s after its own answer, by closing all that have been silent since."""
    with server.read():
        server.give_up(10.0, a_connection(1, 5.0, 3), a_connection(2, 60.0, 1))

        assert server.give_up(12.0, a_connection(1, 2.0, 4)) == []
        assert server.give_up(39.0, a_connection(1, 29.0, 4)) == []
        assert server.give_up(
            42.0,
            a_connection(1, 32.0, 4),
            a_connection(2, 29.0, 2),
            a_connection(3, 60.0, 1, address="192.0.2.2"),
        ) == [1]


def test_readers_are_watched_by_one_thread(server) -> None:
    names = threading.active_count()
    with server.read(), server.read(), server.read():
        assert threading.active_count() == names + 1
