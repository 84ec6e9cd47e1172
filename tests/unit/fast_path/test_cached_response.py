"""Cached responses: the same representation as the view's, byte for byte."""

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
def test_profile_representation_equals_that_of_the_view(entry: Entry) -> None:
    """Byte for byte, with headers and tag: a caller cannot tell which one answered."""
    assert profile_representation(form_of(entry)) == representation(entry)
    linked = profile_representation(form_of(entry), "profiles/{}/picture?".format)
    assert linked == representation(entry, link_of="profiles/{}/picture?".format)


def test_max_age_is_whole_seconds_and_never_negative() -> None:
    """RFC 9111 §1.2.2 allows nothing else."""
    entries = [an_entry(fresh_until=NOW + ttl) for ttl in (-5.0, 0.0, 0.9, 3599.9)]

    kept = [dict(representation(entry).headers)["Cache-Control"] for entry in entries]

    assert kept == [f"private, max-age={ttl}" for ttl in (0, 0, 0, 3599)]
