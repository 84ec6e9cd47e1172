"""The keys under our prefix: read, scanned and removed, on one server or on several."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import redis

from proxy.storage.fast_reader import Kinds
from proxy.storage.nodes import Nodes

SLICE = 350
"""Keys examined by one command of a scan, and then removed by one.

The store answers other clients between two trips. With more keys a flush would end
sooner, and the slowest of those answers would come later.
"""

WIDE_SLICE = 1000
"""Keys examined by one command where few of them match."""

Values = tuple[list[bytes | None], float]
"""Values, and for how many seconds the first of them lives, if that was asked."""

Scanned = tuple[int, list[bytes]]
"""A cursor, which is 0 at the end, and whole keys."""


class Keyspace:
    """Our keys in a database that we may share with other applications."""

    def __init__(self, client: redis.Redis, nodes: Nodes, prefix: str) -> None:
        self._client = client
        self._nodes = nodes
        self._reader = nodes.reader
        self._prefix = prefix

    def whole_key(self, key: str) -> str:
        """*key* as it stands in Redis."""
        return self._prefix + key

    def read(self, kinds: Kinds, tag: str, *, with_life: bool = False) -> Values:
        """Read ``kind:{tag}`` for each of *kinds*; one trip where reads are fast.

        *with_life* adds for how many seconds the first lives; otherwise that is 0.0.
        """
        return _values(self._reader.read(self._prefix, kinds, tag, with_life=with_life))

    def read_many(
        self, kinds: Kinds, tags: Sequence[str], *, with_life: bool = False
    ) -> list[Values]:
        """`read` for each of *tags*, in one trip to each server."""
        replies = self._reader.read_many(self._prefix, kinds, tags, with_life=with_life)
        return [_values(reply) for reply in replies]

    def values(self, whole_keys: list[bytes]) -> list[bytes | None]:
        """The values of *whole_keys*, such as `scan` finds them."""
        if not whole_keys:
            return []
        return cast("list[bytes | None]", self._client.mget(whole_keys))

    def scan(self, pattern: str) -> Iterator[list[bytes]]:
        """The whole keys under our prefix that fit *pattern*, in slices, of every node.

        A key that exists from the first slice to the last is found at least once,
        while nodes do not exchange keys (see `require_stable_topology`).
        Source: https://redis.io/docs/latest/commands/scan/#scan-guarantees
        """
        match = self.whole_key(pattern)
        for node in self._nodes.clients():
            cursor = None
            while cursor != 0:
                cursor, keys = node.scan(cursor or 0, match=match, count=SLICE)
                if keys:
                    yield cast("list[bytes]", keys)

    def remove(
        self,
        pattern: str,
        pick: Callable[[list[bytes]], list[bytes]] = lambda keys: keys,
        count: int = SLICE,
    ) -> tuple[int, int]:
        """Remove the keys that fit *pattern*, of each slice those that *pick* returns.

        Returns how many *pick* returned, and how many of them still existed. All keys
        are found, as by `scan`, *count* at once: a slice is removed in the trip that
        fetches the next, which therefore does not find it again. Redis frees the
        memory in the background.
        """
        picked = removed = 0
        match = self.whole_key(pattern)
        for node in self._nodes.clients():
            cursor, keys = cast(Scanned, node.scan(0, match=match, count=count))
            while keys or cursor:
                doomed = pick(keys) if keys else []
                pipe = node.pipeline(transaction=False)
                for group in self._nodes.by_slot(doomed):
                    pipe.unlink(*group)
                if cursor:
                    pipe.scan(cursor, match=match, count=count)
                replies = pipe.execute()
                cursor, keys = replies.pop() if cursor else (0, [])
                picked += len(doomed)
                removed += sum(replies)
        return picked, removed


def _values(reply: list[Any]) -> Values:
    """The reply to MGET, and that to PTTL if it was asked."""
    return reply[0], reply[1] / 1000 if len(reply) > 1 else 0.0
