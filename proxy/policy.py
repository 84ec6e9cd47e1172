"""How long an outcome may be kept and served; pure functions of (outcome, now)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from proxy.outcomes import Outcome, Profile, Reason, Refusal, StoredOutcome

JITTER = 0.1
"""TTLs are shortened by up to this share, so that what was fetched together does not
expire together."""

LAST_HOUR_TTL = 300.0
"""Seconds for which a picture in its last hour, or a profile whose picture has gone,
is used. Meta hands out the same link until it dies, so asking more often is in vain."""

SHORTEST_PICTURE = 2.0
"""A link with fewer seconds to live than this is dead before anybody has loaded it."""


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """The operator's durations, in seconds."""

    profile_ttl: float
    stale_grace: float
    picture_margin: float
    picture_ttl_assumed: float
    refusal_ttl: Mapping[Reason, float]


def stamp(
    outcome: Outcome, now: float, lifetimes: Lifetimes, jitter: float
) -> StoredOutcome:
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
            return StoredOutcome(outcome, now, until, until)
        case Profile(profile_pic=None):
            fresh_until = now + lifetimes.profile_ttl * keep
            return StoredOutcome(
                outcome, now, fresh_until, fresh_until + lifetimes.stale_grace
            )
        case Profile():
            return _stamp_with_picture(outcome, now, lifetimes, keep)


def _stamp_with_picture(
    profile: Profile, now: float, lifetimes: Lifetimes, keep: float
) -> StoredOutcome:
    expiry = profile.picture_expires_at
    if expiry is None:
        expiry = now + lifetimes.picture_ttl_assumed
    life = expiry - now
    if life < SHORTEST_PICTURE:
        faceless = replace(profile, profile_pic=None, picture_expires_at=None)
        until = now + LAST_HOUR_TTL * keep
        return StoredOutcome(faceless, now, until, until)

    fresh_until = now + lifetimes.profile_ttl * keep
    # Just outside the margin, what is left before it may be less than what the
    # last hour itself grants, so the longer of the two counts.
    last_hour = min(LAST_HOUR_TTL, life / 2)
    if life - lifetimes.picture_margin < last_hour:
        until = min(fresh_until, now + last_hour * keep)
        return StoredOutcome(profile, now, until, until)
    usable_until = min(
        fresh_until + lifetimes.stale_grace, expiry - lifetimes.picture_margin
    )
    return StoredOutcome(profile, now, min(fresh_until, usable_until), usable_until)
