"""An entry: an outcome and the moments that bound its use."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum, auto

from proxy.domain.profile import GraphError, Outcome


class Freshness(Enum):
    """How an entry may be used now (RFC 9111 §4.2, RFC 5861 §3)."""

    FRESH = auto()
    STALE = auto()
    EXPIRED = auto()


class ExpiryReason(StrEnum):
    """Why an entry ends before its own times are over. Part of our API."""

    PICTURE_MARGIN = "picture_margin"
    PICTURE_TTL_ASSUMED = "picture_ttl_assumed"
    PICTURE_LAST_HOUR = "picture_last_hour"
    PICTURE_DEAD = "picture_dead"
    NEWER_TOKEN = "newer_token"
    WRITTEN_LATELY = "written_lately"
    PERMISSION_DOUBTED = "permission_doubted"


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry: an outcome and the moments that bound its use, in epoch seconds.

    *refresh_after* is when a stale entry may be refreshed next, and
    *failed_refreshes* how often in a row that has failed; *last_said* is Meta's error
    from the last refresh without a newer outcome. *expiry_reason* is None if only the
    operator's own times bound the entry.
    """

    outcome: Outcome
    fetched_at: float
    fresh_until: float
    usable_until: float
    refresh_after: float = 0.0
    failed_refreshes: int = 0
    expiry_reason: ExpiryReason | None = None
    last_said: GraphError | None = None

    def freshness(self, now: float) -> Freshness:
        """Whether to use the entry, to use and refresh it, or not to use it."""
        if now < self.fresh_until:
            return Freshness.FRESH
        if now < self.usable_until:
            return Freshness.STALE
        return Freshness.EXPIRED
