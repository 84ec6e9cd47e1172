"""What a lookup can end in: a fact about a person, or a failure of ours or Meta's."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import NamedTuple, NewType

Igsid = NewType("Igsid", str)
"""An Instagram-scoped id: 5 to 25 ASCII digits. Never an ``int`` on the way: 17
digits do not fit a float, which is what JSON readers elsewhere make of it."""

IGSID = re.compile(r"[0-9]{5,25}", re.ASCII)
"""What all of an Igsid must match."""

DEFAULT_PAGE = "default"
"""The name of the Page that is meant where none is named: PROXY_PAGE_TOKEN's."""

FIELDS = (
    "name",
    "username",
    "profile_pic",
    "is_verified_user",
    "follower_count",
    "is_user_follow_business",
    "is_business_follow_user",
)
"""What Meta documents of a person, under Meta's names, in the order we show it.

Source: https://developers.facebook.com/docs/messenger-platform/instagram/features/user-profile
"""


@dataclass(frozen=True, slots=True)
class Profile:
    """A person who has written to the Page, as Meta describes them.

    ``None`` means that Meta did not say, which is not the same as "no".
    ``picture_expires_at`` is in epoch seconds, UTC; ``None`` when there is no
    picture or its link does not tell.

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


@dataclass(frozen=True, slots=True)
class GraphError:
    """What Meta said when it did not answer: its codes, never its message.

    Messages have been seen carrying ids and tokens. *fbtrace_id* is what Meta's
    support asks for.

    Source: https://developers.facebook.com/docs/graph-api/guides/error-handling
    """

    code: int | None = None
    subcode: int | None = None
    fbtrace_id: str | None = None


class Reason(StrEnum):
    """Why Meta tells nothing about a person. The values are part of our API."""

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


class Freshness(Enum):
    """What may be done with an entry now (RFC 9111 §4.2, RFC 5861 §3)."""

    FRESH = auto()
    STALE = auto()
    EXPIRED = auto()


class Cut(StrEnum):
    """What ends an entry before its own times are over. Part of our API."""

    PICTURE_MARGIN = "picture_margin"
    PICTURE_TTL_ASSUMED = "picture_ttl_assumed"
    PICTURE_LAST_HOUR = "picture_last_hour"
    PICTURE_DEAD = "picture_dead"
    NEWER_TOKEN = "newer_token"
    WRITTEN_LATELY = "written_lately"


@dataclass(frozen=True, slots=True)
class StoredOutcome:
    """An entry: an outcome and the moments that bound its use, in epoch seconds.

    *refresh_after* is when a stale entry may be refreshed next, and
    *failed_refreshes* how often in a row that has failed; *last_said* is what Meta
    said when it last told nothing new. *cut_by* is None where no more than the
    operator's own times bound the entry.
    """

    outcome: Outcome
    fetched_at: float
    fresh_until: float
    usable_until: float
    refresh_after: float = 0.0
    failed_refreshes: int = 0
    cut_by: Cut | None = None
    last_said: GraphError | None = None

    def freshness(self, now: float) -> Freshness:
        """Use it, use it and refresh, or do not use it."""
        if now < self.fresh_until:
            return Freshness.FRESH
        if now < self.usable_until:
            return Freshness.STALE
        return Freshness.EXPIRED


class Source(Enum):
    """How an answer came about (RFC 9211)."""

    HIT = auto()
    FETCHED = auto()
    COLLAPSED = auto()
    STALE = auto()
    """What was known before, because the caller's wish for something newer failed."""


@dataclass(frozen=True, slots=True)
class Directives:
    """What a caller asks of the cache (RFC 9111 §5.2.1); *max_age* is in seconds."""

    no_cache: bool = False
    max_age: float | None = None
    only_if_cached: bool = False

    def allow(self, entry: StoredOutcome, now: float) -> bool:
        """Whether the caller would have *entry*, as far as its age goes."""
        if self.no_cache:
            return False
        return self.max_age is None or now - entry.fetched_at <= self.max_age


NO_DIRECTIVES = Directives()


class LookupFailure(Exception):
    """We could not learn a fact just now. Never stored against a person.

    *said* is what Meta said, where it said something; *retry_after* is in
    seconds, where waiting may help. *asked* is False where Meta was not asked
    at all: a gate was closed, or a limit of ours was reached.
    """

    what = "the lookup failed"
    asked = True
    is_shared = True
    """Whether it is the answer of all who wait for the same fetch."""

    def __init__(
        self,
        said: GraphError | None = None,
        retry_after: float | None = None,
        *,
        asked: bool | None = None,
    ) -> None:
        super().__init__(self.what)
        self.said = said
        self.retry_after = retry_after
        if asked is not None:
            self.asked = asked


class TokenRejected(LookupFailure):
    """Meta does not accept the Page token: it is dead, or not a Page token."""

    what = "Meta does not accept the Page token"


class PermissionMissing(LookupFailure):
    """The app or the Page may not make this call, whoever it is about."""

    what = "the app lacks a permission or a setting that this call needs"


class Throttled(LookupFailure):
    """Meta asked us to wait, or would have, so it was not asked."""

    what = "Meta asked us to wait"


class GraphTimeout(LookupFailure):
    """Nobody learned an answer from Meta within the deadline."""

    what = "Meta did not answer in time"


class GraphUnavailable(LookupFailure):
    """Meta answered, if at all, with something that is no answer."""

    what = "Meta could not be reached or did not make sense"


class Overloaded(LookupFailure):
    """A limit on what this process does at once is reached. Never shared."""

    what = "this process does as much at once as it may"
    asked = False
    is_shared = False


class TooManyMisses(LookupFailure):
    """The caller's own allowance of calls to Meta is spent. Never shared.

    ``retry_after`` is when it begins anew.
    """

    what = "this API key has caused as many calls to Meta as it may in a minute"
    asked = False
    is_shared = False


class NotCached(LookupFailure):
    """The caller wanted what is stored or nothing, and nothing is. Never shared."""

    what = "nothing is stored that may be answered, and nothing else was wanted"
    asked = False
    is_shared = False


class Cause(StrEnum):
    """Why the gate to Meta is closed. The values are part of our API."""

    THROTTLED = "throttled"
    TOKEN_REJECTED = "token_rejected"
    PERMISSION = "permission"
    UNAVAILABLE = "unavailable"


CAUSES: dict[type[LookupFailure], Cause] = {
    Throttled: Cause.THROTTLED,
    TokenRejected: Cause.TOKEN_REJECTED,
    PermissionMissing: Cause.PERMISSION,
    GraphTimeout: Cause.UNAVAILABLE,
    GraphUnavailable: Cause.UNAVAILABLE,
}
"""The failures that say something of Meta, or of us as Meta sees us, and what they
count towards. The others are about one process or one caller."""


@dataclass(frozen=True, slots=True)
class Told:
    """What came of asking Meta about a person once.

    *usage_percent* is how much of our quota Meta says is used, None where it
    does not say; *token_digest* tells which Page token was used, and not what
    it is. *graph_version* is the version that answered, such as ``v25.0``.
    """

    outcome: Outcome | LookupFailure
    usage_percent: float | None
    token_digest: str
    graph_version: str | None = None


class UpdateKind(StrEnum):
    """What an update of a webhook tells of. The values are labels of a metric."""

    MESSAGE = "message"
    POSTBACK = "postback"
    ECHO = "echo"
    DELETED = "deleted"
    SEEN = "seen"
    REACTION = "reaction"
    EDIT = "edit"
    REFERRAL = "referral"
    CHANGE = "change"
    OTHER = "other"


class UpdateResult(StrEnum):
    """What is made of an update. The values are labels of a metric."""

    WRITTEN = "written"
    IGNORED = "ignored"
    UNREADABLE = "unreadable"
    NO_PAGE = "no_page"


class Update(NamedTuple):
    """One update of a webhook; *writer* is who has written, if that is what it says.

    To the business with that *account*, by whichever of its ids.
    """

    kind: UpdateKind
    result: UpdateResult
    writer: Igsid | None = None
    account: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """An entry and how it came about.

    *stored* is False where the entry could not be kept, so that the next caller
    will not find it. *is_forced* is True where a usable entry was stored and the
    caller wanted a newer one; *failure* is why there is none, with Source.STALE.
    """

    entry: StoredOutcome
    source: Source
    stored: bool = True
    is_forced: bool = False
    failure: LookupFailure | None = None


class StoreUnavailable(Exception):
    """The store cannot be reached, so a promise about what it holds cannot be kept."""

    retry_after = 1.0

    def __init__(self) -> None:
        super().__init__("the store cannot be reached")
