"""The codec loses nothing of an entry or a note, and damage is never an error."""

from __future__ import annotations

from dataclasses import fields
from typing import get_type_hints

from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.domain.entry import Entry, ExpiryReason
from proxy.domain.failures import (
    GraphTimeout,
    GraphUnavailable,
    LookupFailure,
    PermissionMissing,
    Throttled,
    TokenRejected,
)
from proxy.domain.profile import FIELDS, GraphError, Profile, Reason, Refusal
from proxy.storage.codec import (
    StoredProfile,
    decode,
    decode_note,
    encode,
    encode_note,
)
from tests.helpers.builders import ADA
from tests.helpers.strategies import igsids, moments, profiles, texts

codes = st.none() | st.integers(-(2**31), 2**31)
errors = st.builds(GraphError, codes, codes, texts)
refusals = st.builds(Refusal, igsids, st.sampled_from(Reason), errors)
bounds = {
    "fetched_at": moments,
    "fresh_until": moments,
    "usable_until": moments,
    "refresh_after": st.just(0.0) | moments,
    "failed_refreshes": st.integers(0, 99),
    "expiry_reason": st.none() | st.sampled_from(ExpiryReason),
}
entries = st.builds(
    Entry, profiles, **bounds, last_said=st.none() | errors
) | st.builds(Entry, refusals, **bounds)
failures = st.builds(
    lambda kind, said, after: kind(said, after),
    st.sampled_from(
        [TokenRejected, PermissionMissing, Throttled, GraphTimeout, GraphUnavailable]
    ),
    st.none() | errors,
    st.none() | st.floats(0, 1e6),
)


def test_stored_profile_has_the_fields_of_a_profile_in_their_order() -> None:
    """Without the id, which the entry has; an array has only the order to go by."""
    names = [field.name for field in fields(Profile) if field.name != "igsid"]
    stored, domain = get_type_hints(StoredProfile), get_type_hints(Profile)

    assert list(StoredProfile.__struct_fields__) == names
    assert names == [*FIELDS, "picture_expires_at"]
    assert {name: stored[name] for name in names} == {
        name: domain[name] for name in names
    }


@settings(deadline=None)
@given(entries)
def test_decode_returns_the_encoded_entry(entry: Entry) -> None:
    """Every field comes back unchanged."""
    assert decode(encode(entry), entry.outcome.igsid) == entry


@settings(deadline=None)
@given(failures)
def test_decode_note_returns_the_encoded_failure(
    failure: LookupFailure,
) -> None:
    """Its class, the error of Meta's and the wait come back unchanged."""
    note = decode_note(encode_note(failure))

    assert type(note.failure) is type(failure)
    assert note.failure.said == failure.said
    assert note.failure.retry_after == failure.retry_after


@settings(deadline=None)
@given(st.binary(max_size=60))
@example(b'{"v":1,"id":"\xff"}')
@example(b'"\xff"')
def test_arbitrary_bytes_are_a_miss_and_never_an_error(stored: bytes) -> None:
    """Any client of the store may have written them."""
    assert decode(stored, ADA) is None
    assert isinstance(decode_note(stored).failure, LookupFailure)


@st.composite
def damaged(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """A stored value with some of its bytes replaced by others."""
    stored = draw(whole)
    first = draw(st.integers(0, len(stored)))
    last = draw(st.integers(first, min(len(stored), first + 8)))
    return stored[:first] + draw(st.binary(max_size=8)) + stored[last:]


@settings(deadline=None, max_examples=400)
@given(damaged(entries.map(encode)))
def test_damaged_entry_is_decoded_or_a_miss(stored: bytes) -> None:
    """Never an error."""
    assert isinstance(decode(stored), Entry | None)


def test_note_of_the_version_before_is_read() -> None:
    """Two versions share a store during an update."""
    note = decode_note(b'{"v":3,"failure":"Throttled","retry_after":60.0}')

    assert isinstance(note.failure, Throttled)
    assert (note.failure.retry_after, note.failures) == (60.0, 0)
    assert (note.pause, note.ttl) == (1.0, 1.0)


def test_note_keeps_the_form_that_scripts_and_older_versions_read() -> None:
    """The numbers by LUA_PAUSE; the failure as the version before wrote it."""
    stored = encode_note(Throttled(retry_after=60.0), failures=3, pause=4.0, ttl=600.0)

    assert stored == (
        b'{"v":4,"ttl":600000,"pause":4000,"failures":3,'
        b'"failure":"Throttled","retry_after":60.0}'
    )
    note = decode_note(stored)
    assert (note.failures, note.pause, note.ttl) == (3, 4.0, 600.0)


@settings(deadline=None, max_examples=400)
@given(damaged(failures.map(encode_note)))
def test_damaged_note_is_still_a_failure(stored: bytes) -> None:
    """The flight failed, whatever is left of the reason."""
    assert isinstance(decode_note(stored).failure, LookupFailure)
