"""The form in which entries and notes are stored: how it is written and read."""

from __future__ import annotations

from typing import Annotated

import msgspec

from proxy.domain.entry import Entry, ExpiryReason
from proxy.domain.failures import FAILURES, GraphUnavailable, LookupFailure
from proxy.domain.profile import GraphError, Igsid, Profile, Reason, Refusal

SCHEMA = 3
"""The version of the stored form. What has another is a miss, and is overwritten."""

LUA_PROFILE = f"^%[{SCHEMA},[^,]*,[^,]*,[^,]*,[^,]*,%["
"""What only a profile matches, to scripts: an array in the sixth place, for null.

Before it are numbers and an id, so that nothing that Meta says is taken for it. Where
another version has its profiles is not known, so none of its entries is one.
"""

LUA_LIFE = "^[^,]*,[^,]*,([%d.]+),[^,]*,([%d.]+),"
"""Takes ``fetched_at`` and ``usable_until`` out of an entry, for scripts."""

_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are not what we store."""

_FAILURES = {failure.code: failure for failure in FAILURES if failure.is_shared}
"""The failures that a note can tell of, by their codes."""

_Moment = Annotated[float, msgspec.Meta(ge=0, lt=1e11)]
"""Epoch seconds that a calendar can show."""


class _Said(msgspec.Struct, array_like=True):
    code: int | None
    subcode: int | None
    fbtrace_id: str | None


class _Person(msgspec.Struct, array_like=True):
    """What Meta documents of a person, in the order of FIELDS, and a picture's end."""

    name: str | None = None
    username: str | None = None
    profile_pic: str | None = None
    is_verified_user: bool | None = None
    follower_count: int | None = None
    is_user_follow_business: bool | None = None
    is_business_follow_user: bool | None = None
    picture_expires_at: _Moment | None = None


class StoredEntry(msgspec.Struct, array_like=True):
    """An entry in the form in which it is stored: a profile or a refusal.

    Names would take a fifth of its memory. To make the entry of it takes several
    times as long as to read it, so whoever can answers from this.
    """

    v: int
    id: str
    fetched_at: _Moment
    fresh_until: _Moment
    usable_until: _Moment
    profile: _Person | None = None
    refusal: Reason | None = None
    said: _Said | None = None
    refresh_after: _Moment | None = None
    failed_refreshes: Annotated[int, msgspec.Meta(ge=0)] = 0
    expiry_reason: ExpiryReason | None = None

    def entry(self) -> Entry:
        """The entry that is stored in this form."""
        last_said = None
        outcome: Profile | Refusal
        if self.profile is not None:
            known = msgspec.structs.asdict(self.profile)
            outcome = Profile(Igsid(self.id), **known)
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
    v: int
    failure: str
    said: _Said | None = None
    retry_after: float | None = None
    asked: bool = True


def encode(entry: Entry) -> bytes:
    """*entry* as it is stored: an array in JSON, its version first."""
    person = refusal = said = None
    match entry.outcome:
        case Profile() as profile:
            person = msgspec.convert(profile, _Person, from_attributes=True)
            said = _said(entry.last_said) if entry.last_said else None
        case Refusal(reason=reason, said=error):
            refusal, said = reason, _said(error)
    form = StoredEntry(
        v=SCHEMA,
        id=entry.outcome.igsid,
        fetched_at=entry.fetched_at,
        fresh_until=entry.fresh_until,
        usable_until=entry.usable_until,
        profile=person,
        refusal=refusal,
        said=said,
        refresh_after=entry.refresh_after or None,
        failed_refreshes=entry.failed_refreshes,
        expiry_reason=entry.expiry_reason,
    )
    values = list(msgspec.structs.astuple(form))
    while not values[-1]:
        del values[-1]  # What is left out at the end is nothing, when it is read.
    return msgspec.json.encode(values)


def decode(stored: bytes, igsid: Igsid | None = None) -> Entry | None:
    """The entry that `read` reads, if it does."""
    form = read(stored, igsid)
    return form.entry() if form is not None else None


def read(stored: bytes, igsid: Igsid | None = None) -> StoredEntry | None:
    """Read a stored entry; None for what is truncated, foreign or of another version.

    With *igsid*, an entry about anybody else is foreign too.
    """
    try:
        form = msgspec.json.decode(stored, type=StoredEntry)
    except _UNREADABLE:
        return None
    if form.v != SCHEMA or (igsid is not None and form.id != igsid):
        return None
    if form.refusal is None:
        return form if form.profile is not None else None
    return form if form.profile is None and form.said is not None else None


def encode_note(failure: LookupFailure) -> bytes:
    """*failure* as those who wait for it read it."""
    said = _said(failure.said) if failure.said else None
    note = _Note(SCHEMA, failure.code, said, failure.retry_after, failure.asked)
    return msgspec.json.encode(note)


def decode_note(stored: bytes) -> LookupFailure:
    """Read a note. One that does not make sense still says that a flight failed."""
    try:
        note = msgspec.json.decode(stored, type=_Note)
    except _UNREADABLE:
        return GraphUnavailable()
    failure = _FAILURES.get(note.failure, GraphUnavailable)
    said = _error(note.said) if note.said else None
    return failure(said, note.retry_after, asked=note.asked)


def _said(error: GraphError) -> _Said:
    return _Said(error.code, error.subcode, error.fbtrace_id)


def _error(said: _Said) -> GraphError:
    return GraphError(said.code, said.subcode, said.fbtrace_id)
