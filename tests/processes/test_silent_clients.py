"""Clients that stop in mid-request hold back no other caller for long."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

import pytest

from proxy.embedded import engine
from tests.helpers.processes import (
    ADA,
    BEN,
    VERIFY_TOKEN,
    WEBHOOK_SECRET,
    Service,
    a_webhook,
    post_webhook,
    wait_until,
)
from tests.helpers.stack import Stack, start_stack

WEBHOOKS, ORDERS, HEADS = 20, 10, 50
"""Silent clients: more than there are places for their bodies."""

LATE = 3
"""Clients that take the answers to earlier requests late, and hide so that they hold
a place: fewer than there are."""

WEBHOOK = (
    b"POST /webhooks/instagram HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Length: 500\r\n\r\n{"
)
ORDER = (
    b"POST /admin/flush HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
)
HEAD = b"GET /profiles/%s HTTP/1.1\r\nHost: loc" % ADA.encode()
DOCUMENT = b"GET /openapi.yaml HTTP/1.1\r\nHost: localhost\r\n\r\n"
ASK = b"GET /profiles/%s HTTP/1.1\r\nHost: localhost\r\n\r\n" % ADA.encode()


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    settings = {"WEBHOOK_VERIFY_TOKEN": VERIFY_TOKEN, "WEBHOOK_SECRETS": WEBHOOK_SECRET}
    with engine.start() as store, start_stack(store.url, settings=settings) as stack:
        yield stack


@dataclass
class Silent:
    """Silent clients, and what another caller got meanwhile; times are in seconds."""

    stack: Stack
    started: float
    idle: socket.socket
    webhooks: list[socket.socket]
    orders: list[socket.socket]
    heads: list[socket.socket]
    deaf: list[socket.socket]
    late: list[socket.socket] = field(default_factory=list)
    hits: list[float] = field(default_factory=list)
    statuses: list[tuple[float, int, int]] = field(default_factory=list)

    def age(self) -> float:
        return time.monotonic() - self.started


def connect(service: Service, sends: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", service.port), timeout=20)
    connection.sendall(sends)
    return connection


def ask_without_reading(
    service: Service, sends: bytes = DOCUMENT * 200, address: str = "127.0.0.1"
) -> socket.socket:
    """Send more requests than buffers hold answers, and read none of those."""
    connection = socket.socket()
    connection.bind((address, 0))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", service.port))
    connection.sendall(sends)
    return connection


def take_answers(connection: socket.socket) -> None:
    """Read all that comes, and no end of it."""
    connection.settimeout(0.1)
    with suppress(TimeoutError):
        while connection.recv(65536):
            pass


def read_to_end(connection: socket.socket) -> bytes:
    """Return what the service sends until it closes the connection."""
    got = b""
    with suppress(ConnectionResetError):
        while more := connection.recv(65536):
            got += more
    return got


def answer_of(got: bytes) -> tuple[int, dict[str, object]]:
    head, _, body = got.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def ask_as_others(service: Service) -> tuple[int, int, float]:
    """Send a webhook, a flush and a hit; returns the statuses, and a hit's seconds."""
    webhook = post_webhook(service, a_webhook(BEN)).status_code
    order = {"what": "all", "dry_run": True}
    flush = service.request("POST", "/admin/flush", json=order).status_code
    hit = service.get(f"/profiles/{ADA}")
    assert hit.status_code == 200
    return webhook, flush, hit.elapsed.total_seconds()


@pytest.fixture(scope="module")
def silent(stack) -> Iterator[Silent]:
    """Silent clients at every entry, all at once, and other callers for 15 s."""
    service = stack.service
    assert service.get(f"/profiles/{ADA}").ok
    with ExitStack() as cleanup:

        def several(number: int, sends: bytes) -> list[socket.socket]:
            return [
                cleanup.enter_context(connect(service, sends)) for _ in range(number)
            ]

        # From an address of their own, as their requests in flight protect heads.
        late = [
            cleanup.enter_context(
                ask_without_reading(service, DOCUMENT * 3 + WEBHOOK, "127.0.0.2")
            )
            for _ in range(LATE)
        ]
        time.sleep(1)  # Until their bodies are read: nothing tells.
        idle = several(1, ASK)[0]
        assert idle.recv(65536).startswith(b"HTTP/1.1 200")
        silent = Silent(
            stack=stack,
            started=time.monotonic(),
            idle=idle,
            webhooks=several(WEBHOOKS, WEBHOOK),
            orders=several(ORDERS, ORDER),
            heads=several(HEADS, HEAD),
            deaf=[
                cleanup.enter_context(ask_without_reading(service)) for _ in range(3)
            ],
        )
        while silent.age() < 15:
            webhook, flush, seconds = ask_as_others(service)
            silent.statuses.append((silent.age(), webhook, flush))
            silent.hits.append(seconds)
            if silent.age() > 4:
                while late:
                    take_answers(late[0])
                    silent.late.append(late.pop(0))
            time.sleep(0.2)
        yield silent


def test_webhooks_without_a_body_do_not_hold_back_operators(stack) -> None:
    """Nor do operators' without one hold back webhooks."""

    def statuses() -> tuple[int, int]:
        return ask_as_others(stack.service)[:2]

    for sends, held in ((WEBHOOK, (503, 200)), (ORDER, (200, 503))):
        with ExitStack() as silent:
            # One at a time: of many at once, some find a place taken by the question.
            for _ in range(WEBHOOKS):
                silent.enter_context(connect(stack.service, sends))
                if statuses() == held:
                    break
            else:
                pytest.fail(f"not {held}")
        wait_until(lambda: statuses() == (200, 200), 5, "places are free")


def test_hits_do_not_notice(silent) -> None:
    assert sorted(silent.hits)[len(silent.hits) * 9 // 10] < 0.1


def test_webhooks_and_flushes_are_taken_again_after_10_s(silent) -> None:
    """Until then their places are taken; from then on they are free for good."""
    assert {(w, f) for age, w, f in silent.statuses if age < 9} == {(503, 503)}
    assert {(w, f) for age, w, f in silent.statuses if age > 12} == {(200, 200)}


@pytest.mark.parametrize(("kind", "places"), [("webhooks", 8 - LATE), ("orders", 4)])
def test_body_that_does_not_come_is_408_and_ends_its_connection(
    silent, kind, places
) -> None:
    answers = [answer_of(read_to_end(each)) for each in getattr(silent, kind)]

    given_up = [body for status, body in answers if status == 408]
    assert {body["code"] for body in given_up} == {"body_timeout"}
    assert len(given_up) == places
    assert {status for status, _ in answers} == {408, 503}


def test_head_that_does_not_come_ends_its_connection(silent) -> None:
    """Within 10 s and two looks of 2 s; nothing is sent."""
    for head in silent.heads:
        head.settimeout(0.5)

    assert {read_to_end(head) for head in silent.heads} == {b""}


def test_idle_connection_is_served_after_61_s(silent) -> None:
    """As load balancers keep it for 60 s; a client that reads nothing is dropped."""
    time.sleep(max(0.0, 61 - silent.age()))

    silent.idle.sendall(ASK)
    got = silent.idle.recv(65536)

    assert got.startswith(b"HTTP/1.1 200")
    assert b"keep-alive: timeout=75\r\n" in got.lower()
    for connection in silent.deaf:
        with pytest.raises(ConnectionResetError):
            while connection.recv(65536):
                pass


def test_place_is_freed_if_an_earlier_answer_was_taken_late(silent) -> None:
    """Half a minute after its 408: until then nothing tells whose place it is."""
    time.sleep(max(0.0, 48 - silent.age()))
    for connection in silent.late:
        connection.settimeout(1)

        assert b"408 Request Timeout" in read_to_end(connection)
