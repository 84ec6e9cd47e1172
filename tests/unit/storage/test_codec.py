"""The stored form: nothing is lost on the way, and no damage is an error."""

from __future__ import annotations

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
from proxy.domain.profile import GraphError, Reason, Refusal
from proxy.storage.codec import decode, decode_note, encode, encode_note
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
stored_outcomes = st.builds(
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


@settings(deadline=None)
@given(stored_outcomes)
def test_whatever_is_encoded_can_be_decoded(entry: Entry) -> None:
    """Nothing of an entry is lost or changed on the way."""
    assert decode(encode(entry), entry.outcome.igsid) == entry


@settings(deadline=None)
@given(failures)
def test_whatever_failure_is_noted_can_be_read(failure: LookupFailure) -> None:
    """Nothing of it is lost or changed on the way."""
    note = decode_note(encode_note(failure))

    assert type(note) is type(failure)
    assert (note.said, note.retry_after) == (failure.said, failure.retry_after)


@settings(deadline=None)
@given(st.binary(max_size=60))
@example(b'{"v":1,"id":"\xff"}')
@example(b'"\xff"')
def test_no_bytes_are_an_error_to_decode(stored: bytes) -> None:
    """Anybody may have written them; at worst they are a miss."""
    assert decode(stored, ADA) is None
    assert isinstance(decode_note(stored), LookupFailure)


@st.composite
def damaged(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """Something that was stored, with some of its bytes replaced by others."""
    stored = draw(whole)
    first = draw(st.integers(0, len(stored)))
    last = draw(st.integers(first, min(len(stored), first + 8)))
    return stored[:first] + draw(st.binary(max_size=8)) + stored[last:]


@settings(deadline=None, max_examples=400)
@given(damaged(stored_outcomes.map(encode)))
def test_no_damage_to_an_entry_is_an_error(stored: bytes) -> None:
    """What is still readable is an entry, and everything else a miss."""
    assert isinstance(decode(stored), Entry | None)


@settings(deadline=None, max_examples=400)
@given(damaged(failures.map(encode_note)))
def test_no_damage_to_a_note_is_an_error(stored: bytes) -> None:
    """A failure it stays."""
    assert isinstance(decode_note(stored), LookupFailure)
