"""A fact about a person: a profile, or Meta's refusal to show one."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import NewType

Igsid = NewType("Igsid", str)
"""An Instagram-scoped id: 5 to 25 ASCII digits. Never an ``int`` on the way: 17
digits do not fit a float, which is what JSON readers elsewhere make of it."""

IGSID = re.compile(r"[0-9]{5,25}", re.ASCII)
"""The pattern that a whole Igsid must match."""

DEFAULT_PAGE = "default"
"""The name of the Page of PROXY_PAGE_TOKEN, for requests that name no Page."""


@dataclass(frozen=True, slots=True)
class Profile:
    """A person who has written to the Page, as Meta describes them.

    ``None`` means that Meta did not say, which is not the same as "no".
    ``picture_expires_at`` is in epoch seconds, UTC; ``None`` if there is no picture
    or its link has no expiry.

    Source: https://developers.facebook.com/docs/messenger-platform/instagram/features/user-profile
    """

    igsid: Igsid
    name: str | None
    username: str | None
    profile_pic: str | None
    is_verified_user: bool | None
    follower_count: int | None
    is_user_follow_business: bool | None
    is_business_follow_user: bool | None
    picture_expires_at: float | None


FIELDS = tuple(
    field.name
    for field in fields(Profile)
    if field.name not in ("igsid", "picture_expires_at")
)
"""The fields of a person that Meta documents, by Meta's names, in the order we show.

Source: https://developers.facebook.com/docs/messenger-platform/instagram/features/user-profile
"""


@dataclass(frozen=True, slots=True)
class GraphError:
    """Meta's error in place of an answer: its codes, never its message.

    Messages have been seen carrying ids and tokens. *fbtrace_id* is what Meta's
    support asks for.

    Source: https://developers.facebook.com/docs/graph-api/guides/error-handling
    """

    code: int | None = None
    subcode: int | None = None
    fbtrace_id: str | None = None


class Reason(StrEnum):
    """Why Meta refuses to describe a person. The values are part of our API."""

    CONSENT_REQUIRED = "consent_required"
    BLOCKED = "blocked"
    NOT_FOUND = "not_found"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Meta's answer that it will not describe this person, kept as a fact."""

    igsid: Igsid
    reason: Reason
    said: GraphError


Outcome = Profile | Refusal
"""A fact about a person. Facts are cached; failures never are."""
