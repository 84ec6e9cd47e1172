"""What the system says of real connections on this machine."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from proxy.server.client_connections import Connection, client_connections

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")

WITHOUT_FILES = """
import resource
import socket
from proxy.server.client_connections import client_connections

listener = socket.create_server(("127.0.0.1", 0))
address = listener.getsockname()
client = socket.create_connection(address)
server, _ = listener.accept()
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
files = []
try:
    while True:
        files.append(open("/dev/null"))
except OSError:
    pass
[connection] = client_connections(address[1])
connection.stop_reading()
print(connection.peer == client.getsockname(), server.recv(1))
"""


class Pair:
    """A connection to a listener of this process, both ends of it."""

    def __init__(self, address: str) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with ExitStack() as cleanup:
            listener = cleanup.enter_context(
                socket.create_server((address, 0), family=family)
            )
            ours = listener.getsockname()[:2]
            self.port = ours[1]
            self.client = cleanup.enter_context(socket.create_connection(ours, 5))
            self.server, _ = listener.accept()
            cleanup.enter_context(self.server)
            self.close = cleanup.pop_all().close

    def read(self) -> Connection:
        (connection,) = client_connections(self.port)
        assert connection.peer == self.client.getsockname()[:2]
        return connection


@pytest.fixture(params=["127.0.0.1", "::1"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    with closing(Pair(request.param)) as pair:
        yield pair


def test_new_connection_is_idle(pair) -> None:
    connection = pair.read()

    assert (connection.is_unanswered, connection.queued) == (False, 0)


def test_request_is_unanswered_until_its_answer(pair) -> None:
    pair.client.sendall(b"GET")
    pair.server.recv(3)
    asked = pair.read()
    pair.server.sendall(b"200")
    pair.client.recv(3)
    answered = pair.read()

    assert (asked.is_unanswered, answered.is_unanswered) == (True, False)
    assert (asked.segments, answered.segments) == (0, 1)


def test_answer_is_queued_while_nothing_takes_it(pair) -> None:
    pair.server.setblocking(False)
    sent = 0
    try:
        while True:
            sent += pair.server.send(bytes(1 << 16))
    except BlockingIOError:
        connection = pair.read()

    assert connection.queued > 0
    assert connection.acked + connection.queued == sent


def test_connection_is_read_to_its_end(pair) -> None:
    pair.read().stop_reading()

    assert pair.server.recv(1) == b""


def test_another_connection_under_the_same_number_is_left_alone(pair) -> None:
    pair.read()._replace(peer=("192.0.2.1", 1)).abort()
    pair.client.sendall(b"x")

    assert pair.server.recv(1) == b"x"


def test_connections_are_found_when_no_file_can_be_opened() -> None:
    """As under a crowd of connections, which is when they must be closed."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_FILES],
        capture_output=True,
        text=True,
        timeout=20,
    )

    assert done.stdout == "True b''\n", done.stderr
