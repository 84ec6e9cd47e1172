"""EntryStore: one Page's people in Redis, made of its parts.

A hit calls the parts' methods directly: they are attributes here, because a call that
only passes another on would be paid with every hit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from copy import copy

from proxy.domain.entry import Entry
from proxy.storage.entry_reader import EntryReader
from proxy.storage.flask_cache import ProfileCache
from proxy.storage.flush import Census, count_entries
from proxy.storage.leases import Leases
from proxy.storage.near_cache import NearCache
from proxy.storage.person_keys import PersonKeys
from proxy.storage.removal import Removal
from proxy.storage.store_guard import StoreGuard
from proxy.storage.store_health import StoreHealth
from proxy.storage.token_digest import TokenDigests


class EntryStore:
    """One Page's people, in Redis.

    Every method raises StoreUnavailable when the store cannot be reached or
    cannot do what it is asked.
    """

    def __init__(
        self,
        cache: ProfileCache,
        page: str,
        *,
        near: NearCache | None = None,
        count_error: Callable[[str], None] = lambda kind: None,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """*near* is the near cache of this process, if any; *monotonic* is in seconds.

        *count_error* is called with the kind of each error of the store; *sleep* waits
        until no near cache of any process can have what was removed.
        """
        self._cache = cache
        self._near = near
        self._sleep = sleep
        self.guard = self._guard = StoreGuard(
            cache.nodes.node_names,
            count_error=count_error,
            monotonic=monotonic,
            last_reply_at=lambda: near.last_reply_at if near else -math.inf,
        )
        self._tokens = TokenDigests(cache, self._guard)
        self._health = StoreHealth(cache, self._guard, monotonic)
        self._build_parts(page)

    def of_page(self, page: str) -> EntryStore:
        """The store of another Page's people, with the same guard and near cache.

        Both reach the store, or neither does.
        """
        other = copy(self)
        other._build_parts(page)
        return other

    def _build_parts(self, page: str) -> None:
        cache, guard = self._cache, self._guard
        self.page = page
        self._keys = keys = PersonKeys(cache, guard, page)
        reader = EntryReader(cache, keys, guard=guard, near=self._near)
        self.read, self.read_many = reader.read, reader.read_many
        self.recall, self.recall_entry = reader.recall, reader.recall_entry
        self.recall_in_outage, self.read_note = (
            reader.recall_in_outage,
            reader.read_note,
        )
        leases = Leases(cache, keys, near=self._near)
        self.take, self.release = leases.take, leases.release
        self.put, self.fail = leases.put, leases.fail
        removal = Removal(cache, keys, guard=guard, sleep=self._sleep)
        self.erase, self.flush = removal.erase, removal.flush
        self.drop_refusals = removal.drop_refusals
        self.wait_out_local_caches = removal.wait_out_local_caches

    def census(self, kind_of: Callable[[Entry | None], str], at_most: int) -> Census:
        """Count this Page's entries by *kind_of*, up to *at_most*.

        *kind_of* is called with None for an entry that cannot be decoded.
        """
        with self._guard.call("reads"):
            return count_entries(
                self._cache.keyspace, f"{{{self._keys.prefix}*", kind_of, at_most
            )

    def token_digest(self) -> str | None:
        """The digest of the Page token that was used last."""
        return self._tokens.read(self.page)

    def note_token(self, digest: str) -> None:
        """Remember which Page token is in use now."""
        self._tokens.store(self.page, digest)

    def ping(self) -> None:
        """Check that the store answers and accepts writes."""
        self._health.ping()

    def recent_reasons(self) -> set[str]:
        """Why calls of this process have failed of late to a store that answers."""
        return self._health.recent_reasons()

    def config_warnings(self, now: Callable[[], float]) -> list[str]:
        """The store's settings, or its clock, that may break a promise, as reasons.

        *now* is our clock, in epoch seconds.
        """
        return self._health.config_warnings(now)
