"""Entries: their keys, with the lease and the note beside them.

A person has up to four keys, in one hash tag so that every script touches one
slot of a Cluster:

    pp:e:{page:igsid}   the entry: an outcome and the moments that bound its use
    pp:l:{page:igsid}   the lease: who may write the entry, and is asking Meta now
    pp:n:{page:igsid}   the note: how the last flight failed, for those who wait
    pp:w:{page:igsid}   the marker: they have written to the business lately

(pp:r:{...} passes by while replicas are waited for, or readyz looks.)

Whoever holds the lease is the only writer of the entry. Whatever invalidates
deletes lease and note too, so that a fetch under way can write nothing back.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import NamedTuple, cast

import redis

from proxy.domain.entry import Entry
from proxy.domain.failures import LookupFailure, StoreUnavailable
from proxy.domain.profile import Igsid
from proxy.storage.codec import (
    LUA_LIFE,
    LUA_PROFILE,
    StoredEntry,
    decode,
    decode_note,
    encode,
    encode_note,
    read,
)
from proxy.storage.fast_reader import tagged
from proxy.storage.flask_cache import ProfileCache
from proxy.storage.keyspace import WIDE_SLICE
from proxy.storage.near_cache import TRUSTED_FOR, LocalEntry, NearCache, PendingRead
from proxy.storage.nodes import require_stable_topology
from proxy.storage.store_guard import GuardedCall, StoreGuard
from proxy.storage.store_health import PROBE_KEY, config_warnings, probe_writes

log = logging.getLogger(__name__)

NOTE_TTL = 1.0
"""Seconds for which those who waited can read how a flight failed."""

WRITTEN_LATELY = 120.0
"""Seconds for which Meta may not show yet that somebody has written to the business."""

TOKEN_NOTED_FOR = 400 * 86400.0
"""Seconds for which it is known which token was used: longer than any entry lives."""

LONGEST_COPY = 4096
"""Bytes of an entry that is copied; a profile takes some 300."""

CONFIG_READ_EVERY = 10.0
"""Seconds between two looks at the store's own settings."""

_KINDS = ("e", "l", "n", "w")
"""A person's keys: entry, lease, note, and the marker."""

_LOOKED_AT = _KINDS[:3]
"""Which of them are read to answer."""

Lease = str
"""An owner's token, never used twice."""

_TAKE = """
local seen = redis.call('MGET', KEYS[1], KEYS[2], KEYS[3], KEYS[4])
if not seen[2] and (not seen[3] or seen[3] == ARGV[3]) then
  redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
  redis.call('DEL', KEYS[3])
  seen[2], seen[3] = ARGV[1], false
end
return seen
"""
# MGET where GET would do: it answers nil, not an error, for a key of another type.
_HELD = "if redis.call('MGET', KEYS[2])[1] ~= ARGV[1] then return 0 end\n"
_PUT = (
    _HELD
    + """
local kept
if ARGV[4] == '1' then
  kept = redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3], 'XX')
else
  kept = redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
redis.call('DEL', KEYS[2], KEYS[3])
return kept and 1 or 0
"""
)
_FAIL = (
    _HELD
    + """
redis.call('SET', KEYS[3], ARGV[2], 'PX', ARGV[3])
if ARGV[4] then redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[5], 'XX') end
redis.call('DEL', KEYS[2])
return 1
"""
)
_RELEASE = _HELD + "return redis.call('DEL', KEYS[2])"
_ERASE = """
redis.call('DEL', KEYS[4])
return {redis.call('DEL', KEYS[1]), redis.call('DEL', KEYS[2]),
        redis.call('DEL', KEYS[3])}
"""
# How old a profile is shows in how much of its life is over, which is by the clock of
# whoever wrote it and by Redis's pace, so that no two clocks are compared; what is no
# number is no reason to fail, for others are told of in the same trip.
_DROP_REFUSAL = f"""
local entry = redis.call('MGET', KEYS[1])[1]
local stays = entry and string.find(entry, '{LUA_PROFILE}')
local is_again = redis.call('PTTL', KEYS[4]) > ARGV[1] - ARGV[2]
local is_young = false
if stays then
  local from, till = string.match(entry, '{LUA_LIFE}')
  from, till = tonumber(from), tonumber(till)
  local left = redis.call('PTTL', KEYS[1])
  is_young = not (from and till) or (till - from) * 1000 - left < tonumber(ARGV[3])
else
  redis.call('DEL', KEYS[1])
end
redis.call('DEL', KEYS[2], KEYS[3])
redis.call('SET', KEYS[4], '', 'PX', ARGV[1])
return (is_again or is_young or not stays) and 1 or 0
"""


class Snapshot(NamedTuple):
    """What is stored about a person, at one moment.

    *has_written*, lately, is known to whoever takes the lease.
    """

    form: StoredEntry | None
    lease: Lease | None
    note: LookupFailure | None
    has_written: bool = False

    @property
    def entry(self) -> Entry | None:
        """Made of the form when it is asked for, which a hit does not."""
        return self.form.entry() if self.form is not None else None


@dataclass(frozen=True, slots=True)
class Erased:
    """What was there to erase."""

    entry: bool
    lease: bool
    note: bool


@dataclass(frozen=True, slots=True)
class Flushed:
    """How many entries a flush was about, and how many of them it removed."""

    matched: int
    deleted: int


@dataclass(frozen=True, slots=True)
class Census:
    """How many entries there are of each kind; not of all, unless *is_complete*."""

    kinds: Mapping[str, int]
    is_complete: bool


class EntryStore:
    """One Page's people, in Redis.

    Every method raises StoreUnavailable when the store cannot be reached or
    cannot do as it is told.
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
        """*near* is this process's own cache, if it has one; *monotonic* is monotonic.

        *count_error* is told which kind of errors the store makes; *sleep* waits
        until no process's own cache can have what was removed.
        """
        self._cache = cache
        self._nodes = cache.nodes
        self._keyspace = cache.keyspace
        self._replication = cache.replication
        self.page = page
        self._monotonic = monotonic
        self._near = near
        self._sleep = sleep
        self._tag = f"{page}:"
        script = cache.client.register_script
        self._take, self._put = script(_TAKE), script(_PUT)
        self._fail, self._release = script(_FAIL), script(_RELEASE)
        self.guard = self._guard = StoreGuard(
            cache.nodes.node_names,
            count_error=count_error,
            monotonic=monotonic,
            last_reply_at=lambda: near.last_reply_at if near else -math.inf,
        )
        self._config_warnings: tuple[float, list[str]] = -math.inf, []

    def of_page(self, page: str) -> EntryStore:
        """The same store, of another Page's people: both reach it, or neither."""
        other = copy(self)
        other.page, other._tag = page, f"{page}:"
        return other

    def read(self, igsid: Igsid) -> Snapshot:
        """Entry, lease and note, read together in one trip."""
        near, tag = self._near, self._tag + igsid
        loading = near.begin_read(tag) if near else None
        try:
            with self._guard.call("reads", self._nodes.node_name(f"{{{tag}}}")):
                values, life = self._keyspace.read(
                    _LOOKED_AT, tag, with_life=loading is not None
                )
        except BaseException:
            if near and loading:
                near.cancel_read(tag, loading)
            raise
        seen = _snapshot(igsid, values)
        if near:
            self._copy(near, tag, loading, values[0] if seen.form else None, life)
        return seen

    def read_many(
        self, igsids: Sequence[Igsid]
    ) -> dict[Igsid, Snapshot | StoreUnavailable]:
        """`read` for each, in one trip to each server; some may be out of reach."""
        by_place: dict[str, list[Igsid]] = {}
        for igsid in igsids:
            place = self._nodes.node_name(self._keys(igsid)[0])
            by_place.setdefault(place, []).append(igsid)
        found: dict[Igsid, Snapshot | StoreUnavailable] = {}
        for place, people in by_place.items():
            try:
                with self._guard.call("reads", place):
                    found.update(self._read_at(people))
            except StoreUnavailable as away:
                found.update(dict.fromkeys(people, away))
        return found

    def _read_at(self, igsids: list[Igsid]) -> dict[Igsid, Snapshot]:
        near = self._near
        tags = {igsid: self._tag + igsid for igsid in igsids}
        loading = {tag: near.begin_read(tag) if near else None for tag in tags.values()}
        try:
            looks = self._keyspace.read_many(
                _LOOKED_AT, list(tags.values()), with_life=any(loading.values())
            )
        except BaseException:
            for tag, begun in loading.items():
                if near and begun:
                    near.cancel_read(tag, begun)
            raise
        found = {}
        for (igsid, tag), (values, life) in zip(tags.items(), looks, strict=True):
            seen = found[igsid] = _snapshot(igsid, values)
            if near:
                stored = values[0] if seen.form else None
                self._copy(near, tag, loading[tag], stored, life)
        return found

    def _copy(
        self,
        near: NearCache,
        tag: str,
        loading: PendingRead | None,
        stored: bytes | None,
        life: float,
    ) -> None:
        """Keep a copy of what was read, if it may be; an older one goes in any case."""
        if loading:
            is_long = stored is not None and len(stored) > LONGEST_COPY
            near.end_read(tag, loading, None if is_long else stored, life)
        else:
            near.forget(tag, unless=stored)

    def recall(self, igsid: str) -> LocalEntry | None:
        """What this process itself has of a person, if that is surely true. No trip."""
        near = self._near
        return near.get(self._tag + igsid) if near else None

    def recall_entry(self, igsid: Igsid) -> Entry | None:
        """The entry of the local copy that `recall` returns. No trip."""
        local = self.recall(igsid)
        return decode(local.stored, igsid) if local else None

    def recall_in_outage(self, igsid: Igsid) -> Entry | None:
        """What this process last knew, for those who have not reached the store."""
        near, key = self._near, self._tag + igsid
        copy = near.get_in_outage(key) if near else None
        return decode(copy.stored, igsid) if copy else None

    def take(
        self,
        igsid: Igsid,
        lease: Lease,
        lease_for: float,
        known_note: LookupFailure | None = None,
    ) -> Snapshot:
        """Take the lease unless somebody has it or a note lies there, and look.

        *known_note* is one that may lie there, and goes. The lease is ours if it
        is the one seen. Doing it twice with the same *lease* does no harm, which
        is how a lost reply is made good.
        """
        with self._guarded("writes", igsid):
            milliseconds = math.ceil(lease_for * 1000)
            note = (encode_note(known_note),) if known_note else ()
            return _snapshot(
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
        """Keep *entry* until it expires, if *lease* is still ours; say if it was kept.

        A lost lease means that the person was erased, flushed or has written
        while we asked, so what we learned may no longer be kept (see "One
        writer per entry" in docs/architecture.md). An entry without life left
        is not stored at all: Redis takes a TTL of zero for an error. What was known
        before is put *again* only if it is still there: a flush can have removed
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
        """Tell those who wait how the flight failed, if *lease* is still ours.

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
        """Give the lease back with nothing to show for it, if it is still ours."""
        with self._guarded("writes", igsid):
            return bool(self._run(self._release, igsid, lease))

    def erase(self, igsid: Igsid) -> Erased:
        """Drop what is stored about one person, and whatever is under way.

        In every replica, too: a fail-over brings nothing back. And in every
        process, which takes half a second (see `proxy.storage.near_cache`).
        """
        with self._guarded("writes", igsid):
            [there] = self._replication.run_replicated(_ERASE, [self._keys(igsid)])
        self.wait_out_local_caches()
        return Erased(*map(bool, there))

    def drop_refusals(self, people: Collection[Igsid], lease_for: float) -> bool:
        """Drop what Meta has refused of *people*, who have written to the business.

        Whatever is under way goes too, because Meta may have been asked before the
        message. A profile stays. The drop reaches every replica. True means that a
        process may still have a local copy, so the caller must `wait_out_local_caches`
        before it promises anything. That is so for a person without a profile here,
        and for one who had none half a second ago: because of the message before, or
        because the profile has only just been stored, which takes no longer after the
        fetch than a lease lasts.

        A trip to each server, and for replicas another.
        """
        places: dict[str, list[list[str]]] = {}
        for igsid in dict.fromkeys(people):
            keys = self._keys(igsid)
            places.setdefault(self._nodes.node_name(keys[0]), []).append(keys)
        seconds = WRITTEN_LATELY, TRUSTED_FOR, TRUSTED_FOR + lease_for
        args = [math.floor(each * 1000) for each in seconds]
        replies: list[int] = []
        for place, groups in places.items():
            with self._guard.call("writes", place):
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

        Of this Page; or of *every_page*, those whom nobody serves any more too.
        *matches* is given None for an entry that cannot be read. Leases and
        notes go first, all of them, in a pass of their own: a fetch begun
        before it has then either lost its lease or written where the second
        pass will find it. In a single pass, it could write behind the cursor.
        Each pass goes over every server, and at the end their replicas have
        forgotten what they have, and so has every process.
        """
        whose = "*" if every_page else f"{{{self._tag}*"

        def pick(keys: list[bytes]) -> list[bytes]:
            return keys if matches is None else self._pick(keys, matches)

        with self._guard.call("writes"), require_stable_topology(self._nodes):
            if dry_run:
                entries = map(pick, self._keyspace.scan(f"e:{whose}"))
                return Flushed(sum(map(len, entries)), 0)
            self._keyspace.remove(f"[ln]:{whose}", count=WIDE_SLICE)
            flushed = Flushed(*self._keyspace.remove(f"e:{whose}", pick))
            self._replication.await_replicas()
        self.wait_out_local_caches()
        return flushed

    def census(self, kind_of: Callable[[Entry | None], str], at_most: int) -> Census:
        """Count this Page's entries by what *kind_of* makes of them, up to *at_most*.

        It is given None for an entry that cannot be read.
        """
        kinds: Counter[str] = Counter()
        met: set[bytes] = set()  # SCAN may name a key twice.
        with self._guard.call("reads"):
            for keys in self._keyspace.scan(f"e:{{{self._tag}*"):
                new = list(dict.fromkeys(key for key in keys if key not in met))
                if len(met) + len(new) > at_most:
                    return Census(kinds, is_complete=False)
                met.update(new)
                for value in self._keyspace.values(new):
                    if value is not None:
                        kinds[kind_of(decode(value))] += 1
        return Census(kinds, is_complete=True)

    def token_digest(self) -> str | None:
        """Which Page token asked last, without telling what it is."""
        key = token_key(self.page)
        with self._guard.call("reads", self._nodes.node_name(key)):
            known = self._cache.get(key)
            return known.decode("ascii", "replace") if known is not None else None

    def note_token(self, digest: str) -> None:
        """Remember which Page token is in use now."""
        key = token_key(self.page)
        with self._guard.call("writes", self._nodes.node_name(key)):
            self._cache.set(key, digest.encode(), TOKEN_NOTED_FOR)

    def ping(self) -> None:
        """Do nothing, if the store is there and takes what it is given.

        One that is full, or a replica, answers and keeps nothing.
        """
        with self._guard.call("reads"):
            self._cache.client.ping()
        with self._guard.call("writes", self._nodes.node_name(PROBE_KEY)):
            probe_writes(self._cache)

    def config_warnings(self, now: Callable[[], float]) -> list[str]:
        """What of the store's settings, or its clock, may break a promise, as reasons.

        Asked at most every ten seconds. *now* is our clock, in epoch seconds.
        """
        asked_at, warnings = self._config_warnings
        if self._monotonic() - asked_at > CONFIG_READ_EVERY:
            with self._guard.call("reads"):
                warnings = config_warnings(self._nodes, now)
            self._config_warnings = self._monotonic(), warnings
        return warnings

    def _pick(
        self, keys: list[bytes], matches: Callable[[Entry | None], bool]
    ) -> list[bytes]:
        return [
            key
            for key, value in zip(keys, self._keyspace.values(keys), strict=True)
            if value is not None and matches(decode(value))
        ]

    def wait_out_local_caches(self) -> None:
        """Wait until no process uses a copy of what Redis has just removed.

        Whether this one has a cache of its own says nothing of the others.
        """
        if self._nodes.can_track:
            self._sleep(TRUSTED_FOR)

    def _guarded(self, kind: str, igsid: Igsid) -> GuardedCall:
        return self._guard.call(kind, self._nodes.node_name(self._keys(igsid)[0]))

    def _keys(self, igsid: Igsid) -> list[str]:
        return [tagged(kind, self._tag + igsid) for kind in _KINDS]

    def _run(
        self, script: redis.commands.core.Script, igsid: Igsid, *args: str | bytes | int
    ) -> list[bytes | None]:
        keys = [self._keyspace.whole_key(key) for key in self._keys(igsid)]
        return cast("list[bytes | None]", script(keys=keys, args=args))


def _snapshot(igsid: Igsid, values: list[bytes | None]) -> Snapshot:
    entry, lease, note = values[:3]
    return Snapshot(
        read(entry, igsid) if entry is not None else None,
        lease.decode("ascii", "replace") if lease is not None else None,
        decode_note(note) if note is not None else None,
        has_written=len(values) > 3 and values[3] is not None,
    )


def token_key(page: str) -> str:
    """Where it is noted which token asks for *page*."""
    return f"t:{{{page}}}"


def _left(entry: Entry, now: float) -> int:
    """For how many milliseconds *entry* may still be used."""
    return math.floor((entry.usable_until - now) * 1000)
