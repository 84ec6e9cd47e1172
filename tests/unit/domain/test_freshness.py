"""How long an outcome may be kept and served."""

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.domain.backoff import FIRST_POSTPONEMENT, LONGEST_POSTPONEMENT, postpone
from proxy.domain.entry import Entry, ExpiryReason, Freshness
from proxy.domain.freshness import (
    Lifetimes,
    bounded_by,
    merge,
    shorten_after_message,
    shorten_for_newer_token,
    stamp,
)
from proxy.domain.profile import GraphError, Outcome, Profile, Reason, Refusal
from tests.helpers.builders import (
    DAY,
    HOUR,
    LIFETIMES,
    MINUTE,
    NOW,
    a_profile,
    a_refusal,
    an_entry,
)

YEAR = 365 * DAY

FACELESS = a_profile(profile_pic=None, picture_expires_at=None)


def with_picture_for(seconds: float) -> Profile:
    return a_profile(picture_expires_at=NOW + seconds)


def stamped(
    outcome: Outcome, lifetimes: Lifetimes = LIFETIMES, jitter: float = 0.0
) -> Entry:
    return stamp(outcome, NOW, lifetimes, jitter)


def bounds(entry: Entry) -> tuple[float, float]:
    """For how many seconds *entry* is fresh, and for how many it is usable."""
    return entry.fresh_until - NOW, entry.usable_until - NOW


# The rules, one by one.


def test_profile_is_fresh_for_its_ttl_then_stale_for_the_grace() -> None:
    """A picture that lives for days bounds neither."""
    profile = with_picture_for(4 * DAY)

    entry = stamped(profile)

    assert bounds(entry) == (HOUR, 25 * HOUR)


def test_profile_expires_before_its_picture() -> None:
    """The picture's expiry, less the margin, beats a longer grace."""
    profile = with_picture_for(3 * HOUR)

    entry = stamped(profile)

    assert entry.freshness(NOW + 2 * HOUR - 1) is Freshness.STALE
    assert entry.freshness(NOW + 2 * HOUR) is Freshness.EXPIRED


def test_profile_is_fresh_no_longer_than_its_picture_allows() -> None:
    """The picture's expiry, less the margin, beats a longer TTL too."""
    profile = with_picture_for(1.5 * HOUR)

    entry = stamped(profile)

    assert bounds(entry) == (HOUR / 2, HOUR / 2)


def test_profile_without_a_picture_is_bounded_by_its_own_ttls() -> None:
    """It has no picture that could expire."""
    entry = stamped(FACELESS)

    assert bounds(entry) == (HOUR, 25 * HOUR)


def test_picture_without_an_expiry_is_assumed_to_live_for_a_day() -> None:
    """The margin is kept from the assumed end, as from a known one."""
    profile = a_profile(picture_expires_at=None)

    entry = stamped(profile)

    assert bounds(entry) == (HOUR, 23 * HOUR)


def test_assumed_picture_expiry_is_not_written_into_the_profile() -> None:
    """The profile is kept as Meta described it."""
    profile = a_profile(picture_expires_at=None)

    entry = stamped(profile)

    assert entry.outcome == profile


@pytest.mark.parametrize(
    ("life", "used_for"),
    [
        (HOUR, 5 * MINUTE),
        (30 * MINUTE, 5 * MINUTE),
        (10 * MINUTE, 5 * MINUTE),
        (4 * MINUTE, 2 * MINUTE),
        (2.0, 1.0),
    ],
)
def test_profile_is_used_for_minutes_in_its_pictures_last_hour(
    life: float, used_for: float
) -> None:
    """Five of them or half of what is left, and never stale.

    Meta hands out the same link until it dies, so storing nothing would leave
    the last hour uncached.
    """
    profile = with_picture_for(life)

    entry = stamped(profile)

    assert bounds(entry) == (used_for, used_for)


@pytest.mark.parametrize("left", [1.0, 299.0])
def test_profile_just_outside_the_margin_is_used_as_long_as_inside(
    left: float,
) -> None:
    """A few seconds before the margin are no reason to ask every second."""
    profile = with_picture_for(HOUR + left)

    entry = stamped(profile)

    assert bounds(entry) == (5 * MINUTE, 5 * MINUTE)


def test_profile_well_outside_the_margin_is_used_until_the_margin() -> None:
    """From five minutes on, the time before the margin is the longer one."""
    profile = with_picture_for(HOUR + 301.0)

    entry = stamped(profile)

    assert bounds(entry) == (301.0, 301.0)


def test_short_ttl_holds_in_a_pictures_last_hour_too() -> None:
    """An operator who wants profiles of a minute gets no older ones."""
    profile = with_picture_for(30 * MINUTE)

    entry = stamped(profile, replace(LIFETIMES, profile_ttl=MINUTE))

    assert bounds(entry) == (MINUTE, MINUTE)


def test_short_ttl_keeps_its_grace_while_the_picture_lives() -> None:
    """TTL and grace below five minutes are no sign of a picture's last hour."""
    profile = with_picture_for(4 * DAY)
    lifetimes = replace(LIFETIMES, profile_ttl=100.0, stale_grace=100.0)

    entry = stamped(profile, lifetimes)

    assert bounds(entry) == (100.0, 200.0)


def test_profile_lives_as_long_as_its_picture_without_a_margin() -> None:
    """PICTURE_MARGIN may be zero; the picture's end is still the end."""
    profile = with_picture_for(2 * HOUR)

    entry = stamped(profile, replace(LIFETIMES, picture_margin=0.0))

    assert bounds(entry) == (HOUR, 2 * HOUR)


def test_profile_is_never_stale_without_a_grace() -> None:
    """STALE_GRACE may be zero."""
    entry = stamped(a_profile(), replace(LIFETIMES, stale_grace=0.0))

    assert bounds(entry) == (HOUR, HOUR)


@pytest.mark.parametrize("life", [-4 * DAY, -1.0, 0.0, 1.9])
def test_picture_dead_on_arrival_is_left_out(life: float) -> None:
    """No client could load it; the rest of the profile is valid."""
    profile = with_picture_for(life)

    entry = stamped(profile)

    assert entry.outcome == replace(profile, profile_pic=None, picture_expires_at=None)


def test_profile_with_a_dead_picture_is_kept_for_five_minutes() -> None:
    """Then Meta may have a new link. It is not stale meanwhile."""
    entry = stamped(with_picture_for(-1.0))

    assert bounds(entry) == (5 * MINUTE, 5 * MINUTE)


@pytest.mark.parametrize("reason", Reason)
def test_refusal_is_kept_for_its_reasons_ttl_and_never_stale(
    reason: Reason,
) -> None:
    """Once it may have changed we ask again. Every reason has a TTL."""
    entry = stamped(a_refusal(reason=reason))

    assert bounds(entry) == (LIFETIMES.refusal_ttl[reason],) * 2


def test_entry_has_the_moment_it_was_fetched() -> None:
    """Age is counted from there."""
    entry = stamped(a_profile())

    assert entry.fetched_at == NOW


@pytest.mark.parametrize(
    ("outcome", "without", "with_half"),
    [
        (a_profile(), (HOUR, 25 * HOUR), (0.95 * HOUR, 24.95 * HOUR)),
        (FACELESS, (HOUR, 25 * HOUR), (0.95 * HOUR, 24.95 * HOUR)),
        (a_refusal(), (900.0, 900.0), (855.0, 855.0)),
        (with_picture_for(HOUR / 2), (300.0, 300.0), (285.0, 285.0)),
        (with_picture_for(-1.0), (300.0, 300.0), (285.0, 285.0)),
    ],
    ids=["profile", "faceless", "refusal", "last hour", "dead on arrival"],
)
def test_jitter_shortens_every_ttl_by_up_to_a_tenth(
    outcome: Outcome, without: tuple[float, float], with_half: tuple[float, float]
) -> None:
    """Entries fetched together then do not expire together."""
    plain, jittered = stamped(outcome), stamped(outcome, jitter=0.5)

    assert bounds(plain) == without
    assert bounds(jittered) == pytest.approx(with_half)


def test_jitter_does_not_move_the_end_of_a_picture() -> None:
    """That end is a fact, and different for each picture anyway."""
    profile = with_picture_for(3 * HOUR)

    entry = stamped(profile, jitter=0.99)

    assert entry.usable_until == NOW + 2 * HOUR


# Properties that hold whatever Meta sends and whatever the settings allow.

jitters = st.floats(0.0, 1.0, exclude_max=True)
ttls = st.floats(1.0, YEAR)
lifetimes_allowed = st.builds(
    Lifetimes,
    profile_ttl=ttls | st.floats(1.0, 600.0),
    stale_grace=st.floats(0.0, YEAR) | st.floats(0.0, 600.0),
    picture_margin=st.floats(0.0, 7 * DAY),
    picture_ttl_assumed=st.floats(60.0, 30 * DAY),
    refusal_ttl=st.fixed_dictionaries(dict.fromkeys(Reason, ttls)),
)
expiries = st.one_of(
    st.none(),
    st.just(0.0),
    st.just(float(0xFFFFFFFF)),
    st.just(9_999_999_999.0),
    st.integers(0, 9_999_999_999).map(float),
    st.floats(-10.0, 2 * HOUR).map(lambda life: NOW + life),
    st.floats(-DAY, 14 * DAY).map(lambda life: NOW + life),
)
pictured = st.builds(lambda expiry: a_profile(picture_expires_at=expiry), expiries)
profiles = pictured | st.just(FACELESS)
refusals = st.sampled_from(Reason).map(lambda reason: a_refusal(reason=reason))
outcomes = profiles | refusals

A_ROUNDING = 1e-5
"""Seconds. A float that holds a moment of today is good for a quarter of this."""


@given(pictured, lifetimes_allowed, jitters)
def test_entry_never_outlives_its_picture(
    profile: Profile, lifetimes: Lifetimes, jitter: float
) -> None:
    """Where the link has no expiry, the assumed life is the picture's."""
    entry = stamp(profile, NOW, lifetimes, jitter)

    assert isinstance(entry.outcome, Profile)
    if entry.outcome.profile_pic is not None:
        expiry = entry.outcome.picture_expires_at
        dies_at = NOW + lifetimes.picture_ttl_assumed if expiry is None else expiry
        assert entry.usable_until <= dies_at


@given(pictured, lifetimes_allowed, jitters)
def test_entry_never_holds_a_picture_that_is_already_dead(
    profile: Profile, lifetimes: Lifetimes, jitter: float
) -> None:
    """A link in an entry has time left to be loaded."""
    entry = stamp(profile, NOW, lifetimes, jitter)

    assert isinstance(entry.outcome, Profile)
    assert entry.outcome.profile_pic is None or (
        entry.outcome.picture_expires_at is None
        or entry.outcome.picture_expires_at > NOW
    )


@given(outcomes, lifetimes_allowed, jitters)
def test_ttl_is_never_zero_or_negative(
    outcome: Outcome, lifetimes: Lifetimes, jitter: float
) -> None:
    """Redis reads zero as an error and Flask-Caching as "for ever"."""
    entry = stamp(outcome, NOW, lifetimes, jitter)

    assert min(bounds(entry)) >= 0.5


@given(outcomes, lifetimes_allowed, jitters)
def test_entry_is_never_fresh_longer_than_usable(
    outcome: Outcome, lifetimes: Lifetimes, jitter: float
) -> None:
    """Fresh, then perhaps stale, then expired: in this order only."""
    entry = stamp(outcome, NOW, lifetimes, jitter)

    assert entry.fresh_until <= entry.usable_until


@given(refusals, lifetimes_allowed, jitters)
def test_refusal_never_has_a_stale_phase(
    refusal: Outcome, lifetimes: Lifetimes, jitter: float
) -> None:
    """Consent can be given at any moment."""
    entry = stamp(refusal, NOW, lifetimes, jitter)

    assert entry.fresh_until == entry.usable_until


@given(profiles, lifetimes_allowed, jitters)
def test_picture_never_lengthens_a_profiles_life(
    profile: Profile, lifetimes: Lifetimes, jitter: float
) -> None:
    """It bounds the TTLs of the operator; only a dead one has its own five minutes."""
    entry = stamp(profile, NOW, lifetimes, jitter)

    faceless = stamp(FACELESS, NOW, lifetimes, jitter)
    if isinstance(entry.outcome, Profile) and entry.outcome.profile_pic is not None:
        assert entry.fresh_until <= faceless.fresh_until
        assert entry.usable_until <= faceless.usable_until


@given(lifetimes_allowed, jitters)
@example(replace(LIFETIMES, profile_ttl=60.0, stale_grace=60.0), 0.0)
def test_picture_that_outlives_the_entry_does_not_bound_it(
    lifetimes: Lifetimes, jitter: float
) -> None:
    """A profile with such a picture is kept as one without any."""
    life = lifetimes.profile_ttl + lifetimes.stale_grace + lifetimes.picture_margin
    profile = with_picture_for(life + HOUR)

    entry = stamp(profile, NOW, lifetimes, jitter)

    assert bounds(entry) == bounds(stamp(FACELESS, NOW, lifetimes, jitter))


@given(outcomes, lifetimes_allowed, jitters)
def test_jitter_only_shortens_freshness_and_by_a_tenth_at_most(
    outcome: Outcome, lifetimes: Lifetimes, jitter: float
) -> None:
    """Whichever rule decides, with jitter and without."""
    plain, _ = bounds(stamp(outcome, NOW, lifetimes, 0.0))

    jittered, _ = bounds(stamp(outcome, NOW, lifetimes, jitter))

    assert 0.9 * plain - A_ROUNDING <= jittered <= plain


@given(outcomes, lifetimes_allowed, jitters)
@example(
    with_picture_for(4 * DAY),
    replace(LIFETIMES, profile_ttl=100.0, stale_grace=190.0),
    0.9,
)
@example(with_picture_for(HOUR + 280.0), replace(LIFETIMES, profile_ttl=100.0), 0.9)
def test_jitter_only_shortens_use_and_by_a_tenth_at_most(
    outcome: Outcome, lifetimes: Lifetimes, jitter: float
) -> None:
    """It must not give a stale phase to an entry that has none without it."""
    _, plain = bounds(stamp(outcome, NOW, lifetimes, 0.0))

    _, jittered = bounds(stamp(outcome, NOW, lifetimes, jitter))

    assert 0.9 * plain - A_ROUNDING <= jittered <= plain


# Entries whose refresh returned little, or failed.


def vague(now: float = NOW) -> Entry:
    return stamp(a_refusal(reason=Reason.UNAVAILABLE), now, LIFETIMES, 0.0)


@pytest.mark.parametrize("at", [NOW, NOW + 1.5 * HOUR])
def test_unavailable_delays_the_refresh_of_a_usable_profile(at: float) -> None:
    """Fresh or stale; only Meta's error is added to the profile's entry."""
    previous, learned = an_entry(), vague(at)

    kept = merge(previous, learned, at)

    said = learned.outcome.said
    assert kept == replace(previous, refresh_after=at + 10 * MINUTE, last_said=said)


@pytest.mark.parametrize(
    "previous",
    [None, an_entry(a_refusal()), an_entry(fresh_until=NOW, usable_until=NOW)],
    ids=["nothing", "a refusal", "a profile that has ended"],
)
def test_unavailable_is_kept_if_there_is_no_usable_profile(previous) -> None:
    """There is no better outcome to answer."""
    assert merge(previous, vague(), NOW) == vague()


@pytest.mark.parametrize(
    "outcome",
    [a_profile(name="After"), *(a_refusal(reason=r) for r in list(Reason)[:3])],
)
def test_any_other_outcome_replaces_the_previous_one(outcome: Outcome) -> None:
    """A plain statement of Meta's is believed."""
    learned = stamped(outcome)

    assert merge(an_entry(), learned, NOW) == learned


@given(st.integers(0, 10_000), st.none() | st.floats(0, 1e9))
def test_postponement_is_bounded_and_changes_no_other_bound(
    failures: int, wait: float | None
) -> None:
    """However many refreshes have failed, and whatever wait a gate reports."""
    previous = an_entry(failed_refreshes=failures)

    later = postpone(previous, NOW, wait)

    assert 1.0 <= later.refresh_after - NOW <= LONGEST_POSTPONEMENT
    assert later.failed_refreshes == failures + (wait is None)
    assert replace(later, refresh_after=0.0, failed_refreshes=failures) == previous


def test_failed_refresh_keeps_metas_last_error() -> None:
    """From the last call to Meta; a refresh that was held back changes nothing."""
    said = GraphError(190, 463)
    failed = postpone(an_entry(), NOW, None, said)
    held_back = postpone(failed, NOW, 5.0)
    about_us = postpone(failed, NOW, 5.0, GraphError(4))

    assert (failed.last_said, held_back.last_said) == (said, said)
    assert about_us.last_said == GraphError(4)
    assert about_us.failed_refreshes == failed.failed_refreshes


@pytest.mark.parametrize(
    ("entry", "rules"),
    [
        (stamped(FACELESS), ("profile_ttl", "stale_grace")),
        (stamped(with_picture_for(4 * DAY)), ("profile_ttl", "stale_grace")),
        (stamped(with_picture_for(3 * HOUR)), ("profile_ttl", "picture_margin")),
        (
            stamped(with_picture_for(1.5 * HOUR)),
            ("picture_margin", "picture_margin"),
        ),
        (
            stamped(a_profile(picture_expires_at=None)),
            ("profile_ttl", "picture_ttl_assumed"),
        ),
        (stamped(with_picture_for(HOUR / 2)), ("picture_last_hour",) * 2),
        (stamped(with_picture_for(-1.0)), ("picture_dead",) * 2),
        (
            replace(stamped(a_refusal()), expiry_reason=ExpiryReason.NEWER_TOKEN),
            ("newer_token",) * 2,
        ),
    ],
)
def test_bounded_by_names_the_rule_behind_each_bound(entry, rules) -> None:
    """Otherwise an operator would have to guess why Meta was asked so soon."""
    assert bounded_by(entry) == rules


@pytest.mark.parametrize("reason", Reason)
def test_refusal_is_bounded_by_the_setting_of_its_reason(reason: Reason) -> None:
    """By the name it has in the settings."""
    entry = stamped(a_refusal(reason=reason))

    assert bounded_by(entry) == (f"{reason}_ttl".replace("_required", ""),) * 2


@given(outcomes, lifetimes_allowed, jitters)
def test_entry_has_an_expiry_reason_only_if_a_rule_ends_it_early(
    outcome: Outcome, lifetimes: Lifetimes, jitter: float
) -> None:
    """Without one, its times are those of the settings."""
    entry = stamp(outcome, NOW, lifetimes, jitter)
    if isinstance(outcome, Refusal):
        assert entry.expiry_reason is None
        return
    uncut = stamp(replace(outcome, profile_pic=None), NOW, lifetimes, jitter)

    ends_early = entry.usable_until < uncut.usable_until
    is_last_hour = entry.expiry_reason in (
        ExpiryReason.PICTURE_LAST_HOUR,
        ExpiryReason.PICTURE_DEAD,
    )
    assert ends_early is (entry.expiry_reason is not None) or is_last_hour


def test_each_failure_in_a_row_doubles_the_pause() -> None:
    """Up to the longest pause."""
    entry, pauses = an_entry(), []
    for _ in range(8):
        entry = postpone(entry, NOW, None)
        pauses.append(entry.refresh_after - NOW)

    assert pauses == [10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 600.0, 600.0]
    assert pauses[0] == FIRST_POSTPONEMENT


def test_consent_required_is_kept_briefly_after_a_message() -> None:
    """Meta is asked again soon, by the entry's own bounds."""
    learned = stamped(a_refusal())

    shortened = shorten_after_message(learned)

    assert shortened.freshness(NOW + 4.9) is Freshness.FRESH
    assert shortened.freshness(NOW + 5.0) is Freshness.EXPIRED
    assert shortened.outcome == learned.outcome


@pytest.mark.parametrize(
    "outcome",
    [
        a_profile(),
        *(a_refusal(reason=r) for r in sorted(set(Reason) - {Reason.CONSENT_REQUIRED})),
    ],
    ids=str,
)
def test_other_outcomes_are_kept_in_full_after_a_message(outcome: Outcome) -> None:
    """A message does not change them."""
    learned = stamped(outcome)

    assert shorten_after_message(learned) == learned


def test_message_never_lengthens_an_entrys_life() -> None:
    """Where the operator keeps it for less anyway."""
    brief = an_entry(a_refusal(), fresh_until=NOW + 2, usable_until=NOW + 2)

    assert shorten_after_message(brief) == brief


@pytest.mark.parametrize("reason", [Reason.NOT_FOUND, Reason.UNAVAILABLE])
def test_refusal_that_depends_on_a_token_is_kept_for_a_second(reason: Reason) -> None:
    """A newer token is known already, which might not have met it."""
    learned = stamped(a_refusal(reason=reason))

    kept = shorten_for_newer_token(learned)

    assert bounds(kept) == (1.0, 1.0)
    assert kept.expiry_reason is ExpiryReason.NEWER_TOKEN


@pytest.mark.parametrize(
    "outcome",
    [
        a_profile(),
        a_refusal(reason=Reason.CONSENT_REQUIRED),
        a_refusal(reason=Reason.BLOCKED),
    ],
    ids=["profile", "consent_required", "blocked"],
)
def test_other_outcomes_do_not_depend_on_a_token(outcome: Outcome) -> None:
    """They are kept in full, whichever token was used."""
    learned = stamped(outcome)

    assert shorten_for_newer_token(learned) == learned
