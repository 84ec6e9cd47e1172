"""The process's own small cache: copies of entries lately served, kept true by Redis.

A background connection has Redis tell which of our keys change (client tracking in
broadcasting mode), and asks for a sign of life every tenth of a second. Copies are used
only while that connection is proven alive: until `TRUSTED_FOR` after the *sending* of
the last sign of life that was answered on it. From the sending, because an answer can
overtake what Redis has to tell of the same moment, but not of an earlier one. Whoever
removes something waits as long, after Redis has answered, before saying so: by then no
process can use a copy from before, and nobody had to be asked.

Source: https://redis.io/docs/latest/develop/reference/client-side-caching/
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

import redis
from redis.sentinel import SentinelConnectionPool

TRUSTED_FOR = 0.5
"""Seconds. Part of the protocol, not a setting: every process must use the same."""

BEAT_EVERY = 0.1
"""Seconds between two signs of life that are asked for."""

PROMPT = 0.25
"""Seconds within which an answer says that the store does not hang: as long as anybody
else would wait for it."""

SILENT_FOR = 1.0
"""Seconds without an answer after which the connection is given up."""

CONNECT_EVERY = 0.2
"""Seconds between two attempts to connect."""

UNABLE_FOR = 10.0
"""Seconds until a store that has no tracking is asked again: it may be another then."""

SECOND_CHANCES = 8
"""Copies in use that are passed over, at most, to find one that is not."""

log = logging.getLogger(__name__)


class LocalEntry:
    """An entry as it is stored, and what somebody has made of it to serve it.

    *ends_at* is when Redis forgets the entry, by the clock of the cache.
    """

    __slots__ = ("ends_at", "served", "stored", "used")

    def __init__(self, stored: bytes, ends_at: float) -> None:
        self.stored = stored
        self.ends_at = ends_at
        self.served: Any = None
        self.used = False


class PendingRead:
    """An entry that is about to be read, since *begun_at*."""

    __slots__ = ("begun_at",)

    def __init__(self, begun_at: float) -> None:
        self.begun_at = begun_at


class NearCache:
    """Copies by the hash tag of their entry, ``page:igsid``, at most *entries* of them.

    A full cache drops what has not been used since it was last passed over (CLOCK).
    Attributes count what became of those who asked: ``hits``, ``misses``, and
    ``bypassed`` while the copies cannot be trusted; ``invalidated``, ``evicted``.
    """

    def __init__(
        self,
        entries: int,
        *,
        outage_grace: float,
        monotonic: Callable[[], float] = time.monotonic,
        start: Callable[[NearCache], None] = lambda near: None,
    ) -> None:
        """*outage_grace* in seconds; *monotonic* is monotonic.

        *start* is called once, with the first reading at the latest, in the process
        that reads: not sooner, since threads do not survive a fork.
        """
        self._entries = entries
        self._outage_grace = outage_grace
        self._monotonic = monotonic
        self._start: Callable[[NearCache], None] | None = start
        self._copies: OrderedDict[str, LocalEntry] = OrderedDict()
        self._loading: dict[str, PendingRead] = {}
        self._lock = threading.Lock()
        self._trusted_until = -math.inf
        self.last_reply_at = -math.inf
        self.hits = self.misses = self.bypassed = self.invalidated = self.evicted = 0

    @property
    def size(self) -> int:
        return len(self._copies)

    @property
    def is_trusted(self) -> bool:
        return self._monotonic() < self._trusted_until

    def follow(self) -> None:
        """Have somebody begin to keep the copies true, unless somebody does."""
        if self._start is None:
            return
        with self._lock:
            if self._start is not None:
                self._start(self)
                self._start = None

    def get(self, key: str) -> LocalEntry | None:
        """The copy under *key*, if it may be used now."""
        now = self._monotonic()
        # Before the copy is looked for: found first, it could be one that is
        # removed by what also renews the trust.
        if now >= self._trusted_until:
            self.bypassed += 1
            return None
        copy = self._copies.get(key)
        if copy is None or now >= copy.ends_at:
            self.misses += 1
            return None
        copy.used = True
        self.hits += 1
        return copy

    def get_in_outage(self, key: str) -> LocalEntry | None:
        """The copy under *key*, for those who have just not reached the store."""
        now = self._monotonic()
        if now >= self._trusted_until + self._outage_grace:
            return None
        copy = self._copies.get(key)
        return copy if copy is not None and now < copy.ends_at else None

    def begin(self, key: str) -> PendingRead | None:
        """Announce that *key* is about to be read; `end` or `cancel` must follow.

        None: what is read must not be kept, for nobody would tell if it changes.
        """
        self.follow()
        now = self._monotonic()
        if now >= self._trusted_until:
            return None
        loading = PendingRead(now)
        with self._lock:
            self._loading[key] = loading
        return loading

    def end(
        self,
        key: str,
        loading: PendingRead,
        stored: bytes | None,
        lives_for: float = 0.0,
    ) -> None:
        """Keep what was read, unless it has changed since it was announced.

        *lives_for* is in seconds; nothing is kept of what is None.
        """
        with self._lock:
            if self._loading.get(key) is not loading:
                return
            del self._loading[key]
            if stored is None:
                self._copies.pop(key, None)
                return
            self._copies[key] = LocalEntry(stored, loading.begun_at + lives_for)
            if len(self._copies) > self._entries:
                self._evict()

    def cancel(self, key: str, loading: PendingRead) -> None:
        """Nothing was read after all: the copy stays as it is."""
        with self._lock:
            if self._loading.get(key) is loading:
                del self._loading[key]

    def forget(self, key: str, unless: bytes | None) -> None:
        """Drop the copy of what was read while nobody would tell if it changes.

        In an outage it would be answered, though something newer is known; *unless*
        is what was read, and a copy of just that stays.
        """
        with self._lock:
            copy = self._copies.get(key)
            if copy is not None and copy.stored != unless:
                del self._copies[key]

    def invalidate(self, keys: list[str] | None) -> None:
        """Drop what has changed; None: everything has."""
        with self._lock:
            if keys is None:
                self.invalidated += len(self._copies)
                self._copies.clear()
                self._loading.clear()
                return
            before = len(self._copies)
            # Of what a flush removes, most is not here.
            for key in self._copies.keys() & keys:
                del self._copies[key]
            for key in self._loading.keys() & keys:
                del self._loading[key]
            self.invalidated += before - len(self._copies)

    def renew(self, asked_at: float) -> None:
        """A sign of life that was asked for at this moment has been answered."""
        if self._monotonic() - asked_at < PROMPT:
            self.last_reply_at = asked_at
        self._trusted_until = asked_at + TRUSTED_FOR

    def restart(self, last_reply_at: float = -math.inf) -> None:
        """Drop every copy: invalidations may have been missed for a while.

        Where the store has answered, *last_reply_at* is when it was asked. It is set
        first, so that a reader who finds no copy does not think that the store hangs.
        """
        self.last_reply_at = max(self.last_reply_at, last_reply_at)
        self._trusted_until = -math.inf
        with self._lock:
            self._copies.clear()
            self._loading.clear()

    def _evict(self) -> None:
        self.evicted += 1
        for _ in range(SECOND_CHANCES):
            key = next(iter(self._copies))
            copy = self._copies[key]
            if not copy.used:
                del self._copies[key]
                return
            copy.used = False
            self._copies.move_to_end(key)
        self._copies.popitem(last=False)


class Unable(Exception):
    """The store does not tell what changes: it is too old, or does not let us ask."""


class InvalidationListener:
    """Follows, on a connection of its own, what changes under a prefix."""

    def __init__(
        self,
        client: redis.Redis,
        prefix: str,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """*client* has the address; *prefix* is what the keys to follow begin with."""
        self._pool = client.connection_pool
        self._prefix = prefix
        self._monotonic = monotonic
        self._sleep = sleep
        self._is_unable = False

    def start(self, near: NearCache) -> None:
        """Follow for as long as the process lives."""
        threading.Thread(target=self.run, args=(near,), daemon=True).start()

    def run(self, near: NearCache) -> None:
        while True:
            try:
                self.follow(near)
            except Unable as unable:
                near.restart()
                if not self._is_unable:
                    log.warning("near cache off", extra={"store": str(unable)})
                self._is_unable = True
                self._sleep(UNABLE_FOR)
            except (redis.RedisError, OSError):
                # The store is away, or has hung up: whoever asks it will say so.
                self._sleep(CONNECT_EVERY)
            except Exception:
                log.exception("a bug in following")
                near.restart()
                self._sleep(UNABLE_FOR)

    def follow(self, near: NearCache) -> None:
        """Connect, and keep *near* true until the connection ends.

        Raises:
            Unable: the store has no tracking.
            redis.RedisError: there is no connection, or no more.
        """
        told: deque[Any] = deque()
        connection, asked_at = self._connect(told)
        try:
            near.restart(asked_at)
            if self._is_unable:
                log.warning("near cache on")
                self._is_unable = False
            while True:
                self._beat(connection, near, told)
        finally:
            connection.disconnect()

    def _connect(self, told: deque[Any]) -> tuple[Any, float]:
        """A connection on which is *told* what changes, and when that was asked for."""
        options = {**self._pool.connection_kwargs, "protocol": 3}
        connection = self._pool.connection_class(**options)
        try:
            connection.connect()
            # Not by the parser's own way with these, which writes them to the log.
            connection._parser.set_invalidation_push_handler(told.append)
            asked_at = self._monotonic()
            connection.send_command(
                *("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", self._prefix)
            )
            connection.read_response()
        except redis.ResponseError as exc:
            connection.disconnect()
            raise Unable(f"has no client tracking for us ({exc})") from None
        except BaseException:
            connection.disconnect()
            raise
        return connection, asked_at

    def _beat(self, connection: Any, near: NearCache, told: deque[Any]) -> None:
        """Ask for one sign of life, and read all that comes until the next is due."""
        asked_at = self._monotonic()
        self._check_master(connection)
        connection.send_command("PING")
        is_answered = False
        while True:
            now = self._monotonic()
            left = asked_at + (BEAT_EVERY if is_answered else SILENT_FOR) - now
            if left <= 0:
                if is_answered:
                    return
                raise redis.TimeoutError("no sign of life")
            if not connection.can_read(timeout=left):
                continue
            answer = connection.read_response(push_request=True)
            while told:
                near.invalidate(self._tags(told.popleft()[1]))
            if answer == b"PONG":
                near.renew(asked_at)
                is_answered = True

    def _tags(self, keys: list[bytes] | None) -> list[str] | None:
        """The hash tags of *keys*, which all begin with the prefix; None stays None."""
        if keys is None:
            return None
        begin = len(self._prefix) + 1
        return [str(key, "ascii", "replace")[begin:-1] for key in keys]

    def _check_master(self, connection: Any) -> None:
        """Leave a master that leads no more, though it still answers."""
        if isinstance(self._pool, SentinelConnectionPool):
            there = connection.host, connection.port
            if self._pool.get_master_address() != there:
                raise redis.ConnectionError("another master leads")
