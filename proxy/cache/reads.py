"""Reads that must be quick: packed by hand, on a few connections kept for them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from typing import Any

import redis
from redis.sentinel import SentinelConnectionPool


class Reads:
    """Cost half of ``Redis.mget``: no look at the pool, no retry by callback.

    There are as many connections as have been needed at once; whoever calls sees to
    it that those are few.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._pool = client.connection_pool
        self._idle: deque[Any] = deque()
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
        connection = self._take()
        try:
            try:
                return self._ask(connection, asked, lives)
            except redis.ConnectionError:
                # The store restarted, or has hung up on an idle one: once more.
                return self._ask(connection, asked, lives)
        finally:
            self._idle.append(connection)

    def _take(self) -> Any:
        """A connection that nobody uses, that which was used last."""
        if self._owner != os.getpid():
            # A forked process must not read the answers to its parent's questions.
            self._idle, self._owner = deque(), os.getpid()
        try:
            connection = self._idle.pop()
        except IndexError:
            # Not the pool's, which would count it and look after it.
            pool = self._pool
            return pool.connection_class(**pool.connection_kwargs)
        self._leave_old_master(connection)
        return connection

    def _ask(self, connection: Any, asked: bytes, lives: int) -> list[Any]:
        try:
            if not connection.is_connected:
                connection.connect()  # What sending does would not ask a Sentinel.
            connection.send_packed_command([asked], check_health=False)
            told: list[Any] = connection.read_response()
            for _ in range(lives):
                told.append(connection.read_response())
        except BaseException:
            # What comes late would be taken for the answer to somebody else.
            connection.disconnect()
            raise
        return told

    def _leave_old_master(self, connection: Any) -> None:
        """Connect anew, behind Sentinels, once they have named another master."""
        pool = self._pool
        if (
            isinstance(pool, SentinelConnectionPool)
            and connection.is_connected
            and pool.master_address != (connection.host, connection.port)
        ):
            connection.disconnect()


def _packed(keys: Sequence[bytes], lives_of: Sequence[bytes]) -> bytes:
    """MGET of *keys*, and PTTL of each of *lives_of*."""
    lines = [b"*%d\r\n$4\r\nMGET\r\n" % (len(keys) + 1)]
    lines += [b"$%d\r\n%b\r\n" % (len(key), key) for key in keys]
    for key in lives_of:
        lines.append(b"*2\r\n$4\r\nPTTL\r\n$%d\r\n%b\r\n" % (len(key), key))
    return b"".join(lines)
