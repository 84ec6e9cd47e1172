"""Responses made of stored entries, ready to be sent again and again."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import msgspec

from proxy.domain.profile import Reason
from proxy.observability.metrics import PROFILE
from proxy.storage.codec import StoredEntry, read
from proxy.storage.near_cache import LocalEntry
from proxy.web import cache_headers, picture, representations, responses
from proxy.web.representations import Representation
from proxy.web.timestamps import format_timestamp

PICTURE, WITH_INITIALS = "picture", f"fallback={picture.INITIALS}"
"""Where the picture is, below its person; and the query that may be asked with."""

UNLIKE = frozenset({"ETag", "Location"})
"""Headers that no two have alike."""

MOST_ALIKE = 4096
"""Headers that are remembered for those who have the same."""

NONE_YET: Mapping[str, CachedResponse] = {}


class _Whole(msgspec.Struct):
    """The body of a profile with every field: quicker than a dict of the same."""

    id: str
    name: str | None
    username: str | None
    profile_pic: str | None
    is_verified_user: bool | None
    follower_count: int | None
    is_user_follow_business: bool | None
    is_business_follow_user: bool | None
    fetched_at: str | None
    picture_expires_at: str | None


def profile_representation(form: StoredEntry) -> Representation:
    """A profile with every field, byte for byte as `web.representations` has it.

    In half the time, because it is made of the stored form of the entry.
    """
    said = form.profile
    assert said is not None
    body = _Whole(
        form.id,
        said.name,
        said.username,
        said.profile_pic,
        said.is_verified_user,
        said.follower_count,
        said.is_user_follow_business,
        said.is_business_follow_user,
        format_timestamp(form.fetched_at),
        format_timestamp(said.picture_expires_at),
    )
    sent = msgspec.json.encode(body)
    return representations.with_etag(form, 200, responses.JSON, sent)


class CachedResponse:
    """A rendition, ready to be sent again and again.

    Of a copy, it has with it what was made of the *pictures*, by the query.
    Thousands of these lie in memory, and a hit is over sooner than a few fetches from
    there. So what many have alike is one object for all of them, and what changes
    from second to second is not kept.
    """

    __slots__ = (
        "_fetched_at",
        "_fixed",
        "_statuses",
        "body",
        "counted_as",
        "fresh_until",
        "pictures",
        "status",
    )

    def __init__(self, form: StoredEntry, made: Representation, *, source: str) -> None:
        """*made* is of what *form* stores; *source* says whence, to be counted."""
        self.body = made.body
        self.fresh_until = form.fresh_until
        self._fetched_at = form.fetched_at
        self._fixed = *made.headers, responses.NOSNIFF
        self.status = made.status
        self.counted_as, self._statuses = _manner(source, form.refusal)
        self.pictures = NONE_YET

    def kept(self) -> CachedResponse:
        """Itself, to lie in memory: what others have too it has with them."""
        self._fixed = tuple(
            header if header[0] in UNLIKE else alike(*header) for header in self._fixed
        )
        return self

    def headers(self, now: float, request_id: str) -> list[tuple[str, str]]:
        """All that are sent at *now*, at which it is fresh."""
        return [
            *self._fixed,
            cache_headers.AGES[int(now - self._fetched_at)],
            self._statuses[int(self.fresh_until - now)],
            ("X-Request-ID", request_id),
        ]


@lru_cache(MOST_ALIKE)
def alike(name: str, value: str) -> tuple[str, str]:
    """A header, the same object for all who have it."""
    return name, value


@lru_cache(MOST_ALIKE)
def _manner(
    source: str, reason: Reason | None
) -> tuple[tuple[str, str], cache_headers.Seconds]:
    """What an answer is counted as, and its Cache-Status by the seconds."""
    outcome = PROFILE if reason is None else reason.value
    return (
        (source, outcome),
        cache_headers.hits_with(cache_headers.detail_of(reason)),
    )


def serve(form: StoredEntry, *, source: str) -> CachedResponse:
    """A profile at once, and a refusal by way of its entry: they are asked for less."""
    if form.profile is not None:
        return CachedResponse(form, profile_representation(form), source=source)
    return CachedResponse(
        form, representations.representation(form.entry()), source=source
    )


def serve_picture(form: StoredEntry, query: str, *, source: str) -> CachedResponse:
    made = picture.representation(form.entry(), fallback=query == WITH_INITIALS)
    return CachedResponse(form, made, source=source)


def serve_copy(copy: LocalEntry) -> CachedResponse:
    """What is made of a copy when it is first asked for."""
    served = serve(_form(copy), source="near").kept()
    copy.served = served
    return served


def serve_copied_picture(copy: LocalEntry, query: str) -> CachedResponse:
    """The same of its picture, beside what is made of it already."""
    served = serve_picture(_form(copy), query, source="near").kept()
    copy.served.pictures = {**copy.served.pictures, query: served}
    return served


def _form(copy: LocalEntry) -> StoredEntry:
    form = read(copy.stored)
    assert form is not None  # It was read before it was kept.
    return form
