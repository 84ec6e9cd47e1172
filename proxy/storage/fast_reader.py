"""Fast reads of a person's keys, on a few connections kept for them."""

from __future__ import annotations

import math
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from typing import Any, cast

import hiredis
import redis
from redis.sentinel import SentinelConnectionPool

from proxy.storage.redis_internals import parse_error, socket_of

INCOMPLETE = object()
"""The parser's result for a reply of which more must arrive."""

MAX_BYTES_AT_ONCE = 65536

Kinds = tuple[str, ...]
"""Kinds of keys that have a hash tag in common: each key is ``kind:{tag}``."""

# Its stub takes tuples of one only.
pack_command: Callable[[tuple[str, ...]], bytes] = cast(Any, hiredis.pack_command)

_process = object()
"""Another object in each process; to compare it is no system call, as for a pid."""


def _begin_process() -> None:
    global _process
    _process = object()


@cache
def _watch_forks() -> None:
    os.register_at_fork(after_in_child=_begin_process)


class FastReader:
    """Costs half of ``Redis.mget``: no use of the pool, no retry by callback.

    There are as many connections as have been needed at once; the caller sees to it
    that those are few.
    """

    def __init__(self, client: redis.Redis) -> None:
        _watch_forks()
        self._pool: Any = client.connection_pool
        self._master_moves = isinstance(self._pool, SentinelConnectionPool)
        self._idle: deque[RawConnection] = deque()
        self._owner = _process

    def read(
        self, prefix: str, kinds: Kinds, tag: str, *, with_life: bool
    ) -> list[Any]:
        """Return a list of one: MGET's reply for the keys of *kinds* with this tag.

        *with_life* adds PTTL's reply: how many milliseconds the first key lives.

        Raises:
            redis.RedisError: the store did not answer.
        """
        return self._exchange(_pack(prefix, kinds, tag, with_life), 1 + with_life)

    def read_many(
        self, prefix: str, kinds: Kinds, tags: Sequence[str], *, with_life: bool
    ) -> list[list[Any]]:
        """`read` for each of *tags*, in one trip."""
        each = 1 + with_life
        commands = b"".join(_pack(prefix, kinds, tag, with_life) for tag in tags)
        replies = self._exchange(commands, each * len(tags)) if tags else []
        return [replies[n : n + each] for n in range(0, len(replies), each)]

    def _exchange(self, commands: bytes, count: int) -> list[Any]:
        connection = self._take()
        try:
            try:
                return connection.exchange(commands, count)
            except redis.ConnectionError:
                # The store restarted, or has closed an idle connection: once more.
                return connection.exchange(commands, count)
        finally:
            self._idle.append(connection)

    def _take(self) -> RawConnection:
        """Return the idle connection that was used last, or a new one."""
        if self._owner is not _process:
            # A forked process must not read the replies to its parent's commands.
            self._idle, self._owner = deque(), _process
        try:
            raw = self._idle.pop()
        except IndexError:
            # Not from the pool, which would count and check it.
            pool = self._pool
            return RawConnection(pool.connection_class(**pool.connection_kwargs))
        if self._master_moves:
            self._leave_old_master(raw.connection)
        return raw

    def _leave_old_master(self, connection: Any) -> None:
        """Disconnect, behind Sentinels, after they have named another master."""
        connected_to = connection.host, connection.port
        if connection.is_connected and self._pool.master_address != connected_to:
            connection.disconnect()


class RawConnection:
    """A connection that redis-py opens, and that we send and receive over ourselves."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self._socket: Any = None
        self._parser = _new_parser()

    def exchange(self, commands: bytes, count: int) -> list[Any]:
        """Send packed *commands*, and return their *count* replies.

        Raises:
            redis.RedisError: the store did not answer, or with an error.
        """
        connection = self.connection
        try:
            if not connection.is_connected:
                connection.connect()
                self._parser = _new_parser()
                self._socket = socket_of(connection)
                _move_timeout_to_kernel(self._socket)
            sock = self._socket
            sock.sendall(commands)
            return [self._next(sock) for _ in range(count)]
        except (TimeoutError, BlockingIOError):
            connection.disconnect()
            raise redis.TimeoutError("no answer in time") from None
        except OSError as exc:
            connection.disconnect()
            raise redis.ConnectionError(str(exc)) from None
        except BaseException:
            # A late reply would be taken for the reply to the next command.
            connection.disconnect()
            raise

    def _next(self, sock: Any) -> Any:
        """Return the next reply; pushes, which no command asked for, are skipped."""
        reply = self._parser.gets()
        while reply is INCOMPLETE or type(reply) is hiredis.PushNotification:
            if reply is INCOMPLETE:
                received = sock.recv(MAX_BYTES_AT_ONCE)
                if not received:
                    raise redis.ConnectionError("the store has hung up")
                self._parser.feed(received)
            reply = self._parser.gets()
        if isinstance(reply, Exception):
            raise reply
        return reply


def _new_parser() -> Any:
    return hiredis.Reader(
        protocolError=redis.InvalidResponse,
        replyError=parse_error,
        notEnoughData=INCOMPLETE,
    )


def _move_timeout_to_kernel(sock: Any) -> None:
    """Leave the timeout to the kernel: Python's costs another system call each time.

    A timeout raises BlockingIOError then. It holds for each system call, not for all
    that send one command, which the buffers take at once; and a signal that Python
    handles begins it again. Not for TLS, which would try again, nor for sockets that
    are not the system's, as under gevent, nor where the system refuses the option.
    """
    if type(sock).__module__ == socket.__name__ and (seconds := sock.gettimeout()):
        fraction, whole = math.modf(seconds)
        limit = struct.pack("@ll", int(whole), int(fraction * 1e6))
        with suppress(OSError):
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                sock.setsockopt(socket.SOL_SOCKET, option, limit)
            sock.settimeout(None)


def tagged(kind: str, tag: str) -> str:
    """A key with a hash tag: on a Cluster, all keys with that tag are on one node."""
    return f"{kind}:{{{tag}}}"


def _pack(prefix: str, kinds: Kinds, tag: str, with_life: bool) -> bytes:
    """MGET of the keys of *kinds* with this tag; *with_life*, PTTL of the first."""
    keys = [prefix + tagged(kind, tag) for kind in kinds]
    packed = pack_command(("MGET", *keys))
    return packed + pack_command(("PTTL", keys[0])) if with_life else packed
