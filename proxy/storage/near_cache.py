"""The process's near cache: local copies of entries served lately, kept true by Redis.

The invalidation listener, on a background connection, receives which of our keys change
(client tracking in broadcasting mode) and pings Redis every tenth of a second. Local
entries are used only while that connection is proven alive: until `TRUSTED_FOR` after
the *sending* of the last ping that was answered on it. The sending counts, because a
reply can overtake the invalidations of the same moment, but not those of an earlier
one. Code that removes an entry waits as long, after Redis has answered, before it
reports success: by then no process can use a local entry from before, and no process
had to be asked.

Source: https://redis.io/docs/latest/develop/reference/client-side-caching/
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

TRUSTED_FOR = 0.5
"""Seconds. Part of the protocol, not a setting: every process must use the same."""

PROMPT_WITHIN = 0.25
"""Seconds within which a reply proves that the store does not hang: the timeout of
every other caller of the store."""

SECOND_CHANCES = 8
"""Used entries that an eviction passes over, at most, to find an unused one."""


class LocalEntry:
    """An entry as it is stored, and the response that was made of it.

    *ends_at* is when Redis drops the entry, by the clock of the near cache.
    """

    __slots__ = ("ends_at", "served", "stored", "used")

    def __init__(self, stored: bytes, ends_at: float) -> None:
        self.stored = stored
        self.ends_at = ends_at
        self.served: Any = None
        self.used = False


class PendingRead:
    """An entry that is about to be read, since *begun_at*, by some *readers* at once.

    *found* is what the first of them to end has read, in a tuple; None before.
    """

    __slots__ = ("begun_at", "found", "readers")

    def __init__(self, begun_at: float) -> None:
        self.begun_at = begun_at
        self.readers = 0
        self.found: tuple[bytes | None] | None = None


class NearCache:
    """Local entries by the hash tag of their keys, ``page:igsid``.

    A full cache evicts an entry that has not been used since it was last passed over
    (CLOCK). Attributes count the results of reads: ``hits``, ``misses``, and
    ``bypassed`` while local entries cannot be trusted; ``invalidated``, ``evicted``.
    """

    def __init__(
        self,
        max_entries: int,
        *,
        outage_grace: float,
        monotonic: Callable[[], float] = time.monotonic,
        start_listener: Callable[[NearCache], None] = lambda near: None,
    ) -> None:
        """*outage_grace* is in seconds.

        *start_listener* is called once, with the first read at the latest, in the
        process that reads: not sooner, since threads do not survive a fork.
        """
        self._max_entries = max_entries
        self._outage_grace = outage_grace
        self._monotonic = monotonic
        self._start_listener: Callable[[NearCache], None] | None = start_listener
        self._entries: OrderedDict[str, LocalEntry] = OrderedDict()
        self._pending: dict[str, PendingRead] = {}
        self._lock = threading.Lock()
        self._trusted_until = -math.inf
        self.last_reply_at = -math.inf
        self.hits = self.misses = self.bypassed = self.invalidated = self.evicted = 0

    @property
    def size(self) -> int:
        return len(self._entries)

    @property
    def is_trusted(self) -> bool:
        return self._monotonic() < self._trusted_until

    def start(self) -> None:
        """Start the invalidation listener, unless it is started already."""
        if self._start_listener is None:
            return
        with self._lock:
            if self._start_listener is not None:
                self._start_listener(self)
                self._start_listener = None

    def get(self, key: str) -> LocalEntry | None:
        """Return the local entry under *key*, if it may be used now."""
        now = self._monotonic()
        # Check trust before reading the entry: otherwise an invalidation followed by
        # a renewal could come in between, and we would serve the removed entry.
        if now >= self._trusted_until:
            self.bypassed += 1
            return None
        entry = self._entries.get(key)
        if entry is None or now >= entry.ends_at:
            self.misses += 1
            return None
        entry.used = True
        self.hits += 1
        return entry

    def get_in_outage(self, key: str) -> LocalEntry | None:
        """Return the local entry under *key*, for a caller that has lost the store."""
        now = self._monotonic()
        if now >= self._trusted_until + self._outage_grace:
            return None
        entry = self._entries.get(key)
        return entry if entry is not None and now < entry.ends_at else None

    def begin_read(self, key: str) -> PendingRead | None:
        """Announce a read of *key*; `end_read` or `cancel_read` must follow.

        Reads that overlap are one pending read. None: the value must not be kept,
        because no invalidation would arrive if it changes.
        """
        self.start()
        now = self._monotonic()
        if now >= self._trusted_until:
            return None
        with self._lock:
            pending = self._pending.get(key)
            if pending is None:
                pending = self._pending[key] = PendingRead(now)
            pending.readers += 1
        return pending

    def end_read(
        self,
        key: str,
        pending: PendingRead,
        stored: bytes | None,
        lives_for: float = 0.0,
    ) -> None:
        """Keep the value that was read, unless it has changed since `begin_read`.

        *lives_for* is in seconds. If *stored* is None, the local entry is dropped. It
        is dropped too where two reads at once have found different values: either may
        be the newer one, and a caller who has got that must not get the other later.
        """
        with self._lock:
            if self._pending.get(key) is not pending:
                self._forget(key, stored)
                return
            self._leave(key, pending)
            if pending.found not in (None, (stored,)):
                self._forget(key, None)
                return
            pending.found = (stored,)
            if stored is None:
                self._entries.pop(key, None)
                return
            self._entries[key] = LocalEntry(stored, pending.begun_at + lives_for)
            if len(self._entries) > self._max_entries:
                self._evict()

    def cancel_read(self, key: str, pending: PendingRead) -> None:
        """End a read that failed: the local entry stays as it is."""
        with self._lock:
            if self._pending.get(key) is pending:
                self._leave(key, pending)

    def forget(self, key: str, unless: bytes | None = None) -> None:
        """Drop the local entry under *key*: this process knows something newer.

        It has written that, or has read it without an announcement. Reads under way may
        find what was there before, so they are not kept. *unless* is the value that was
        read: a local entry of the same value stays.
        """
        with self._lock:
            self._forget(key, unless)

    def invalidate(self, keys: list[str] | None) -> None:
        """Drop the local entries under *keys*, which have changed; None means all."""
        with self._lock:
            if keys is None:
                self.invalidated += len(self._entries)
                self._entries.clear()
                self._pending.clear()
                return
            before = len(self._entries)
            # Most keys that a flush removes are not in this cache.
            for key in self._entries.keys() & keys:
                del self._entries[key]
            for key in self._pending.keys() & keys:
                del self._pending[key]
            self.invalidated += before - len(self._entries)

    def renew(self, asked_at: float) -> None:
        """Extend trust: the ping that was sent at *asked_at* has been answered."""
        if self._monotonic() - asked_at < PROMPT_WITHIN:
            self.last_reply_at = asked_at
        self._trusted_until = asked_at + TRUSTED_FOR

    def clear(self, last_reply_at: float = -math.inf) -> None:
        """Drop every local entry: invalidations may have been missed for a while.

        *last_reply_at* is when a question was sent that the store has answered, if any.
        It is set first, so that a reader who finds no local entry does not conclude
        that the store hangs.
        """
        self.last_reply_at = max(self.last_reply_at, last_reply_at)
        self._trusted_until = -math.inf
        with self._lock:
            self._entries.clear()
            self._pending.clear()

    def _forget(self, key: str, unless: bytes | None) -> None:
        self._pending.pop(key, None)
        entry = self._entries.get(key)
        if entry is not None and entry.stored != unless:
            del self._entries[key]

    def _leave(self, key: str, pending: PendingRead) -> None:
        pending.readers -= 1
        if not pending.readers:
            del self._pending[key]

    def _evict(self) -> None:
        self.evicted += 1
        for _ in range(SECOND_CHANCES):
            key = next(iter(self._entries))
            entry = self._entries[key]
            if not entry.used:
                del self._entries[key]
                return
            entry.used = False
            self._entries.move_to_end(key)
        self._entries.popitem(last=False)
