"""Responses that are built from stored entries once and sent many times."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import lru_cache

import msgspec

from proxy.domain.profile import FIELDS, Reason
from proxy.fast_path.page_links import WITH_INITIALS, TodaysLinks
from proxy.observability.metrics import PROFILE
from proxy.storage.codec import StoredEntry, read
from proxy.storage.near_cache import LocalEntry
from proxy.web import cache_headers, picture, representations, responses
from proxy.web.picture_link import LinkOf
from proxy.web.representations import Representation
from proxy.web.timestamps import format_timestamp

PICTURE = "picture"
"""The last segment of a picture's path."""


UNIQUE_HEADERS = frozenset({"ETag", "Location"})
"""Headers that differ between any two responses, so that interning saves nothing."""

MAX_INTERNED = 4096
"""The most headers, and the most metrics keys, that are remembered for sharing."""

NO_PICTURES: Mapping[str, CachedResponse] = {}

_FullProfile: Callable[..., msgspec.Struct] = msgspec.defstruct(
    "_FullProfile",
    [
        "id",
        *FIELDS,
        "fetched_at",
        "picture_expires_at",
        ("picture_link", str | msgspec.UnsetType, msgspec.UNSET),
    ],
)
"""The body of a profile with every field: faster to encode than an equal dict."""


def profile_representation(
    stored: StoredEntry, link_of: LinkOf | None = None
) -> Representation:
    """Build a profile with every field, byte for byte as `web.representations` does.

    It takes half the time, because it skips the `Entry`. Field by field: unpacking
    the values from a tuple would cost a fifth more.
    """
    profile = stored.profile
    assert profile is not None
    body = _FullProfile(
        stored.id,
        profile.name,
        profile.username,
        profile.profile_pic,
        profile.is_verified_user,
        profile.follower_count,
        profile.is_user_follow_business,
        profile.is_business_follow_user,
        format_timestamp(stored.fetched_at),
        format_timestamp(profile.picture_expires_at),
        msgspec.UNSET if link_of is None else link_of(stored.id),
    )
    encoded = msgspec.json.encode(body)
    return representations.cacheable_representation(
        stored, 200, responses.JSON, encoded, has_link=link_of is not None
    )


class CachedResponse:
    """A representation with all headers that do not change from second to second.

    The response of a local entry also holds the *pictures* made of it, by query.
    Thousands of these are in memory, and a few fetches from main memory take longer
    than the rest of a hit. So equal headers are one shared object, and headers that
    change every second are not stored.
    """

    __slots__ = (
        "_fetched_at",
        "_fixed",
        "_statuses",
        "body",
        "counted_as",
        "fresh_until",
        "pictures",
        "sent_until",
        "status",
    )

    def __init__(
        self,
        stored: StoredEntry,
        made: Representation,
        *,
        source: str,
        day_ends_at: float = math.inf,
    ) -> None:
        """*made* represents *stored*; *source* is the metrics label of its origin.

        At *day_ends_at* its picture link must be replaced, if it has one.
        """
        self.body = made.body
        self.fresh_until = stored.fresh_until
        self.sent_until = min(stored.fresh_until, day_ends_at)
        self._fetched_at = stored.fetched_at
        self._fixed = *made.headers, *responses.EVERYWHERE
        self.status = made.status
        self.counted_as, self._statuses = _counted_as(source, stored.refusal)
        self.pictures = NO_PICTURES

    def interned(self) -> CachedResponse:
        """Return self with shared header tuples, to save memory per response."""
        self._fixed = tuple(
            header if header[0] in UNIQUE_HEADERS else _shared(*header)
            for header in self._fixed
        )
        return self

    def headers(self, now: float, request_id: str) -> list[tuple[str, str]]:
        """Return all headers to send at *now*, when the entry is still fresh."""
        return [
            *self._fixed,
            cache_headers.AGES[int(now - self._fetched_at)],
            self._statuses[int(self.fresh_until - now)],
            ("X-Request-ID", request_id),
        ]


@lru_cache(MAX_INTERNED)
def _shared(name: str, value: str) -> tuple[str, str]:
    """Return the same tuple for every equal header."""
    return name, value


@lru_cache(MAX_INTERNED)
def _counted_as(
    source: str, reason: Reason | None
) -> tuple[tuple[str, str], cache_headers.HeaderBySeconds]:
    """Return the metrics key of an answer, and its Cache-Status headers by ttl."""
    outcome = PROFILE if reason is None else reason.value
    return (
        (source, outcome),
        cache_headers.hits_with(cache_headers.detail_of(reason)),
    )


def response_from_stored(
    stored: StoredEntry, links: TodaysLinks | None, *, source: str
) -> CachedResponse:
    """Build the response; only refusals, which are rarer, go through an `Entry`."""
    if stored.profile is not None:
        if links is None:
            made = profile_representation(stored)
            return CachedResponse(stored, made, source=source)
        made = profile_representation(stored, links.link_of)
        return CachedResponse(
            stored, made, source=source, day_ends_at=links.day_ends_at
        )
    made = representations.representation(stored.entry())
    return CachedResponse(stored, made, source=source)


def picture_from_stored(
    stored: StoredEntry, query: str, *, source: str
) -> CachedResponse:
    """Build the response with the picture of a stored entry."""
    made = picture.representation(stored.entry(), fallback=query == WITH_INITIALS)
    return CachedResponse(stored, made, source=source)


def response_from_local(local: LocalEntry, links: TodaysLinks | None) -> CachedResponse:
    """Build the response of a local entry on its first use, and keep it there.

    With picture links, it is built again on the first use of each day.
    """
    response = response_from_stored(_decoded(local), links, source="near").interned()
    local.served = response
    return response


def picture_from_local(local: LocalEntry, query: str) -> CachedResponse:
    """Build the picture of a local entry, and keep it beside its response."""
    made = picture_from_stored(_decoded(local), query, source="near").interned()
    local.served.pictures = {**local.served.pictures, query: made}
    return made


def _decoded(local: LocalEntry) -> StoredEntry:
    stored = read(local.stored)
    assert stored is not None  # The near cache only keeps what could be read.
    return stored
