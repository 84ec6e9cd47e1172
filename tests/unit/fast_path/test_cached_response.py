"""Our types as HTTP: the same words, by whichever way they are made."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.domain.entry import Entry
from proxy.fast_path.cached_response import profile_representation
from proxy.web.representations import representation
from tests.helpers.builders import NOW, a_profile, an_entry, form_of
from tests.helpers.strategies import moments, profiles


@settings(deadline=None)
@given(st.builds(Entry, profiles, moments, moments, moments))
@example(an_entry(a_profile(name='Zoë 🏳️‍🌈 "x" <b>\\ \n\r\t\0 \x7f \u2028 \uffff')))
@example(an_entry(a_profile(name="null", username="%s %(x)b", profile_pic="")))
@example(an_entry(a_profile(), fresh_until=NOW - 1))
def test_a_profile_is_the_same_from_its_stored_form(entry: Entry) -> None:
    """Byte for byte, headers and tag too: a caller cannot tell who answered."""
    assert profile_representation(form_of(entry)) == representation(entry)


def test_nobody_is_to_keep_a_profile_for_less_than_no_time() -> None:
    """Nor for other than whole seconds (RFC 9111 §1.2.2)."""
    entries = [an_entry(fresh_until=NOW + ttl) for ttl in (-5.0, 0.0, 0.9, 3599.9)]

    kept = [dict(representation(entry).headers)["Cache-Control"] for entry in entries]

    assert kept == [f"private, max-age={ttl}" for ttl in (0, 0, 0, 3599)]
