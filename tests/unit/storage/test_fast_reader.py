"""What a line to the store makes of whatever comes over it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import hiredis
import pytest
import redis

from proxy.storage.fast_reader import FastReader, RawConnection

ASKED = "pp:", ("e", "l", "n"), "page:1254"
PUSHED = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\ne\r\n"


class Connection:
    """A connection as redis-py makes it, to a store that is played by a test."""

    made = 0

    def __init__(self, **options: Any) -> None:
        type(self).made += 1
        self._sock: socket.socket | None = None
        self.store: socket.socket | None = None
        self.script = options.get("script", b"")

    @property
    def is_connected(self) -> bool:
        return self._sock is not None

    def connect(self) -> None:
        self._sock, self.store = socket.socketpair()
        self._sock.settimeout(0.01)
        self.store.sendall(self.script)

    def disconnect(self) -> None:
        for end in (self._sock, self.store):
            if end is not None:
                end.close()
        self._sock = self.store = None


@pytest.fixture
def connection() -> Iterator[Connection]:
    connection = Connection()
    yield connection
    connection.disconnect()


def test_an_array_and_the_numbers_after_it_are_told_together(connection) -> None:
    connection.script = b"*2\r\n$1\r\na\r\n$-1\r\n:1500\r\n"

    assert RawConnection(connection).ask(b"", answers=2) == [[b"a", None], 1500]
    assert connection.is_connected


def test_what_is_told_unasked_is_passed_over(connection) -> None:
    """A managed store may announce that it moves."""
    connection.script = PUSHED + b"*1\r\n$1\r\na\r\n" + PUSHED + b":7\r\n"

    assert RawConnection(connection).ask(b"", answers=2) == [[b"a"], 7]


@pytest.mark.parametrize("begun", [b"", b"*2\r\n$1\r\na"], ids=["nothing", "a part"])
def test_a_store_that_says_no_more_is_a_timeout(connection, begun) -> None:
    """Of the kind by which a store that hangs is known."""
    connection.script = begun

    with pytest.raises(redis.TimeoutError):
        RawConnection(connection).ask(b"", answers=1)
    assert not connection.is_connected, "what comes late is for nobody"


def test_a_store_that_takes_no_more_is_a_timeout_too(connection) -> None:
    """Its buffers are full, for it hangs."""
    with pytest.raises(redis.TimeoutError):
        RawConnection(connection).ask(bytes(10_000_000), answers=1)
    assert not connection.is_connected


def test_sockets_that_are_not_the_systems_keep_their_own_time(connection) -> None:
    """Under gevent the kernel's would never come, and all others wait meanwhile."""

    class Foreign(socket.socket):
        """As a library has it that takes the place of the system's."""

    class Patched(Connection):
        def connect(self) -> None:
            super().connect()
            assert self._sock
            self._sock = Foreign(fileno=self._sock.detach())
            self._sock.settimeout(0.01)

    line = RawConnection(Patched(script=b":1\r\n"))
    connection.script = b":1\r\n"

    assert (
        line.ask(b"", answers=1) == RawConnection(connection).ask(b"", answers=1) == [1]
    )
    assert line.connection._sock.gettimeout() == 0.01
    assert connection._sock.gettimeout() is None, "the kernel keeps it"
    line.connection.disconnect()


@pytest.mark.parametrize("with_life", [False, True])
def test_each_person_is_asked_about_with_keys_of_their_own(with_life) -> None:
    """All in one go, whatever the length of their ids."""
    people = "page:12540", "page:1254001000000001"
    kinds = "e", "l"
    answer = b"*2\r\n$1\r\na\r\n$-1\r\n" + (b":7\r\n" if with_life else b"")
    made = []

    class Answers(Connection):
        def connect(self) -> None:
            self.script = answer * 3
            super().connect()
            made.append(self)

    reads = FastReader(client_with(Answers))

    one = reads.read("pp:", kinds, people[0], with_life=with_life)
    many = reads.read_many("pp:", kinds, people, with_life=with_life)

    expected = [[b"a", None], 7] if with_life else [[b"a", None]]
    assert (one, many) == (expected, [expected, expected])
    [connection] = made
    received, asked = hiredis.Reader(), []
    received.feed(connection.store.recv(65536))
    while (command := received.gets()) is not False:
        asked.append(b" ".join(command).decode())
    of_each = [
        [f"MGET pp:e:{{{tag}}} pp:l:{{{tag}}}"]
        + ([f"PTTL pp:e:{{{tag}}}"] if with_life else [])
        for tag in (people[0], *people)
    ]
    assert asked == sum(of_each, [])


def test_nothing_of_a_broken_answer_is_taken_for_the_next(connection) -> None:
    line = RawConnection(connection)
    connection.script = b"*2\r\n$1\r\na"
    with pytest.raises(redis.TimeoutError):
        line.ask(b"", answers=1)

    connection.script = b"*1\r\n$1\r\nb\r\n"

    assert line.ask(b"", answers=1) == [[b"b"]]


def test_an_error_is_raised_as_redis_py_would(connection) -> None:
    connection.script = b"-NOPERM not for you\r\n"

    with pytest.raises(redis.exceptions.NoPermissionError):
        RawConnection(connection).ask(b"", answers=1)


def test_a_store_that_hangs_up_is_asked_once_more() -> None:
    """And no more than that."""

    tried = []

    class HangsUp(Connection):
        def connect(self) -> None:
            super().connect()
            assert self.store
            self.store.close()
            tried.append(self)

    reads = FastReader(client_with(HangsUp))

    with pytest.raises(redis.ConnectionError):
        reads.read(*ASKED, with_life=False)
    assert len(tried) == 2


def test_a_forked_process_takes_no_line_of_its_parent() -> None:
    """It would read the answers to what the parent has asked."""

    class Answers(Connection):
        def connect(self) -> None:
            self.script = b"*3\r\n$-1\r\n$-1\r\n$-1\r\n"
            super().connect()

    reads = FastReader(client_with(Answers))
    reads.read(*ASKED, with_life=False)

    before = Answers.made
    if (child := os.fork()) == 0:
        try:
            reads.read(*ASKED, with_life=False)
        finally:
            os._exit(Answers.made - before)
    made = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert made == 1


def client_with(connection_class: type[Connection]) -> Any:
    pool = SimpleNamespace(connection_class=connection_class, connection_kwargs={})
    return SimpleNamespace(connection_pool=pool)
