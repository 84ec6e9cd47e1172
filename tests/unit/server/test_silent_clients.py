"""Which connections are closed, from what several looks have seen of them."""

from __future__ import annotations

import pytest

from proxy.server.client_connections import Connection
from proxy.server.silent_clients import (
    ANSWER_TIMEOUT,
    HEAD_TIMEOUT,
    LOOK_EVERY,
    RequestsInFlight,
    SilentClients,
)

PEER = ("192.0.2.1", 40000)
NOW = 1000.0


class Watched(Connection):
    """A connection that notes how it was closed."""

    closed: list[str] = []

    def stop_reading(self) -> None:
        self.closed.append("head")

    def abort(self) -> None:
        self.closed.append("answer")


def a_connection(**how: float) -> Connection:
    return Watched(
        **{
            "peer": PEER,
            "since_sent": 1.0,
            "since_received": 1.0,
            "segments": 1,
            "acked": 100,
            "queued": 0,
            "is_unanswered": False,
        }
        | how  # type: ignore[arg-type]
    )


class Clients:
    """Looks at one connection every LOOK_EVERY, until it is closed.

    The client's last byte came at *received_at*.
    """

    def __init__(self) -> None:
        self.now = NOW
        self.in_flight = RequestsInFlight(lambda: self.now)
        self.connection = a_connection()
        self.received_at = NOW
        self._clients = SilentClients(lambda: [self._seen()], self.in_flight)
        Watched.closed = []

    def _seen(self) -> Connection:
        return self.connection._replace(since_received=self.now - self.received_at)

    def closed_after(self, most: float = 100.0) -> float | None:
        started = self.now
        while self.now < started + most:
            self.now += LOOK_EVERY
            self._clients.look(self.now)
            if Watched.closed:
                return self.now - started
        return None


@pytest.fixture
def clients() -> Clients:
    return Clients()


def test_unfinished_head_is_closed_after_10_s(clients) -> None:
    clients.connection = a_connection(is_unanswered=True)

    assert clients.closed_after() == HEAD_TIMEOUT + LOOK_EVERY
    assert Watched.closed == ["head"]


def test_idle_connection_is_left_alone(clients) -> None:
    clients.connection = a_connection()

    assert clients.closed_after() is None


def test_client_that_is_answered_again_and_again_is_left_alone(clients) -> None:
    """Each look may meet it between a request and its answer."""
    for segments in range(1, 50):
        clients.connection = a_connection(is_unanswered=True, segments=segments)

        assert clients.closed_after(LOOK_EVERY) is None


def test_request_in_flight_is_left_alone_and_for_a_moment_after_it(clients) -> None:
    """Its answer may be on the way to the socket when it ends."""
    clients.connection = a_connection(is_unanswered=True)
    with clients.in_flight.running(PEER[0]):
        assert clients.closed_after(60.0) is None
    assert clients.closed_after(LOOK_EVERY) is None

    assert clients.closed_after() == LOOK_EVERY


def test_requests_of_other_clients_protect_no_head(clients) -> None:
    clients.connection = a_connection(is_unanswered=True)

    with clients.in_flight.running("192.0.2.2"):
        assert clients.closed_after() == HEAD_TIMEOUT + LOOK_EVERY


def test_later_request_from_the_same_address_protects_no_head(clients) -> None:
    """A request has a thread seconds after its last byte, so it is another one."""
    clients.connection = a_connection(is_unanswered=True)
    clients.received_at = NOW - 30.0

    with clients.in_flight.running(PEER[0]):
        assert clients.closed_after(20.0) == HEAD_TIMEOUT + LOOK_EVERY


def test_answer_that_is_not_taken_is_dropped_after_30_s(clients) -> None:
    clients.connection = a_connection(queued=500)

    assert clients.closed_after() == ANSWER_TIMEOUT + LOOK_EVERY
    assert Watched.closed == ["answer"]


def test_answers_that_are_taken_are_left_alone(clients) -> None:
    """Some of their bytes wait at each look, as where a client is far away."""
    for acked in range(0, 50_000, 500):
        clients.connection = a_connection(queued=500, acked=acked)

        assert clients.closed_after(LOOK_EVERY) is None


def test_answer_that_is_taken_byte_by_byte_is_dropped_after_30_s(clients) -> None:
    closed_at = None
    for acked in range(100):
        clients.connection = a_connection(queued=500 - acked, acked=acked)
        if clients.closed_after(LOOK_EVERY) and closed_at is None:
            closed_at = (acked + 1) * LOOK_EVERY

    assert closed_at == ANSWER_TIMEOUT + LOOK_EVERY
