"""Reads of entries, in trips to the store and from this process's near cache."""

from __future__ import annotations

from collections.abc import Sequence

from proxy.domain.entry import Entry
from proxy.domain.failures import StoreUnavailable
from proxy.domain.profile import Igsid
from proxy.storage.codec import Note, decode
from proxy.storage.flask_cache import ProfileCache
from proxy.storage.near_cache import LocalEntry, NearCache, PendingRead
from proxy.storage.person_keys import KINDS, PersonKeys
from proxy.storage.snapshot import Snapshot, snapshot_of
from proxy.storage.store_guard import StoreGuard

LONGEST_LOCAL_ENTRY = 4096
"""Bytes of an entry that the near cache keeps; a profile takes some 300."""

_READ_KINDS = KINDS[:3]
"""The keys that are read to answer."""

_NOTE = KINDS[2:3]


class EntryReader:
    """Reads about one Page's people."""

    def __init__(
        self,
        cache: ProfileCache,
        keys: PersonKeys,
        *,
        guard: StoreGuard,
        near: NearCache | None,
    ) -> None:
        self._keys = keys
        self._prefix = keys.prefix
        self._nodes = cache.nodes
        self._keyspace = cache.keyspace
        self._guard = guard
        self._near = near

    def read(self, igsid: Igsid) -> Snapshot:
        """Read entry, lease and note together, in one trip."""
        near, tag = self._near, self._prefix + igsid
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
            node = self._keys.node_name(igsid)
            by_node.setdefault(node, []).append(igsid)
        found: dict[Igsid, Snapshot | StoreUnavailable] = {}
        for node, people in by_node.items():
            try:
                with self._guard.call("reads", node):
                    found.update(self._read_from_node(people))
            except StoreUnavailable as unavailable:
                found.update(dict.fromkeys(people, unavailable))
        return found

    def read_note(self, igsid: Igsid) -> tuple[Note | None, float]:
        """Read the note, and for how many more seconds it is stored, in one trip.

        That is by Redis's clock. A `read` does without, because a hit would pay for it.
        """
        with self._keys.guarded("reads", igsid):
            values, left = self._keyspace.read(
                _NOTE, self._keys.tag(igsid), with_life=True
            )
        return snapshot_of(igsid, [None, None, *values]).note, left

    def _read_from_node(self, igsids: list[Igsid]) -> dict[Igsid, Snapshot]:
        near = self._near
        tags = {igsid: self._prefix + igsid for igsid in igsids}
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
        return near.get(self._prefix + igsid) if near else None

    def recall_entry(self, igsid: Igsid) -> Entry | None:
        """The entry of the local copy that `recall` returns. No trip."""
        local = self.recall(igsid)
        return decode(local.stored, igsid) if local else None

    def recall_in_outage(self, igsid: Igsid) -> Entry | None:
        """The last local entry of a person, for use while the store is unavailable."""
        near, key = self._near, self._prefix + igsid
        local = near.get_in_outage(key) if near else None
        return decode(local.stored, igsid) if local else None
