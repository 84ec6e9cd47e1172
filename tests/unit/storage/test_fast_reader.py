"""The fast reader: what it sends, and what it makes of the replies."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import hiredis
import pytest
import redis
from redis.connection import PythonRespSerializer

from proxy.storage.fast_reader import FastReader, RawConnection

KEYS = "pp:", ("e", "l", "n"), "page:1254"
PUSHED = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\ne\r\n"


class Connection:
    """A connection as redis-py makes it, to a store that plays a script."""

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


def test_raw_connection_returns_arrays_and_numbers_in_order(connection) -> None:
    connection.script = b"*2\r\n$1\r\na\r\n$-1\r\n:1500\r\n"

    assert RawConnection(connection).exchange(b"", count=2) == [[b"a", None], 1500]
    assert connection.is_connected


def test_raw_connection_skips_pushes(connection) -> None:
    """A managed store may announce that it moves."""
    connection.script = PUSHED + b"*1\r\n$1\r\na\r\n" + PUSHED + b":7\r\n"

    assert RawConnection(connection).exchange(b"", count=2) == [[b"a"], 7]


@pytest.mark.parametrize("begun", [b"", b"*2\r\n$1\r\na"], ids=["nothing", "a part"])
def test_reply_that_does_not_arrive_is_a_timeout(connection, begun) -> None:
    """The circuit breaker recognises by it a store that hangs."""
    connection.script = begun

    with pytest.raises(redis.TimeoutError):
        RawConnection(connection).exchange(b"", count=1)
    assert not connection.is_connected, "a late reply must not be read"


def test_store_that_receives_no_more_is_a_timeout(connection) -> None:
    """Its buffers are full, because it hangs."""
    with pytest.raises(redis.TimeoutError):
        RawConnection(connection).exchange(bytes(10_000_000), count=1)
    assert not connection.is_connected


def test_socket_that_is_not_the_systems_keeps_its_own_timeout(connection) -> None:
    """Under gevent the kernel's would never fire, and all greenlets would wait."""

    class Foreign(socket.socket):
        """As a library makes it that replaces the system's sockets."""

    class Patched(Connection):
        def connect(self) -> None:
            super().connect()
            assert self._sock
            self._sock = Foreign(fileno=self._sock.detach())
            self._sock.settimeout(0.01)

    patched = RawConnection(Patched(script=b":1\r\n"))
    connection.script = b":1\r\n"

    assert patched.exchange(b"", count=1) == [1]
    assert RawConnection(connection).exchange(b"", count=1) == [1]
    assert patched.connection._sock.gettimeout() == 0.01
    assert connection._sock.gettimeout() is None, "the kernel has it"
    patched.connection.disconnect()


@pytest.mark.parametrize("with_life", [False, True])
def test_fast_reader_sends_one_command_for_the_keys_of_each_person(with_life) -> None:
    """All in one trip, whatever the length of their ids."""
    people = "page:12540", "page:1254001000000001"
    kinds = "e", "l"
    reply = b"*2\r\n$1\r\na\r\n$-1\r\n" + (b":7\r\n" if with_life else b"")
    opened = []

    class Answers(Connection):
        def connect(self) -> None:
            self.script = reply * 3
            super().connect()
            opened.append(self)

    reader = FastReader(client_with(Answers))

    one = reader.read("pp:", kinds, people[0], with_life=with_life)
    many = reader.read_many("pp:", kinds, people, with_life=with_life)

    expected = [[b"a", None], 7] if with_life else [[b"a", None]]
    assert (one, many) == (expected, [expected, expected])
    [connection] = opened
    parser, sent = hiredis.Reader(), []
    parser.feed(connection.store.recv(65536))
    while (command := parser.gets()) is not False:
        sent.append(b" ".join(command).decode())
    for_each = [
        [f"MGET pp:e:{{{tag}}} pp:l:{{{tag}}}"]
        + ([f"PTTL pp:e:{{{tag}}}"] if with_life else [])
        for tag in (people[0], *people)
    ]
    assert sent == sum(for_each, [])


@pytest.mark.parametrize("tag", ["page:1254", "Pagina-\u00e9:1254001000000001"])
def test_fast_reader_sends_the_bytes_that_redis_py_sends(tag) -> None:
    """hiredis packs ours; the serializer of redis-py itself is the reference."""
    reply = b"*2\r\n$1\r\na\r\n$-1\r\n:7\r\n"
    opened = []

    class Answers(Connection):
        def connect(self) -> None:
            self.script = reply
            super().connect()
            opened.append(self)

    FastReader(client_with(Answers)).read("pp:", ("e", "l"), tag, with_life=True)

    serializer = PythonRespSerializer(65536, redis.Redis().get_encoder().encode)
    first, second = f"pp:e:{{{tag}}}", f"pp:l:{{{tag}}}"
    expected = *serializer.pack("MGET", first, second), *serializer.pack("PTTL", first)
    [connection] = opened
    assert connection.store.recv(65536) == b"".join(expected)


def test_incomplete_reply_is_not_part_of_the_next(connection) -> None:
    raw = RawConnection(connection)
    connection.script = b"*2\r\n$1\r\na"
    with pytest.raises(redis.TimeoutError):
        raw.exchange(b"", count=1)

    connection.script = b"*1\r\n$1\r\nb\r\n"

    assert raw.exchange(b"", count=1) == [[b"b"]]


def test_error_reply_is_raised_as_redis_py_raises_it(connection) -> None:
    connection.script = b"-NOPERM not for you\r\n"

    with pytest.raises(redis.exceptions.NoPermissionError):
        RawConnection(connection).exchange(b"", count=1)


def test_fast_reader_tries_once_more_after_a_lost_connection() -> None:
    """But not twice."""

    opened = []

    class HangsUp(Connection):
        def connect(self) -> None:
            super().connect()
            assert self.store
            self.store.close()
            opened.append(self)

    reader = FastReader(client_with(HangsUp))

    with pytest.raises(redis.ConnectionError):
        reader.read(*KEYS, with_life=False)
    assert len(opened) == 2


def test_forked_process_uses_no_connection_of_its_parent() -> None:
    """It would read the replies to its parent's commands."""

    class Answers(Connection):
        def connect(self) -> None:
            self.script = b"*3\r\n$-1\r\n$-1\r\n$-1\r\n"
            super().connect()

    reader = FastReader(client_with(Answers))
    reader.read(*KEYS, with_life=False)

    before = Answers.made
    if (child := os.fork()) == 0:
        try:
            reader.read(*KEYS, with_life=False)
        finally:
            os._exit(Answers.made - before)
    made = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert made == 1


def client_with(connection_class: type[Connection]) -> Any:
    pool = SimpleNamespace(connection_class=connection_class, connection_kwargs={})
    return SimpleNamespace(connection_pool=pool)
