"""How long an outcome may be kept and served; pure functions of (outcome, now)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from proxy.domain.entry import Entry, ExpiryReason, Freshness
from proxy.domain.profile import Outcome, Profile, Reason, Refusal

JITTER = 0.1
"""TTLs are shortened by up to this share, so that entries that were fetched together do
not expire together."""

LAST_HOUR_TTL = 300.0
"""Seconds for which a picture in its last hour, or a profile with a dead picture, is
used. Meta hands out the same link until it dies, so asking more often is useless."""

SHORTEST_PICTURE = 2.0
"""A link with fewer seconds to live than this is dead before a client has loaded it."""

CONSENT_LAGS_FOR = 5.0
"""Seconds for which ``consent_required`` is kept of a person who has just written: it
is not known whether Meta shows consent as soon as it sends the message's webhook."""

DOUBTED_TTL = 5.0
"""Seconds for which a 100/33 is kept until the witnesses have been asked."""

NEWER_TOKEN_TTL = 1.0
"""Seconds for which a refusal is kept that a newer token might not have met."""

REFUSAL_RULES: Mapping[Reason, str] = {
    Reason.CONSENT_REQUIRED: "consent_ttl",
    Reason.BLOCKED: "blocked_ttl",
    Reason.NOT_FOUND: "not_found_ttl",
    Reason.UNAVAILABLE: "unavailable_ttl",
}
"""Every reason, and the setting that bounds it."""


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """The operator's durations, in seconds."""

    profile_ttl: float
    stale_grace: float
    picture_margin: float
    picture_ttl_assumed: float
    refusal_ttl: Mapping[Reason, float]


def stamp(outcome: Outcome, now: float, lifetimes: Lifetimes, jitter: float) -> Entry:
    """Decide until when *outcome* is fresh, and until when it is usable.

    *jitter* is drawn from [0, 1) by the caller. A refusal has no stale phase:
    once it may have changed, we ask again. A profile never outlives its
    picture, however long the TTL; one whose picture is dead on arrival is kept
    without it.
    """
    keep = 1.0 - JITTER * jitter
    match outcome:
        case Refusal(reason=reason):
            until = now + lifetimes.refusal_ttl[reason] * keep
            return Entry(outcome, now, until, until)
        case Profile(profile_pic=None):
            fresh_until = now + lifetimes.profile_ttl * keep
            return Entry(outcome, now, fresh_until, fresh_until + lifetimes.stale_grace)
        case Profile():
            return _stamp_with_picture(outcome, now, lifetimes, keep)


def _stamp_with_picture(
    profile: Profile, now: float, lifetimes: Lifetimes, keep: float
) -> Entry:
    expiry = profile.picture_expires_at
    if expiry is None:
        expiry = now + lifetimes.picture_ttl_assumed
    life = expiry - now
    if life < SHORTEST_PICTURE:
        faceless = replace(profile, profile_pic=None, picture_expires_at=None)
        until = now + LAST_HOUR_TTL * keep
        return Entry(
            faceless, now, until, until, expiry_reason=ExpiryReason.PICTURE_DEAD
        )

    fresh_until = now + lifetimes.profile_ttl * keep
    # Just outside the margin, what is left before it may be less than what the
    # last hour itself grants, so the longer of the two counts.
    last_hour = min(LAST_HOUR_TTL, life / 2)
    if life - lifetimes.picture_margin < last_hour:
        until = min(fresh_until, now + last_hour * keep)
        return Entry(
            profile, now, until, until, expiry_reason=ExpiryReason.PICTURE_LAST_HOUR
        )
    stale_until, margin = (
        fresh_until + lifetimes.stale_grace,
        expiry - lifetimes.picture_margin,
    )
    if stale_until <= margin:
        return Entry(profile, now, fresh_until, stale_until)
    is_known = profile.picture_expires_at is not None
    expiry_reason = (
        ExpiryReason.PICTURE_MARGIN if is_known else ExpiryReason.PICTURE_TTL_ASSUMED
    )
    return Entry(
        profile, now, min(fresh_until, margin), margin, expiry_reason=expiry_reason
    )


def bounded_by(entry: Entry) -> tuple[str, str]:
    """Name the rules behind ``fresh_until`` and ``usable_until`` of *entry*.

    A setting by its name, any other rule by its ExpiryReason.
    """
    match entry.outcome:
        case Refusal(reason=reason):
            rule = entry.expiry_reason or REFUSAL_RULES[reason]
            return rule, rule
        case Profile():
            usable = entry.expiry_reason or "stale_grace"
            is_cut = entry.expiry_reason and entry.fresh_until == entry.usable_until
            return usable if is_cut else "profile_ttl", usable


def merge(previous: Entry | None, learned: Entry, now: float) -> Entry:
    """Decide what to keep of the *previous* entry and the one just *learned*.

    ``unavailable`` may mean anything (100/33), so it never replaces a profile
    that may still be used: it only delays that profile's refresh.
    """
    if (
        isinstance(learned.outcome, Refusal)
        and learned.outcome.reason is Reason.UNAVAILABLE
        and previous is not None
        and isinstance(previous.outcome, Profile)
        and previous.freshness(now) is not Freshness.EXPIRED
    ):
        return replace(
            previous,
            refresh_after=learned.usable_until,
            last_said=learned.outcome.said,
        )
    return learned


def shorten_after_message(learned: Entry) -> Entry:
    """Decide what to keep of *learned*, if its person has written lately.

    Only consent comes with a message; other refusals stand.
    """
    outcome = learned.outcome
    if (
        not isinstance(outcome, Refusal)
        or outcome.reason is not Reason.CONSENT_REQUIRED
    ):
        return learned
    soon = learned.fetched_at + CONSENT_LAGS_FOR
    if learned.usable_until <= soon:
        return learned
    return replace(
        learned,
        fresh_until=soon,
        usable_until=soon,
        expiry_reason=ExpiryReason.WRITTEN_LATELY,
    )


def depends_on_token(outcome: Outcome) -> bool:
    """Whether *outcome* depends on what the Page token is allowed to see."""
    return isinstance(outcome, Refusal) and outcome.reason in (
        Reason.NOT_FOUND,
        Reason.UNAVAILABLE,
    )


def shorten_for_newer_token(learned: Entry) -> Entry:
    """Decide what to keep of *learned*, if a newer token than the one used is known."""
    if not depends_on_token(learned.outcome):
        return learned
    return _shorten(learned, NEWER_TOKEN_TTL, ExpiryReason.NEWER_TOKEN)


def shorten_in_doubt(learned: Entry) -> Entry:
    """Decide what to keep of *learned*, a 100/33, while a permission may be lost."""
    return _shorten(learned, DOUBTED_TTL, ExpiryReason.PERMISSION_DOUBTED)


def _shorten(learned: Entry, ttl: float, reason: ExpiryReason) -> Entry:
    soon = min(learned.usable_until, learned.fetched_at + ttl)
    return replace(learned, fresh_until=soon, usable_until=soon, expiry_reason=reason)
