"""Entries: their keys, with the lease and the note beside them.

A person has up to four keys, in one hash tag so that every script touches one
slot of a Cluster:

    pp:e:{page:igsid}   the entry: an outcome and the moments that bound its use
    pp:l:{page:igsid}   the lease: who may write the entry, and is asking Meta now
    pp:n:{page:igsid}   the note: how the last flight failed, for its followers
    pp:w:{page:igsid}   the marker: the person has written to the business lately

(pp:r:{...} exists for a moment when replicas are waited for, or readyz probes.)

The holder of the lease is the only writer of the entry. Every invalidation
deletes lease and note too, so that a fetch under way can write nothing back.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Sequence
from copy import copy
from dataclasses import dataclass
from typing import cast

from redis.commands.core import Script

from proxy.domain.entry import Entry
from proxy.domain.failures import LookupFailure, StoreUnavailable
from proxy.domain.profile import Igsid
from proxy.storage import scripts
from proxy.storage.codec import LUA_LIFE, LUA_PROFILE, decode, encode, encode_note
from proxy.storage.fast_reader import tagged
from proxy.storage.flask_cache import ProfileCache
from proxy.storage.flush import (
    Census,
    Flushed,
    count_entries,
    match_entries,
    remove_entries,
)
from proxy.storage.near_cache import TRUSTED_FOR, LocalEntry, NearCache, PendingRead
from proxy.storage.nodes import require_stable_topology
from proxy.storage.snapshot import Lease, Snapshot, snapshot_of
from proxy.storage.store_guard import GuardedCall, StoreGuard
from proxy.storage.store_health import StoreHealth
from proxy.storage.token_digest import TokenDigests

NOTE_TTL = 1.0
"""Seconds for which followers can read how a flight failed."""

WRITTEN_LATELY = 120.0
"""Seconds for which Meta may not show yet that a person has written to the business."""

LONGEST_LOCAL_ENTRY = 4096
"""Bytes of an entry that the near cache keeps; a profile takes some 300."""

_KINDS = ("e", "l", "n", "w")
"""A person's keys: entry, lease, note, and the marker."""

_READ_KINDS = _KINDS[:3]
"""The keys that are read to answer."""

_ERASE, _DROP_REFUSAL = scripts.load("erase"), scripts.load("drop_refusal")


@dataclass(frozen=True, slots=True)
class Erased:
    """Which keys there were to erase."""

    entry: bool
    lease: bool
    note: bool


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
        self._nodes = cache.nodes
        self._keyspace = cache.keyspace
        self._replication = cache.replication
        self.page = page
        self._near = near
        self._sleep = sleep
        self._tag = f"{page}:"
        self._take, self._put, self._fail, self._release = (
            cache.client.register_script(scripts.load(name))
            for name in ("take", "put", "fail", "release")
        )
        self.guard = self._guard = StoreGuard(
            cache.nodes.node_names,
            count_error=count_error,
            monotonic=monotonic,
            last_reply_at=lambda: near.last_reply_at if near else -math.inf,
        )
        self._tokens = TokenDigests(cache, self._guard)
        self._health = StoreHealth(cache, self._guard, monotonic)

    def of_page(self, page: str) -> EntryStore:
        """The store of another Page's people, with the same guard and near cache.

        It shares all parts of this one, so that both reach the store or neither does.
        """
        other = copy(self)
        other.page, other._tag = page, f"{page}:"
        return other

    def read(self, igsid: Igsid) -> Snapshot:
        """Read entry, lease and note together, in one trip."""
        near, tag = self._near, self._tag + igsid
        pending = near.begin_read(tag) if near else None
        try:
            with self._guard.call("reads", self._nodes.node_name(f"{{{tag}}}")):
                values, life = self._keyspace.read(
                    _READ_KINDS, tag, with_life=pending is not None
                )
        except BaseException:
            if near and pending:
                near.cancel_read(tag, pending)
            raise
        snapshot = snapshot_of(igsid, values)
        if near:
            stored = values[0] if snapshot.stored_entry else None
            self._keep_locally(near, tag, pending, stored, life)
        return snapshot

    def read_many(
        self, igsids: Sequence[Igsid]
    ) -> dict[Igsid, Snapshot | StoreUnavailable]:
        """`read` for each, in one trip to each node; some nodes may be unavailable."""
        by_node: dict[str, list[Igsid]] = {}
        for igsid in igsids:
            node = self._nodes.node_name(self._keys(igsid)[0])
            by_node.setdefault(node, []).append(igsid)
        found: dict[Igsid, Snapshot | StoreUnavailable] = {}
        for node, people in by_node.items():
            try:
                with self._guard.call("reads", node):
                    found.update(self._read_from_node(people))
            except StoreUnavailable as unavailable:
                found.update(dict.fromkeys(people, unavailable))
        return found

    def _read_from_node(self, igsids: list[Igsid]) -> dict[Igsid, Snapshot]:
        near = self._near
        tags = {igsid: self._tag + igsid for igsid in igsids}
        pending = {tag: near.begin_read(tag) if near else None for tag in tags.values()}
        try:
            replies = self._keyspace.read_many(
                _READ_KINDS, list(tags.values()), with_life=any(pending.values())
            )
        except BaseException:
            for tag, begun in pending.items():
                if near and begun:
                    near.cancel_read(tag, begun)
            raise
        found = {}
        for (igsid, tag), (values, life) in zip(tags.items(), replies, strict=True):
            snapshot = found[igsid] = snapshot_of(igsid, values)
            if near:
                stored = values[0] if snapshot.stored_entry else None
                self._keep_locally(near, tag, pending[tag], stored, life)
        return found

    def _keep_locally(
        self,
        near: NearCache,
        tag: str,
        pending: PendingRead | None,
        stored: bytes | None,
        life: float,
    ) -> None:
        """Keep a local copy of the entry, if allowed; drop an older one in any case."""
        if pending:
            is_long = stored is not None and len(stored) > LONGEST_LOCAL_ENTRY
            near.end_read(tag, pending, None if is_long else stored, life)
        else:
            near.forget(tag, unless=stored)

    def recall(self, igsid: str) -> LocalEntry | None:
        """The local entry of a person, if it is surely still valid. No trip."""
        near = self._near
        return near.get(self._tag + igsid) if near else None

    def recall_entry(self, igsid: Igsid) -> Entry | None:
        """The entry of the local copy that `recall` returns. No trip."""
        local = self.recall(igsid)
        return decode(local.stored, igsid) if local else None

    def recall_in_outage(self, igsid: Igsid) -> Entry | None:
        """The last local entry of a person, for use while the store is unavailable."""
        near, key = self._near, self._tag + igsid
        local = near.get_in_outage(key) if near else None
        return decode(local.stored, igsid) if local else None

    def take(
        self,
        igsid: Igsid,
        lease: Lease,
        lease_for: float,
        known_note: LookupFailure | None = None,
    ) -> Snapshot:
        """Take the lease unless it is taken or there is a note; read the rest with it.

        A note equal to *known_note* does not count, and is deleted. The lease is ours
        if it is the one in the snapshot. Taking it twice with the same *lease* does no
        harm, so a call whose reply was lost can be repeated.
        """
        with self._guarded("writes", igsid):
            milliseconds = math.ceil(lease_for * 1000)
            note = (encode_note(known_note),) if known_note else ()
            return snapshot_of(
                igsid, self._run(self._take, igsid, lease, milliseconds, *note)
            )

    def put(
        self,
        igsid: Igsid,
        entry: Entry,
        lease: Lease,
        now: float,
        *,
        again: bool = False,
    ) -> bool:
        """Keep *entry* until it expires, if *lease* is still ours; return if it was.

        A lost lease means that the person was erased, flushed or has written
        while we asked, so the outcome may no longer be kept (see "One
        writer per entry" in docs/architecture.md). An entry without life left
        is not stored at all: a TTL of zero is an error in Redis. The entry of before
        the fetch is put *again* only if it is still there: a flush can have removed
        it after the lease was taken.
        """
        milliseconds = _left(entry, now)
        if milliseconds < 1:
            self.release(igsid, lease)
            return False
        with self._guarded("writes", igsid):
            stored = encode(entry)
            args = (lease, stored, milliseconds, int(again))
            return bool(self._run(self._put, igsid, *args))

    def fail(
        self,
        igsid: Igsid,
        failure: LookupFailure,
        lease: Lease,
        *,
        keeping: Entry | None = None,
        now: float,
    ) -> bool:
        """Report to followers how the flight failed, if *lease* is still ours.

        *keeping* is the entry that the flight was to refresh, with its next
        refresh postponed.
        """
        with self._guarded("writes", igsid):
            kept: tuple[bytes, int] | tuple[()] = ()
            if keeping and (milliseconds := _left(keeping, now)) >= 1:
                kept = encode(keeping), milliseconds
            note, ttl = encode_note(failure), math.floor(NOTE_TTL * 1000)
            return bool(self._run(self._fail, igsid, lease, note, ttl, *kept))

    def release(self, igsid: Igsid, lease: Lease) -> bool:
        """Release the lease without a result, if it is still ours."""
        with self._guarded("writes", igsid):
            return bool(self._run(self._release, igsid, lease))

    def erase(self, igsid: Igsid) -> Erased:
        """Delete what is stored about one person, and whatever is under way.

        In every replica, too: a fail-over brings nothing back. And in every
        process, which takes half a second (see `proxy.storage.near_cache`).
        """
        with self._guarded("writes", igsid):
            keys = self._keys(igsid)
            [deleted] = self._replication.run_replicated(_ERASE, [keys])
        self.wait_out_local_caches()
        return Erased(*map(bool, deleted))

    def drop_refusals(self, people: Collection[Igsid], lease_for: float) -> bool:
        """Drop the refusals of *people*, who have written to the business.

        Whatever is under way goes too, because Meta may have been asked before the
        message. A profile stays. The drop reaches every replica. True means that a
        process may still have a local copy, so the caller must `wait_out_local_caches`
        before it promises anything: a person has no profile here, or wrote within the
        last half second, or has a profile fetched no longer ago than that and a lease's
        length, which may have replaced a refusal just now.

        A trip to each server, and for replicas another.
        """
        by_node: dict[str, list[list[str]]] = {}
        for igsid in dict.fromkeys(people):
            keys = self._keys(igsid)
            by_node.setdefault(self._nodes.node_name(keys[0]), []).append(keys)
        seconds = WRITTEN_LATELY, TRUSTED_FOR, TRUSTED_FOR + lease_for
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
        tags = "*" if every_page else f"{{{self._tag}*"
        with self._guard.call("writes"), require_stable_topology(self._nodes):
            if dry_run:
                return match_entries(self._keyspace, tags, matches)
            flushed = remove_entries(self._keyspace, tags, matches)
            self._replication.await_replicas()
        self.wait_out_local_caches()
        return flushed

    def census(self, kind_of: Callable[[Entry | None], str], at_most: int) -> Census:
        """Count this Page's entries by *kind_of*, up to *at_most*.

        *kind_of* is called with None for an entry that cannot be decoded.
        """
        with self._guard.call("reads"):
            return count_entries(self._keyspace, f"{{{self._tag}*", kind_of, at_most)

    def wait_out_local_caches(self) -> None:
        """Wait until no process uses a local copy of what Redis has just removed.

        Even if this process has no near cache: other processes may have one.
        """
        if self._nodes.can_track:
            self._sleep(TRUSTED_FOR)

    def token_digest(self) -> str | None:
        """The digest of the Page token that was used last."""
        return self._tokens.read(self.page)

    def note_token(self, digest: str) -> None:
        """Remember which Page token is in use now."""
        self._tokens.store(self.page, digest)

    def ping(self) -> None:
        """Check that the store answers and accepts writes."""
        self._health.ping()

    def config_warnings(self, now: Callable[[], float]) -> list[str]:
        """The store's settings, or its clock, that may break a promise, as reasons.

        *now* is our clock, in epoch seconds.
        """
        return self._health.config_warnings(now)

    def _guarded(self, kind: str, igsid: Igsid) -> GuardedCall:
        return self._guard.call(kind, self._nodes.node_name(self._keys(igsid)[0]))

    def _keys(self, igsid: Igsid) -> list[str]:
        return [tagged(kind, self._tag + igsid) for kind in _KINDS]

    def _run(
        self, script: Script, igsid: Igsid, *args: str | bytes | int
    ) -> list[bytes | None]:
        keys = [self._keyspace.whole_key(key) for key in self._keys(igsid)]
        return cast("list[bytes | None]", script(keys=keys, args=args))


def _left(entry: Entry, now: float) -> int:
    """For how many milliseconds *entry* may still be used."""
    return math.floor((entry.usable_until - now) * 1000)
