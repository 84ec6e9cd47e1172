"""Sentinels: how the client finds the master, and how it leaves a late reply unread."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, cast

import redis
from redis.sentinel import SentinelManagedConnection


class Sentinels:
    """Servers that know the address of the master; the last to answer is asked first.

    redis-py's own class remembers it by swapping two items of a list, and two threads
    that do so at once lose a Sentinel for good.
    """

    def __init__(self, sentinels: list[redis.Redis]) -> None:
        self.sentinels = sentinels
        self._trusted = sentinels[0]

    def discover_master(self, name: str) -> tuple[str, int]:
        """Return the master's address; redis-py's pool calls this before it connects.

        Raises:
            redis.TimeoutError: no Sentinel knows of a master that is up.
        """
        for sentinel in sorted(self.sentinels, key=lambda s: s is not self._trusted):
            with suppress(redis.ConnectionError, redis.TimeoutError):
                master = cast(Any, sentinel.sentinel_masters()).get(name)
                if master and master["is_master"] and not master["is_sdown"]:
                    self._trusted = sentinel
                    return master["ip"], master["port"]
        # Not a ConnectionError, after which all of them would be asked once more.
        raise redis.TimeoutError("no Sentinel knows of a master that is there")

    def count_replicas(self, name: str) -> int:
        """Return how many replicas of the master are up.

        A replica that is being promoted counts, though the master no longer knows it:
        a write that it does not have is undone when it leads.

        Raises:
            redis.RedisError: the Sentinel that named the master does not answer.
        """
        replicas = cast(Any, self._trusted.sentinel_slaves(name))
        return sum(not replica["is_sdown"] for replica in replicas)


class MasterConnection(SentinelManagedConnection):
    """A connection to the master that closes after a timeout, as all others do.

    redis-py (8.1 too) keeps this kind open, so that the late reply is taken for the
    reply to the next command: one person's entry would be served for another.
    """

    def read_response(self, disable_decoding: bool = False, **options: Any) -> Any:
        options.setdefault("disconnect_on_error", True)
        return super().read_response(disable_decoding, **options)
