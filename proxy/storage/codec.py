"""The codec of entries and notes, which are stored as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import msgspec

from proxy.domain.entry import Entry, ExpiryReason
from proxy.domain.failures import FAILURES, GraphUnavailable, LookupFailure
from proxy.domain.profile import GraphError, Igsid, Profile, Reason, Refusal

SCHEMA = 3
"""The version of what is stored. An entry of another is a miss, and is overwritten."""

LUA_PROFILE = f"^%[{SCHEMA},[^,]*,[^,]*,[^,]*,[^,]*,%["
"""A Lua pattern that only a profile matches: its sixth value is an array, not null.

The values before it are numbers and an id, so that no text of Meta's can match. No
entry of another version matches, because its profiles may be elsewhere.
"""

LUA_LIFE = "^[^,]*,[^,]*,([%d.]+),[^,]*,([%d.]+),"
"""A Lua pattern that captures ``fetched_at`` and ``usable_until`` of an entry."""

LUA_PAUSE = '^{"v":%d+,"ttl":(%d+),"pause":(%d+),'
"""A Lua pattern that captures the whole TTL and the pause of a note, both in ms.

A note of the version before has neither. It answers as long as it is stored: 1 s.
"""

NOTE_SCHEMA = 4
"""The version of notes. Notes of all versions are read."""

OLD_NOTE_TTL = 1.0
"""Seconds for which a note of the version before is stored."""

_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""The errors that msgspec raises for bytes that we would not store."""

_FAILURES = {failure.__name__: failure for failure in FAILURES if failure.is_shared}
"""The failures that a note can report, by the names that stored notes have for them."""

_Moment = Annotated[float, msgspec.Meta(ge=0, lt=1e11)]
"""Epoch seconds that a calendar can show."""

_Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=3_600_000)]
"""Up to an hour, which is more than a note lasts."""


class _StoredError(msgspec.Struct, array_like=True):
    code: int | None
    subcode: int | None
    fbtrace_id: str | None


class StoredProfile(msgspec.Struct, array_like=True):
    """The fields of a `Profile` without its id, in their order, which a test compares.

    They are listed again because a derived class would have no types for mypy.
    """

    name: str | None = None
    username: str | None = None
    profile_pic: str | None = None
    is_verified_user: bool | None = None
    follower_count: int | None = None
    is_user_follow_business: bool | None = None
    is_business_follow_user: bool | None = None
    picture_expires_at: _Moment | None = None


class StoredEntry(msgspec.Struct, array_like=True):
    """An entry as it is stored, with a profile or a refusal: an array in JSON.

    Field names would take a fifth of its memory. Building the `Entry` takes several
    times as long as decoding this, so a hit is answered from this.
    """

    v: int
    id: str
    fetched_at: _Moment
    fresh_until: _Moment
    usable_until: _Moment
    profile: StoredProfile | None = None
    refusal: Reason | None = None
    said: _StoredError | None = None
    refresh_after: _Moment | None = None
    failed_refreshes: Annotated[int, msgspec.Meta(ge=0)] = 0
    expiry_reason: ExpiryReason | None = None

    def entry(self) -> Entry:
        """Build the entry."""
        last_said = None
        outcome: Profile | Refusal
        if self.profile is not None:
            fields = msgspec.structs.asdict(self.profile)
            outcome = Profile(Igsid(self.id), **fields)
            last_said = _error(self.said) if self.said else None
        else:
            assert self.refusal is not None and self.said is not None  # See `read`.
            outcome = Refusal(Igsid(self.id), self.refusal, _error(self.said))
        return Entry(
            outcome,
            self.fetched_at,
            self.fresh_until,
            self.usable_until,
            self.refresh_after or 0.0,
            self.failed_refreshes,
            self.expiry_reason,
            last_said,
        )


class _Note(msgspec.Struct, omit_defaults=True):
    """A note as it is stored, by LUA_PAUSE in this order; *ttl* and *pause* in ms."""

    v: int
    ttl: _Milliseconds | None = None
    pause: _Milliseconds | None = None
    failures: Annotated[int, msgspec.Meta(ge=0)] = 0
    failure: str = ""
    said: _StoredError | None = None
    retry_after: float | None = None
    asked: bool = True


@dataclass(frozen=True, slots=True)
class Note:
    """How the last flight about a person failed: the last of *failures* in a row.

    It is stored for *ttl* seconds, and answers for *pause* seconds. Two notes are equal
    if they are *stored* alike.
    """

    stored: bytes
    failure: LookupFailure = field(compare=False)
    failures: int = field(default=0, compare=False)
    pause: float = field(default=OLD_NOTE_TTL, compare=False)
    ttl: float = field(default=OLD_NOTE_TTL, compare=False)


def encode(entry: Entry) -> bytes:
    """Encode *entry* as an array in JSON, its version first."""
    stored_profile = refusal = said = None
    match entry.outcome:
        case Profile() as profile:
            stored_profile = msgspec.convert(
                profile, StoredProfile, from_attributes=True
            )
            said = _stored_error(entry.last_said) if entry.last_said else None
        case Refusal(reason=reason, said=error):
            refusal, said = reason, _stored_error(error)
    stored_entry = StoredEntry(
        v=SCHEMA,
        id=entry.outcome.igsid,
        fetched_at=entry.fetched_at,
        fresh_until=entry.fresh_until,
        usable_until=entry.usable_until,
        profile=stored_profile,
        refusal=refusal,
        said=said,
        refresh_after=entry.refresh_after or None,
        failed_refreshes=entry.failed_refreshes,
        expiry_reason=entry.expiry_reason,
    )
    values = list(msgspec.structs.astuple(stored_entry))
    while not values[-1]:
        del values[-1]  # A missing value at the end is decoded as its default.
    return msgspec.json.encode(values)


def decode(stored: bytes, igsid: Igsid | None = None) -> Entry | None:
    """Build the entry of what `read` returns; None if that is None."""
    stored_entry = read(stored, igsid)
    return stored_entry.entry() if stored_entry is not None else None


def read(stored: bytes, igsid: Igsid | None = None) -> StoredEntry | None:
    """Decode a stored entry; None if it is truncated, foreign or of another version.

    With *igsid*, an entry about another person is foreign too.
    """
    try:
        entry = msgspec.json.decode(stored, type=StoredEntry)
    except _UNREADABLE:
        return None
    if entry.v != SCHEMA or (igsid is not None and entry.id != igsid):
        return None
    if entry.refusal is None:
        return entry if entry.profile is not None else None
    return entry if entry.profile is None and entry.said is not None else None


def encode_note(
    failure: LookupFailure,
    *,
    failures: int = 0,
    pause: float = OLD_NOTE_TTL,
    ttl: float = OLD_NOTE_TTL,
) -> bytes:
    """Encode the note of a *failure*, the last of *failures* in a row about a person.

    *pause* and *ttl* are in seconds: for how long it answers, and is stored.
    """
    note = _Note(
        NOTE_SCHEMA,
        round(ttl * 1000),
        round(pause * 1000),
        failures,
        type(failure).__name__,
        _stored_error(failure.said) if failure.said else None,
        failure.retry_after,
        failure.asked,
    )
    return msgspec.json.encode(note)


def decode_note(stored: bytes) -> Note:
    """Decode a note. An unreadable one still means that a flight failed."""
    try:
        note = msgspec.json.decode(stored, type=_Note)
    except _UNREADABLE:
        return Note(stored, GraphUnavailable())
    new_failure = _FAILURES.get(note.failure, GraphUnavailable)
    said = _error(note.said) if note.said else None
    failure = new_failure(said, note.retry_after, asked=note.asked)
    if note.ttl is None or note.pause is None:
        return Note(stored, failure)
    return Note(stored, failure, note.failures, note.pause / 1000, note.ttl / 1000)


def _stored_error(error: GraphError) -> _StoredError:
    return _StoredError(error.code, error.subcode, error.fbtrace_id)


def _error(said: _StoredError) -> GraphError:
    return GraphError(said.code, said.subcode, said.fbtrace_id)
