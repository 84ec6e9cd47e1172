"""Leases: who may fetch a person and write the entry, and how a flight ends."""

from __future__ import annotations

import math

from proxy.domain.entry import Entry
from proxy.domain.failures import LookupFailure
from proxy.domain.profile import Igsid
from proxy.storage import scripts
from proxy.storage.codec import encode, encode_note
from proxy.storage.flask_cache import ProfileCache
from proxy.storage.person_keys import PersonKeys
from proxy.storage.snapshot import Lease, Snapshot, snapshot_of

NOTE_TTL = 1.0
"""Seconds for which followers can read how a flight failed."""


class Leases:
    """The leases of one Page's people; a holder is the only writer of the entry."""

    def __init__(self, cache: ProfileCache, keys: PersonKeys) -> None:
        self._keys = keys
        self._take, self._put, self._fail, self._release = (
            cache.client.register_script(scripts.load(name))
            for name in ("take", "put", "fail", "release")
        )

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
        with self._keys.guarded("writes", igsid):
            milliseconds = math.ceil(lease_for * 1000)
            note = (encode_note(known_note),) if known_note else ()
            return snapshot_of(
                igsid, self._keys.run(self._take, igsid, lease, milliseconds, *note)
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
        with self._keys.guarded("writes", igsid):
            stored = encode(entry)
            args = (lease, stored, milliseconds, int(again))
            return bool(self._keys.run(self._put, igsid, *args))

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
        with self._keys.guarded("writes", igsid):
            kept: tuple[bytes, int] | tuple[()] = ()
            if keeping and (milliseconds := _left(keeping, now)) >= 1:
                kept = encode(keeping), milliseconds
            note, ttl = encode_note(failure), math.floor(NOTE_TTL * 1000)
            return bool(self._keys.run(self._fail, igsid, lease, note, ttl, *kept))

    def release(self, igsid: Igsid, lease: Lease) -> bool:
        """Release the lease without a result, if it is still ours."""
        with self._keys.guarded("writes", igsid):
            return bool(self._keys.run(self._release, igsid, lease))


def _left(entry: Entry, now: float) -> int:
    """For how many milliseconds *entry* may still be used."""
    return math.floor((entry.usable_until - now) * 1000)
