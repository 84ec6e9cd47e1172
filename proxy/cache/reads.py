"""Reads that must be quick: packed by hand, on a few connections kept for them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from typing import Any

import hiredis
import redis
from redis._parsers import BaseParser
from redis.sentinel import SentinelConnectionPool

UNFINISHED = object()
"""What a reader says of an answer of which more must come."""

MOST_BYTES_AT_ONCE = 65536


class Reads:
    """Cost half of ``Redis.mget``: no look at the pool, no retry by callback.

    There are as many connections as have been needed at once; whoever calls sees to
    it that those are few.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._pool: Any = client.connection_pool
        self._master_moves = isinstance(self._pool, SentinelConnectionPool)
        self._idle: deque[Line] = deque()
        self._owner = os.getpid()

    def look(self, keys: Sequence[bytes], *, with_life: bool) -> list[Any]:
        """The values of *keys*, in one trip, as MGET gives them.

        *with_life* adds for how many milliseconds the first lives, as PTTL says it.

        Raises:
            redis.RedisError: the store did not answer.
        """
        lives_of = keys[:1] if with_life else []
        return self._trip(_packed(keys, lives_of), len(lives_of))

    def look_many(
        self, people: Sequence[Sequence[bytes]], *, with_life: bool
    ) -> list[list[Any]]:
        """`look` for each of *people*, who have as many keys each, in one trip."""
        if not people:
            return []
        all_keys = [key for keys in people for key in keys]
        lives_of = [keys[0] for keys in people] if with_life else []
        told = self._trip(_packed(all_keys, lives_of), len(lives_of))
        lives, each = told[len(all_keys) :], len(people[0])
        return [
            told[each * n : each * (n + 1)] + lives[n : n + 1]
            for n in range(len(people))
        ]

    def _trip(self, asked: bytes, lives: int) -> list[Any]:
        """All that is told in one: the values of an MGET, and so many *lives*."""
        line = self._take()
        try:
            try:
                return line.ask(asked, lives)
            except redis.ConnectionError:
                # The store restarted, or has hung up on an idle one: once more.
                return line.ask(asked, lives)
        finally:
            self._idle.append(line)

    def _take(self) -> Line:
        """A line that nobody uses, that which was used last."""
        if self._owner != os.getpid():
            # A forked process must not read the answers to its parent's questions.
            self._idle, self._owner = deque(), os.getpid()
        try:
            line = self._idle.pop()
        except IndexError:
            # Not the pool's, which would count it and look after it.
            pool = self._pool
            return Line(pool.connection_class(**pool.connection_kwargs))
        if self._master_moves:
            self._leave_old_master(line.connection)
        return line

    def _leave_old_master(self, connection: Any) -> None:
        """Connect anew, behind Sentinels, once they have named another master."""
        there = connection.host, connection.port
        if connection.is_connected and self._pool.master_address != there:
            connection.disconnect()


class Line:
    """A connection that redis-py makes, and over which we ask and listen ourselves."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self._reader = _new_reader()

    def ask(self, asked: bytes, lives: int) -> list[Any]:
        """The array that answers *asked*, with so many numbers that follow it.

        Raises:
            redis.RedisError: the store did not answer, or with an error.
        """
        connection = self.connection
        try:
            if not connection.is_connected:
                connection.connect()
                self._reader = _new_reader()
            socket = connection._sock
            socket.sendall(asked)
            told: list[Any] = self._next(socket)
            for _ in range(lives):
                told.append(self._next(socket))
        except TimeoutError:
            connection.disconnect()
            raise redis.TimeoutError("no answer in time") from None
        except OSError as exc:
            connection.disconnect()
            raise redis.ConnectionError(str(exc)) from None
        except BaseException:
            # What comes late would be taken for the answer to somebody else.
            connection.disconnect()
            raise
        return told

    def _next(self, socket: Any) -> Any:
        """The next answer; what the store tells unasked is passed over."""
        told = self._reader.gets()
        while told is UNFINISHED or type(told) is hiredis.PushNotification:
            if told is UNFINISHED:
                received = socket.recv(MOST_BYTES_AT_ONCE)
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


def _packed(keys: Sequence[bytes], lives_of: Sequence[bytes]) -> bytes:
    """MGET of *keys*, and PTTL of each of *lives_of*."""
    lines = [b"*%d\r\n$4\r\nMGET\r\n" % (len(keys) + 1)]
    lines += [b"$%d\r\n%b\r\n" % (len(key), key) for key in keys]
    for key in lives_of:
        lines.append(b"*2\r\n$4\r\nPTTL\r\n$%d\r\n%b\r\n" % (len(key), key))
    return b"".join(lines)
