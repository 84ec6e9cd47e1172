"""What the simulator does to a reply on a real socket."""

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


def test_a_call_that_hangs_answers_when_released(
    meta: Client, later: ThreadPoolExecutor
) -> None:
    """It counts when it arrives, and runs until it is answered."""
    meta.script(wire="hang")
    call = later.submit(meta.profile)
    meta.come()
    running, hung = meta.sim("GET", "calls")[1]["running"], not call.done()

    meta.sim("POST", "release")

    assert call.result(10)[0] == 200
    assert hung and (running, meta.sim("GET", "calls")[1]["running"]) == (1, 0)


def test_a_release_lets_all_go_at_once(meta: Client, later: ThreadPoolExecutor) -> None:
    """However many hang."""
    meta.script(wire="hang", times=5)
    calls = [later.submit(meta.profile) for _ in range(5)]
    meta.come(calls=5)

    meta.sim("POST", "release")

    assert [call.result(10)[0] for call in calls] == [200] * 5


def test_a_client_that_goes_ends_its_call(meta: Client) -> None:
    """Nothing is kept running for nobody."""
    meta.script(wire="hang")
    line = meta.raw()
    meta.come()

    line.close()

    assert running_ends(meta)


def test_stopping_ends_what_hangs() -> None:
    """The client sees its connection close."""
    with Simulator() as simulator:
        meta = Client(simulator.url)
        meta.script(wire="hang")
        line = meta.raw()
        meta.come()

    assert line.recv(1) == b""
    line.close()


def test_drop_closes_without_a_byte(meta: Client) -> None:
    """Politely, unlike a reset."""
    meta.script(wire="drop")

    with meta.raw() as line:
        assert line.recv(1) == b""


def test_reset_breaks_the_connection(meta: Client) -> None:
    """The reader gets an error, not an end."""
    meta.script(wire="reset")

    with meta.raw() as line, pytest.raises(ConnectionResetError):
        line.recv(1)


def test_truncate_promises_more_than_it_sends(meta: Client) -> None:
    """The length in the head is the true one, and half of it comes."""
    meta.script(wire="truncate", raw="0123456789")

    with pytest.raises(http.client.IncompleteRead) as caught:
        meta.profile()

    assert (caught.value.partial, caught.value.expected) == (b"01234", 5)


def test_drip_sends_a_byte_a_second(meta: Client) -> None:
    """The head comes at once; a release pours out the rest."""
    meta.script(wire="drip", raw="0123456789")
    asked_at = time.monotonic()
    with meta.raw() as line:
        read_head(line)
        first_two = line.recv(1) + line.recv(1)
        took = time.monotonic() - asked_at

        meta.sim("POST", "release")

        assert first_two == b"01" and took >= 1.0
        assert read_exactly(line, 8) == b"23456789"


def test_drip_headers_starts_with_the_head(meta: Client) -> None:
    """Its second byte takes a second; a release pours out the rest."""
    meta.script(wire="drip_headers", raw="0123456789")
    asked_at = time.monotonic()
    with meta.raw() as line:
        first_two = line.recv(1) + line.recv(1)
        took = time.monotonic() - asked_at

        meta.sim("POST", "release")

        assert first_two == b"HT" and took >= 1.0
        assert read_head(line).startswith(b"TP/1.1 200 OK\r\n")
        assert read_exactly(line, 10) == b"0123456789"


def test_gzip_comes_without_being_asked_for(meta: Client) -> None:
    """The body is packed, and the head says so."""
    meta.script(wire="gzip", raw="0123456789")

    assert gzip.decompress(meta.profile()[1]) == b"0123456789"


def test_a_bomb_is_small_until_it_goes_off(meta: Client) -> None:
    """100 MB of the beginning of a JSON object, in a fraction of a megabyte."""
    meta.script(wire="gzip_bomb")

    packed = meta.profile()[1]

    beginning = zlib.decompressobj(31).decompress(packed, 100)
    assert len(packed) < 200_000 and beginning.startswith(b'{"name":"AAAA')
    assert inflated_bytes(packed) > BOMB_BYTES


def test_huge_is_thirty_megabytes_of_good_json(meta: Client) -> None:
    """Only its length speaks against it."""
    meta.script(wire="huge")

    body = meta.profile()[1]

    assert len(body) == HUGE_BYTES
    assert body.startswith(b'{"name":"AAA') and body.endswith(b'A"}')


def test_chunked_has_no_length(meta: Client) -> None:
    """And the connection lives on."""
    meta.script(wire="chunked", raw="0123456789" * 5)
    line = meta.open()
    line.request("GET", profile_target(ADA), headers=BEARER)
    reply = line.getresponse()

    assert reply.headers["transfer-encoding"] == "chunked"
    assert "content-length" not in reply.headers
    assert reply.read() == b"0123456789" * 5 and line.sock is not None
    line.close()


def test_a_delay_holds_the_answer_back(meta: Client) -> None:
    """For as long as was asked."""
    meta.script(delay=0.2, times=1)

    asked_at = time.monotonic()
    meta.profile()

    assert time.monotonic() - asked_at >= 0.2


def read_head(line: socket.socket) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += line.recv(1)
    return head


def read_exactly(line: socket.socket, length: int) -> bytes:
    content = b""
    while len(content) < length:
        content += line.recv(length - len(content))
    return content


def inflated_bytes(packed: bytes) -> int:
    inflater, total = zlib.decompressobj(31), 0
    while packed:
        total += len(inflater.decompress(packed, 1 << 20))
        packed = inflater.unconsumed_tail
    return total


def running_ends(meta: Client) -> bool:
    """Whether no call is in progress, soon: the client's end takes its time."""
    until = time.monotonic() + 5
    while time.monotonic() < until:
        if meta.sim("GET", "calls")[1]["running"] == 0:
            return True
    return False
