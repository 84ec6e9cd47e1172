"""The thread that keeps a near cache true: it receives from Redis which keys change."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import redis
from redis.sentinel import SentinelConnectionPool

from proxy.storage.near_cache import NearCache
from proxy.storage.redis_internals import on_invalidation

HEARTBEAT_EVERY = 0.1
"""Seconds between two pings."""

SILENT_FOR = 1.0
"""Seconds without a reply after which the connection is closed."""

RECONNECT_EVERY = 0.2
"""Seconds between two attempts to connect."""

RETRY_TRACKING_AFTER = 10.0
"""Seconds until a store without tracking is asked again: it may be another one then."""

log = logging.getLogger(__name__)


class TrackingUnavailable(Exception):
    """The store sends no invalidations: it is too old, or does not permit us to ask."""


class InvalidationListener:
    """Receives, on a connection of its own, invalidations of keys with a prefix."""

    def __init__(
        self,
        client: redis.Redis,
        prefix: str,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """*client* has the address; tracked keys begin with *prefix*."""
        self._pool = client.connection_pool
        self._prefix = prefix
        self._monotonic = monotonic
        self._sleep = sleep
        self._is_unavailable = False

    def start(self, near: NearCache) -> None:
        """Listen in a thread, for as long as the process lives."""
        threading.Thread(target=self.run, args=(near,), daemon=True).start()

    def run(self, near: NearCache) -> None:
        """Listen again and again, whatever ends a connection."""
        while True:
            try:
                self.listen(near)
            except TrackingUnavailable as unavailable:
                near.clear()
                if not self._is_unavailable:
                    log.warning("near cache off", extra={"store": str(unavailable)})
                self._is_unavailable = True
                self._sleep(RETRY_TRACKING_AFTER)
            except (redis.RedisError, OSError):
                # The store is away or has hung up: its other callers log that.
                self._sleep(RECONNECT_EVERY)
            except Exception:
                log.exception("bug in the invalidation listener")
                near.clear()
                self._sleep(RETRY_TRACKING_AFTER)

    def listen(self, near: NearCache) -> None:
        """Connect, and keep *near* true until the connection ends.

        Raises:
            TrackingUnavailable: the store has no tracking.
            redis.RedisError: the connection failed, or was lost.
        """
        pushes: deque[Any] = deque()
        connection, asked_at = self._connect(pushes)
        try:
            near.clear(asked_at)
            if self._is_unavailable:
                log.warning("near cache on")
                self._is_unavailable = False
            while True:
                self._beat(connection, near, pushes)
        finally:
            connection.disconnect()

    def _connect(self, pushes: deque[Any]) -> tuple[Any, float]:
        """Return a connection that appends invalidations to *pushes*.

        And when tracking was asked for.
        """
        options = {**self._pool.connection_kwargs, "protocol": 3}
        connection = self._pool.connection_class(**options)
        try:
            connection.connect()
            # In place of the parser's own handler, which writes pushes to the log.
            on_invalidation(connection, pushes.append)
            asked_at = self._monotonic()
            connection.send_command(
                *("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", self._prefix)
            )
            connection.read_response()
        except redis.ResponseError as exc:
            connection.disconnect()
            why = f"has no client tracking for us ({exc})"
            raise TrackingUnavailable(why) from None
        except BaseException:
            connection.disconnect()
            raise
        return connection, asked_at

    def _beat(self, connection: Any, near: NearCache, pushes: deque[Any]) -> None:
        """Send one ping, and read all that arrives until the next is due."""
        asked_at = self._monotonic()
        self._check_master(connection)
        connection.send_command("PING")
        is_answered = False
        while True:
            now = self._monotonic()
            left = asked_at + (HEARTBEAT_EVERY if is_answered else SILENT_FOR) - now
            if left <= 0:
                if is_answered:
                    return
                raise redis.TimeoutError("no sign of life")
            if not connection.can_read(timeout=left):
                continue
            reply = connection.read_response(push_request=True)
            while pushes:
                near.invalidate(self._tags(pushes.popleft()[1]))
            if reply == b"PONG":
                near.renew(asked_at)
                is_answered = True

    def _tags(self, keys: list[bytes] | None) -> list[str] | None:
        """Return the hash tags of *keys*, which begin with the prefix, or None."""
        if keys is None:
            return None
        begin = len(self._prefix) + 1
        return [str(key, "ascii", "replace")[begin:-1] for key in keys]

    def _check_master(self, connection: Any) -> None:
        """Raise if the connected server is no longer the master, though it answers."""
        if isinstance(self._pool, SentinelConnectionPool):
            connected_to = connection.host, connection.port
            if self._pool.get_master_address() != connected_to:
                raise redis.ConnectionError("another master leads")
