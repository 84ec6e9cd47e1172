"""Reads that must be quick: packed by hand, on a few connections kept for them."""

from __future__ import annotations

import math
import os
import socket
import struct
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

import hiredis
import redis
from redis._parsers import BaseParser
from redis.sentinel import SentinelConnectionPool

UNFINISHED = object()
"""What a reader says of an answer of which more must come."""

MOST_BYTES_AT_ONCE = 65536

LENGTHS = 256
"""Of tags, for which the words around them are remembered."""

Kinds = tuple[str, ...]
"""What some keys that have a tag in common begin with: ``kind:{tag}``."""

_TAG = "\0"
"""Stands for a tag, and is in no other word."""

_process = object()
"""Another one in each process; to compare it is no system call, as for its id."""


def _begin_process() -> None:
    global _process
    _process = object()


os.register_at_fork(after_in_child=_begin_process)


class FastReader:
    """Cost half of ``Redis.mget``: no look at the pool, no retry by callback.

    There are as many connections as have been needed at once; whoever calls sees to
    it that those are few.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._pool: Any = client.connection_pool
        self._master_moves = isinstance(self._pool, SentinelConnectionPool)
        self._idle: deque[RawConnection] = deque()
        self._owner = _process

    def read(
        self, prefix: str, kinds: Kinds, tag: str, *, with_life: bool
    ) -> list[Any]:
        """What MGET says of the keys of *kinds* with this hash tag: a list, in a list.

        *with_life* adds for how many milliseconds the first lives, as PTTL says it.

        Raises:
            redis.RedisError: the store did not answer.
        """
        asked = _asked(prefix, kinds, tag, with_life)
        return self._trip(asked, 1 + with_life)

    def read_many(
        self, prefix: str, kinds: Kinds, tags: Sequence[str], *, with_life: bool
    ) -> list[list[Any]]:
        """`read` for each of *tags*, in one trip."""
        each = 1 + with_life
        asked = b"".join(_asked(prefix, kinds, tag, with_life) for tag in tags)
        told = self._trip(asked, each * len(tags)) if tags else []
        return [told[n : n + each] for n in range(0, len(told), each)]

    def _trip(self, asked: bytes, answers: int) -> list[Any]:
        line = self._take()
        try:
            try:
                return line.ask(asked, answers)
            except redis.ConnectionError:
                # The store restarted, or has hung up on an idle one: once more.
                return line.ask(asked, answers)
        finally:
            self._idle.append(line)

    def _take(self) -> RawConnection:
        """A line that nobody uses, that which was used last."""
        if self._owner is not _process:
            # A forked process must not read the answers to its parent's questions.
            self._idle, self._owner = deque(), _process
        try:
            line = self._idle.pop()
        except IndexError:
            # Not the pool's, which would count it and look after it.
            pool = self._pool
            return RawConnection(pool.connection_class(**pool.connection_kwargs))
        if self._master_moves:
            self._leave_old_master(line.connection)
        return line

    def _leave_old_master(self, connection: Any) -> None:
        """Connect anew, behind Sentinels, once they have named another master."""
        there = connection.host, connection.port
        if connection.is_connected and self._pool.master_address != there:
            connection.disconnect()


class RawConnection:
    """A connection that redis-py makes, and over which we ask and listen ourselves."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self._reader = _new_reader()

    def ask(self, asked: bytes, answers: int) -> list[Any]:
        """So many *answers* to what is *asked*.

        Raises:
            redis.RedisError: the store did not answer, or with an error.
        """
        connection = self.connection
        try:
            if not connection.is_connected:
                connection.connect()
                self._reader = _new_reader()
                _let_kernel_time(connection._sock)
            sock = connection._sock
            sock.sendall(asked)
            return [self._next(sock) for _ in range(answers)]
        except (TimeoutError, BlockingIOError):
            connection.disconnect()
            raise redis.TimeoutError("no answer in time") from None
        except OSError as exc:
            connection.disconnect()
            raise redis.ConnectionError(str(exc)) from None
        except BaseException:
            # What comes late would be taken for the answer to somebody else.
            connection.disconnect()
            raise

    def _next(self, sock: Any) -> Any:
        """The next answer; what the store tells unasked is passed over."""
        told = self._reader.gets()
        while told is UNFINISHED or type(told) is hiredis.PushNotification:
            if told is UNFINISHED:
                received = sock.recv(MOST_BYTES_AT_ONCE)
                if not received:
                    raise redis.ConnectionError("the store has hung up")
                self._reader.feed(received)
            told = self._reader.gets()
        if isinstance(told, Exception):
            raise told
        return told


def _new_reader() -> Any:
    return hiredis.Reader(
        protocolError=redis.InvalidResponse,
        replyError=BaseParser.parse_error,
        notEnoughData=UNFINISHED,
    )


def _let_kernel_time(sock: Any) -> None:
    """Have the kernel end what takes too long, for Python would ask it twice each time.

    It raises BlockingIOError then. Each call has so long, not all that send one
    question, which the buffers take at once; and a signal that a handler of Python's
    takes begins the time anew. Not for TLS, which would try again, nor where sockets
    are not the system's, as under gevent, nor where it is told otherwise.
    """
    if type(sock).__module__ == socket.__name__ and (seconds := sock.gettimeout()):
        fraction, whole = math.modf(seconds)
        limit = struct.pack("@ll", int(whole), int(fraction * 1e6))
        with suppress(OSError):
            for each in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                sock.setsockopt(socket.SOL_SOCKET, each, limit)
            sock.settimeout(None)


def tagged(kind: str, tag: str) -> str:
    """A key with a hash tag: on a Cluster, all that have it are in one place."""
    return f"{kind}:{{{tag}}}"


def _asked(prefix: str, kinds: Kinds, tag: str, with_life: bool) -> bytes:
    """MGET of the keys of *kinds* with this tag; *with_life*, PTTL of the first."""
    written = tag.encode()
    return written.join(_around(prefix, kinds, with_life, len(written)))


@lru_cache(LENGTHS)
def _around(prefix: str, kinds: Kinds, with_life: bool, tag_bytes: int) -> list[bytes]:
    """What stands before, between and after the tags, which have so many bytes."""

    def argument(kind: str) -> bytes:
        key = (prefix + tagged(kind, _TAG)).encode()
        return b"$%d\r\n%b\r\n" % (len(key) - len(_TAG) + tag_bytes, key)

    asked = b"*%d\r\n$4\r\nMGET\r\n" % (1 + len(kinds))
    asked += b"".join(map(argument, kinds))
    if with_life:
        asked += b"*2\r\n$4\r\nPTTL\r\n" + argument(kinds[0])
    return asked.split(_TAG.encode())
