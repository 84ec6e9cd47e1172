"""Valid objects for tests. A test overrides only the fields that matter to it."""

from dataclasses import replace
from typing import Any

from proxy.domain.entry import Entry
from proxy.domain.freshness import Lifetimes
from proxy.domain.profile import GraphError, Igsid, Outcome, Profile, Reason, Refusal
from proxy.storage.codec import StoredEntry, encode, read

NOW = 1_795_000_000.0
"""A moment in November 2026, in epoch seconds."""

MINUTE = 60.0
HOUR = 3600.0
DAY = 86400.0

ADA = Igsid("1254001234567890")

LIFETIMES = Lifetimes(
    profile_ttl=HOUR,
    stale_grace=24 * HOUR,
    picture_margin=HOUR,
    picture_ttl_assumed=24 * HOUR,
    refusal_ttl={
        Reason.CONSENT_REQUIRED: 15 * MINUTE,
        Reason.BLOCKED: 6 * HOUR,
        Reason.NOT_FOUND: 24 * HOUR,
        Reason.UNAVAILABLE: 10 * MINUTE,
    },
)
"""The default durations."""


def picture_url(expires_at: float) -> str:
    """Return a link like those of Meta's CDN, which dies at *expires_at*."""
    return f"https://scontent.cdninstagram.com/v/ada.jpg?oe={int(expires_at):X}"


def a_profile(**overrides: Any) -> Profile:
    """Return Ada, whose picture lives for four days, with *overrides*."""
    ada = Profile(
        igsid=ADA,
        name="Ada Lovelace",
        username="ada",
        profile_pic=picture_url(NOW + 4 * DAY),
        is_verified_user=False,
        follower_count=1815,
        is_user_follow_business=True,
        is_business_follow_user=False,
        picture_expires_at=NOW + 4 * DAY,
    )
    return replace(ada, **overrides)


def a_refusal(**overrides: Any) -> Refusal:
    """Return a refusal for lack of Ada's consent, with *overrides*."""
    said = GraphError(code=230, subcode=None, fbtrace_id="AaitxF/whwY")
    return replace(Refusal(ADA, Reason.CONSENT_REQUIRED, said), **overrides)


def an_entry(outcome: Outcome | None = None, **overrides: Any) -> Entry:
    """Return an entry fetched at NOW, fresh for an hour and stale for one more.

    *outcome* is Ada's profile by default.
    """
    entry = Entry(outcome or a_profile(), NOW, NOW + HOUR, NOW + 2 * HOUR)
    return replace(entry, **overrides)


def form_of(entry: Entry) -> StoredEntry:
    """Return *entry* as it is read from the store."""
    form = read(encode(entry))
    assert form is not None
    return form
