"""The simulator's faults of a reply, on a real socket."""

import gzip
import http.client
import socket
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from proxy.simulator.server import Simulator
from proxy.simulator.wire import BOMB_BYTES, HUGE_BYTES
from tests.helpers.simulator_client import ADA, BEARER, Client, profile_target


def test_hanging_call_is_answered_after_a_release(
    meta: Client, pool: ThreadPoolExecutor
) -> None:
    """It counts when it arrives, and runs until it is answered."""
    meta.script(wire="hang")
    call = pool.submit(meta.profile)
    meta.wait_for_calls()
    running, hung = meta.sim("GET", "calls")[1]["running"], not call.done()

    meta.sim("POST", "release")

    assert call.result(10)[0] == 200
    assert hung and (running, meta.sim("GET", "calls")[1]["running"]) == (1, 0)


def test_release_ends_all_hanging_calls_at_once(
    meta: Client, pool: ThreadPoolExecutor
) -> None:
    """Whatever their number."""
    meta.script(wire="hang", times=5)
    calls = [pool.submit(meta.profile) for _ in range(5)]
    meta.wait_for_calls(calls=5)

    meta.sim("POST", "release")

    assert [call.result(10)[0] for call in calls] == [200] * 5


def test_client_that_disconnects_ends_its_call(meta: Client) -> None:
    """No thread goes on without a client."""
    meta.script(wire="hang")
    connection = meta.raw()
    meta.wait_for_calls()

    connection.close()

    assert all_calls_end(meta)


def test_stop_ends_hanging_calls() -> None:
    """The client sees its connection close."""
    with Simulator() as simulator:
        meta = Client(simulator.url)
        meta.script(wire="hang")
        connection = meta.raw()
        meta.wait_for_calls()

    assert connection.recv(1) == b""
    connection.close()


def test_drop_closes_without_a_byte(meta: Client) -> None:
    """With a FIN, unlike a reset."""
    meta.script(wire="drop")

    with meta.raw() as connection:
        assert connection.recv(1) == b""


def test_reset_breaks_the_connection(meta: Client) -> None:
    """The reader gets an error, not an end."""
    meta.script(wire="reset")

    with meta.raw() as connection, pytest.raises(ConnectionResetError):
        connection.recv(1)


def test_truncate_promises_more_than_it_sends(meta: Client) -> None:
    """The header has the true length, and half of the body is sent."""
    meta.script(wire="truncate", raw="0123456789")

    with pytest.raises(http.client.IncompleteRead) as caught:
        meta.profile()

    assert (caught.value.partial, caught.value.expected) == (b"01234", 5)


def test_drip_sends_a_byte_a_second(meta: Client) -> None:
    """The header is sent at once, and the rest after a release."""
    meta.script(wire="drip", raw="0123456789")
    asked_at = time.monotonic()
    with meta.raw() as connection:
        read_head(connection)
        first_two = connection.recv(1) + connection.recv(1)
        took = time.monotonic() - asked_at

        meta.sim("POST", "release")

        assert first_two == b"01" and took >= 1.0
        assert read_exactly(connection, 8) == b"23456789"


def test_drip_headers_starts_with_the_header(meta: Client) -> None:
    """Its second byte takes a second; the rest is sent after a release."""
    meta.script(wire="drip_headers", raw="0123456789")
    asked_at = time.monotonic()
    with meta.raw() as connection:
        first_two = connection.recv(1) + connection.recv(1)
        took = time.monotonic() - asked_at

        meta.sim("POST", "release")

        assert first_two == b"HT" and took >= 1.0
        assert read_head(connection).startswith(b"TP/1.1 200 OK\r\n")
        assert read_exactly(connection, 10) == b"0123456789"


def test_gzip_is_sent_without_being_requested(meta: Client) -> None:
    """The body is compressed, and the header says so."""
    meta.script(wire="gzip", raw="0123456789")

    assert gzip.decompress(meta.profile()[1]) == b"0123456789"


def test_gzip_bomb_is_small_and_inflates_to_100_mb(meta: Client) -> None:
    """100 MB of the beginning of a JSON object, in a fraction of a megabyte."""
    meta.script(wire="gzip_bomb")

    packed = meta.profile()[1]

    beginning = zlib.decompressobj(31).decompress(packed, 100)
    assert len(packed) < 200_000 and beginning.startswith(b'{"name":"AAAA')
    assert inflated_bytes(packed) > BOMB_BYTES


def test_huge_is_30_mb_of_valid_json(meta: Client) -> None:
    """It is invalid only by its length."""
    meta.script(wire="huge")

    body = meta.profile()[1]

    assert len(body) == HUGE_BYTES
    assert body.startswith(b'{"name":"AAA') and body.endswith(b'A"}')


def test_chunked_has_no_length(meta: Client) -> None:
    """And the connection stays open."""
    meta.script(wire="chunked", raw="0123456789" * 5)
    connection = meta.open()
    connection.request("GET", profile_target(ADA), headers=BEARER)
    reply = connection.getresponse()

    assert reply.headers["transfer-encoding"] == "chunked"
    assert "content-length" not in reply.headers
    assert reply.read() == b"0123456789" * 5 and connection.sock is not None
    connection.close()


def test_delay_postpones_the_answer(meta: Client) -> None:
    """For the scripted time."""
    meta.script(delay=0.2, times=1)

    asked_at = time.monotonic()
    meta.profile()

    assert time.monotonic() - asked_at >= 0.2


def read_head(connection: socket.socket) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += connection.recv(1)
    return head


def read_exactly(connection: socket.socket, length: int) -> bytes:
    content = b""
    while len(content) < length:
        content += connection.recv(length - len(content))
    return content


def inflated_bytes(packed: bytes) -> int:
    inflater, total = zlib.decompressobj(31), 0
    while packed:
        total += len(inflater.decompress(packed, 1 << 20))
        packed = inflater.unconsumed_tail
    return total


def all_calls_end(meta: Client) -> bool:
    """Return whether no call is in progress soon: a client's end takes some time."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if meta.sim("GET", "calls")[1]["running"] == 0:
            return True
    return False
