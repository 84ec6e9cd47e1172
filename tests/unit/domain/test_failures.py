"""Entries, profiles, refusals, and the failures of a lookup."""

from dataclasses import fields

import pytest

from proxy.domain.entry import Freshness
from proxy.domain.failures import (
    FAILURES,
    GraphTimeout,
    GraphUnavailable,
    LookupFailure,
    NotCached,
    Overloaded,
    PermissionMissing,
    StoreUnavailable,
    Throttled,
    TokenRejected,
    TooManyMisses,
)
from proxy.domain.profile import FIELDS, GraphError, Igsid, Profile, Reason, Refusal
from tests.helpers.builders import ADA, HOUR, NOW, a_profile, an_entry

SAID = GraphError(code=190, subcode=463, fbtrace_id="AbC/123")

every_failure = pytest.mark.parametrize("failure", FAILURES)


@pytest.mark.parametrize(
    ("moment", "freshness"),
    [
        (NOW - HOUR, Freshness.FRESH),
        (NOW, Freshness.FRESH),
        (NOW + 10 - 0.001, Freshness.FRESH),
        (NOW + 10, Freshness.STALE),
        (NOW + 20 - 0.001, Freshness.STALE),
        (NOW + 20, Freshness.EXPIRED),
        (NOW + HOUR, Freshness.EXPIRED),
    ],
)
def test_entry_is_fresh_then_stale_then_expired(
    moment: float, freshness: Freshness
) -> None:
    """A bound belongs to the phase after it."""
    entry = an_entry(fresh_until=NOW + 10, usable_until=NOW + 20)

    now = entry.freshness(moment)

    assert now is freshness


def test_entry_without_a_stale_phase_expires_at_once() -> None:
    """Every refusal has this form."""
    entry = an_entry(fresh_until=NOW + 10, usable_until=NOW + 10)

    at_the_end = entry.freshness(NOW + 10)

    assert at_the_end is Freshness.EXPIRED


def test_failures_are_exactly_these() -> None:
    """Add another one here, and to every table of failures."""
    expected = {
        GraphTimeout,
        GraphUnavailable,
        NotCached,
        Overloaded,
        PermissionMissing,
        Throttled,
        TokenRejected,
        TooManyMisses,
    }

    assert set(FAILURES) == set(LookupFailure.__subclasses__()) == expected


@every_failure
def test_failure_carries_metas_error_and_the_time_to_wait(
    failure: type[LookupFailure],
) -> None:
    """Values, not only text."""
    raised = failure(SAID, 60.0)

    assert (raised.said, raised.retry_after) == (SAID, 60.0)


@every_failure
def test_failure_without_details_carries_none(
    failure: type[LookupFailure],
) -> None:
    """None means "not known"."""
    raised = failure()

    assert (raised.said, raised.retry_after) == (None, None)


@every_failure
def test_text_of_a_failure_does_not_depend_on_metas_error(
    failure: type[LookupFailure],
) -> None:
    """It is a constant of ours, in ``str`` as in ``repr``."""
    raised = failure(SAID, 60.0)

    assert str(raised) == failure.what
    assert repr(raised) == f"{failure.__name__}({failure.what!r})"


def test_every_failure_has_a_text_of_its_own() -> None:
    """A reader of a log can tell them apart."""
    texts = {failure.what for failure in (LookupFailure, *FAILURES)}

    assert len(texts) == len(FAILURES) + 1


def test_store_unavailable_is_not_a_lookup_failure() -> None:
    """A lookup failure is shared with followers through the store itself."""
    raised = StoreUnavailable()

    assert not isinstance(raised, LookupFailure)
    assert repr(raised) == "StoreUnavailable('the store cannot be reached')"


def test_reasons_have_the_values_of_the_api() -> None:
    """They never change once released."""
    values = {reason.value for reason in Reason}

    assert values == {"consent_required", "blocked", "not_found", "unavailable"}


def test_profile_has_every_documented_field() -> None:
    """Beside them: the person's id, and the moment its picture expires."""
    names = [field.name for field in fields(Profile)]

    assert names == ["igsid", *FIELDS, "picture_expires_at"]


def test_entries_with_equal_outcomes_are_equal() -> None:
    """Outcomes are values: only their content counts."""
    one, other = an_entry(a_profile()), an_entry(a_profile())

    assert one == other
    assert hash(one) == hash(other)


def test_repr_of_a_refusal_has_its_codes_and_no_message() -> None:
    """It has no field in which Meta's words could be kept."""
    refusal = Refusal(Igsid(ADA), Reason.CONSENT_REQUIRED, GraphError(230, None, "Ab"))

    assert repr(refusal) == (
        "Refusal(igsid='1254001234567890',"
        " reason=<Reason.CONSENT_REQUIRED: 'consent_required'>,"
        " said=GraphError(code=230, subcode=None, fbtrace_id='Ab'))"
    )
