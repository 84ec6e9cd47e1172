"""Leases: who may fetch a person and write the entry, and how a flight ends."""

from __future__ import annotations

import math

from proxy.domain.backoff import FIRST_PAUSE, PLAIN, PauseRule
from proxy.domain.entry import Entry
from proxy.domain.failures import LookupFailure
from proxy.domain.profile import Igsid
from proxy.storage import scripts
from proxy.storage.codec import LUA_PAUSE, encode, encode_note
from proxy.storage.flask_cache import ProfileCache
from proxy.storage.near_cache import NearCache
from proxy.storage.person_keys import PersonKeys
from proxy.storage.snapshot import Lease, Snapshot, snapshot_of

NOTE_TTL = 600.0
"""Seconds for which a row of failures about a person is remembered after the last."""


class Leases:
    """The leases of one Page's people; a holder is the only writer of the entry."""

    def __init__(
        self, cache: ProfileCache, keys: PersonKeys, *, near: NearCache | None
    ) -> None:
        """*near* is the near cache of this process, if any."""
        self._keys = keys
        self._near = near
        self._take, self._put, self._fail, self._release = (
            cache.client.register_script(scripts.load(name))
            for name in ("take", "put", "fail", "release")
        )

    def take(
        self,
        igsid: Igsid,
        lease: Lease,
        lease_for: float,
        rule: PauseRule = PLAIN,
    ) -> Snapshot:
        """Take the lease unless it is taken or a note answers; read the rest with it.

        By *rule*, a note answers for the whole pause or for a part of it; it stays,
        because it has the row of failures. The lease is ours if it is the one in the
        snapshot. Taking it twice with the same *lease* does no harm, so a call whose
        reply was lost can be repeated.
        """
        with self._keys.guarded("writes", igsid):
            lasts, least = math.ceil(lease_for * 1000), math.floor(rule.least * 1000)
            args = lease, lasts, LUA_PAUSE, least, str(rule.share)
            values = self._keys.run(self._take, igsid, *args)
        if self._near:
            self._near.forget(self._keys.tag(igsid), unless=values[0])
        return snapshot_of(igsid, values)

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
            is_kept = bool(self._keys.run(self._put, igsid, *args))
        self._forget_locally(igsid)
        return is_kept

    def fail(
        self,
        igsid: Igsid,
        failure: LookupFailure,
        lease: Lease,
        *,
        failures: int = 0,
        pause: float = FIRST_PAUSE,
        keeping: Entry | None = None,
        now: float,
    ) -> bool:
        """Note how the flight failed, for *pause* seconds, if *lease* is still ours.

        *failures* in a row were about this person; a note without any is gone after
        its pause. *keeping* is the entry that the flight was to refresh, with its next
        refresh postponed.
        """
        ttl = NOTE_TTL if failures else pause
        note = encode_note(failure, failures=failures, pause=pause, ttl=ttl)
        args = lease, note, math.floor(ttl * 1000), *_kept(keeping, now)
        with self._keys.guarded("writes", igsid):
            is_noted = bool(self._keys.run(self._fail, igsid, *args))
        if keeping:
            self._forget_locally(igsid)
        return is_noted

    def release(
        self,
        igsid: Igsid,
        lease: Lease,
        *,
        keeping: Entry | None = None,
        now: float = 0.0,
    ) -> bool:
        """Release the lease without a result, if it is still ours.

        The row of failures stays. *keeping* is as in `fail`.
        """
        with self._keys.guarded("writes", igsid):
            args = lease, *_kept(keeping, now)
            is_released = bool(self._keys.run(self._release, igsid, *args))
        if keeping:
            self._forget_locally(igsid)
        return is_released

    def _forget_locally(self, igsid: Igsid) -> None:
        """Drop this process's copy of an entry that has been written.

        The store's message about it comes some milliseconds later, and until then this
        process would answer what was there before.
        """
        if self._near:
            self._near.forget(self._keys.tag(igsid))


def _kept(keeping: Entry | None, now: float) -> tuple[bytes, int] | tuple[()]:
    """*keeping* and its TTL in ms, as arguments of a script; none if that is over."""
    if keeping and (milliseconds := _left(keeping, now)) >= 1:
        return encode(keeping), milliseconds
    return ()


def _left(entry: Entry, now: float) -> int:
    """For how many milliseconds *entry* may still be used."""
    return math.floor((entry.usable_until - now) * 1000)
