"""Removal: erase a person, drop refusals after a message, flush entries.

Every removal deletes lease and note too, so that a fetch under way can write nothing
back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass

from proxy.domain.entry import Entry
from proxy.domain.profile import Igsid
from proxy.storage import scripts
from proxy.storage.codec import LUA_LIFE, LUA_PROFILE
from proxy.storage.flask_cache import ProfileCache
from proxy.storage.flush import Flushed, match_entries, remove_entries
from proxy.storage.near_cache import TRUSTED_FOR
from proxy.storage.nodes import require_stable_topology
from proxy.storage.person_keys import PersonKeys
from proxy.storage.store_guard import StoreGuard

WRITTEN_LATELY = 120.0
"""Seconds for which Meta may not show yet that a person has written to the business."""

NOTES_APART = 60.0
"""Seconds between two notes of a person that messages delete: a person who writes often
would otherwise have Meta asked with each message, however often that fails."""

_ERASE, _DROP_REFUSAL = scripts.load("erase"), scripts.load("drop_refusal")


@dataclass(frozen=True, slots=True)
class Erased:
    """Which keys there were to erase.

    *witness* if the person was one of those whom Meta showed last, and *row* if they
    were marked in a row of different people (see `proxy.coordination.witnesses`).
    """

    entry: bool
    lease: bool
    note: bool
    marker: bool
    witness: bool = False
    row: bool = False


class Removal:
    """Removes what is stored about one Page's people, from every process too."""

    def __init__(
        self,
        cache: ProfileCache,
        keys: PersonKeys,
        *,
        guard: StoreGuard,
        sleep: Callable[[float], None],
    ) -> None:
        """*sleep* waits until no near cache of a process can have what was removed."""
        self._keys = keys
        self._nodes = cache.nodes
        self._keyspace = cache.keyspace
        self._replication = cache.replication
        self._guard = guard
        self._sleep = sleep

    def erase(self, igsid: Igsid, *, wait: bool = True) -> Erased:
        """Delete what is stored about one person, and whatever is under way.

        In every replica, too: a fail-over brings nothing back. And in every
        process, which takes half a second (see `proxy.storage.near_cache`); without
        *wait* the caller must `wait_out_local_caches` before it promises anything.
        """
        with self._keys.guarded("writes", igsid):
            keys = self._keys.of(igsid)
            [deleted] = self._replication.run_replicated(_ERASE, [keys])
        if wait:
            self.wait_out_local_caches()
        return Erased(*map(bool, deleted))

    def drop_refusals(self, people: Collection[Igsid], lease_for: float) -> bool:
        """Drop the refusals of *people*, who have written to the business.

        Whatever is under way goes too, because Meta may have been asked before the
        message; a note goes too, but a person's not more than once a minute. A profile
        stays. The drop reaches every replica. True means that a process may still have
        a local copy, so the caller must `wait_out_local_caches` before it promises
        anything: a person has no profile here, or wrote within the last half second, or
        has a profile fetched no longer ago than that and a lease's length, which may
        have replaced a refusal just now.

        A trip to each server, and for replicas another.
        """
        by_node: dict[str, list[list[str]]] = {}
        for igsid in dict.fromkeys(people):
            keys = self._keys.of(igsid)
            by_node.setdefault(self._keys.node_name(igsid), []).append(keys)
        trusted = TRUSTED_FOR, TRUSTED_FOR + lease_for
        seconds = WRITTEN_LATELY, *trusted, NOTES_APART
        milliseconds = [math.floor(each * 1000) for each in seconds]
        args: list[str | bytes | int] = [*milliseconds, LUA_PROFILE, LUA_LIFE]
        replies: list[int] = []
        for node, groups in by_node.items():
            with self._guard.call("writes", node):
                replies += self._replication.run_replicated(_DROP_REFUSAL, groups, args)
        return any(replies)

    def flush(
        self,
        matches: Callable[[Entry | None], bool] | None,
        *,
        dry_run: bool = False,
        every_page: bool = False,
    ) -> Flushed:
        """Remove the entries that *matches* picks; None picks all, unread.

        Of this Page; or of *every_page*, even one that is not served any more.
        *matches* is called with None for an entry that cannot be decoded. All leases
        and notes go first (see `remove_entries`). Each pass goes over every server.
        When this returns, all replicas and all processes have dropped the entries.
        """
        tags = "*" if every_page else f"{{{self._keys.prefix}*"
        with self._guard.call("writes"), require_stable_topology(self._nodes):
            if dry_run:
                return match_entries(self._keyspace, tags, matches)
            flushed = remove_entries(self._keyspace, tags, matches)
            self._replication.await_replicas()
        self.wait_out_local_caches()
        return flushed

    def wait_out_local_caches(self) -> None:
        """Wait until no process uses a local copy of what Redis has just removed.

        Even if this process has no near cache: other processes may have one.
        """
        if self._nodes.can_track:
            self._sleep(TRUSTED_FOR)
