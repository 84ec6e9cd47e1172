"""Entries as HTTP representations (RFC 9110 §3.2): status, headers and body."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from math import floor
from typing import Any, Protocol

import msgspec
from flask import Response, request

from proxy.domain.answer import Answer
from proxy.domain.entry import Entry
from proxy.domain.profile import FIELDS, Profile, Refusal
from proxy.web import cache_headers
from proxy.web.conditional_requests import is_not_modified
from proxy.web.picture_link import DAY, LinkOf
from proxy.web.problems import PROBLEMS, REFUSALS, problem_body, refusal_body
from proxy.web.responses import JSON, PROBLEM
from proxy.web.timestamps import format_timestamp


class Representation(msgspec.Struct, frozen=True):
    """An entry as HTTP, without what depends on the moment or on the caller.

    *tag* is the ETag without quotes; None: it has none.
    """

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    tag: str | None


def representation(
    entry: Entry,
    fields: tuple[str, ...] = FIELDS,
    link_of: LinkOf | None = None,
) -> Representation:
    """Represent a profile with these *fields*, or a refusal as a problem.

    *link_of* returns the picture link of a profile; None: there are no such links.
    """
    match entry.outcome:
        case Profile() as profile:
            body = profile_body(profile, entry.fetched_at, fields)
            if link_of is not None and "profile_pic" in fields:
                body["picture_link"] = link_of(profile.igsid)
            return json_representation(entry, 200, JSON, body)
        case Refusal() as refusal:
            status = REFUSALS[refusal.reason][0]
            return json_representation(entry, status, PROBLEM, refusal_body(refusal))


def json_representation(
    entry: Entry, status: int, mimetype: str, body: Mapping[str, Any]
) -> Representation:
    """Encode a *body* about *entry*, and add the headers that control caching."""
    # Names are not escaped: an escape would cost six bytes a letter.
    encoded = msgspec.json.encode(body)
    if not isinstance(entry.outcome, Refusal):
        has_link = "picture_link" in body
        return cacheable_representation(
            entry, status, mimetype, encoded, has_link=has_link
        )
    headers = [
        ("Content-Type", mimetype),
        ("Content-Length", str(len(encoded))),
        # A caller's own cache must not serve a refusal after the person has written.
        ("Cache-Control", "private, no-cache"),
    ]
    return Representation(status, headers, encoded, None)


class Bounds(Protocol):
    """The moments that bound freshness, of an `Entry` or a `StoredEntry`."""

    @property
    def fetched_at(self) -> float: ...

    @property
    def fresh_until(self) -> float: ...


def cacheable_representation(
    bounds: Bounds, status: int, mimetype: str, body: bytes, *, has_link: bool = False
) -> Representation:
    """Let callers cache *body* while the entry is fresh, and revalidate it by ETag.

    A body that *has_link* to the picture may be cached for a day at most, because the
    link may end then.
    """
    lifetime = floor(bounds.fresh_until - bounds.fetched_at)
    tag = hashlib.sha256(body).hexdigest()[:32]
    headers = [
        ("Content-Type", mimetype),
        ("Content-Length", str(len(body))),
        cache_headers.MAX_AGES[min(lifetime, DAY) if has_link else lifetime],
        ("ETag", f'"{tag}"'),
    ]
    return Representation(status, headers, body, tag)


def problem_representation(
    code: str, detail: str, igsid: str, cache_control: str
) -> Representation:
    """Represent a problem that follows from an entry, so that callers may cache it."""
    status = PROBLEMS[code]
    body = msgspec.json.encode(problem_body(status, code, detail, igsid=igsid))
    headers = [
        ("Content-Type", PROBLEM),
        ("Content-Length", str(len(body))),
        ("Cache-Control", cache_control),
    ]
    return Representation(status, headers, body, None)


def render(
    answer: Answer, fields: tuple[str, ...], link_of: LinkOf | None, *, now: float
) -> Response:
    """Render a profile with these *fields*, or a refusal as a problem."""
    made = representation(answer.entry, fields, link_of)
    return to_response(made, answer, now=now)


def to_response(made: Representation, answer: Answer, *, now: float) -> Response:
    """Add what depends on the moment and on the caller; 304 if nothing has changed."""
    response = Response(made.body, made.status, made.headers)
    if is_not_modified(request, made.tag):
        response.status_code = 304
    cache_headers.set_headers(response.headers, answer, now)
    return response


def profile_body(
    profile: Profile, fetched_at: float, fields: tuple[str, ...]
) -> dict[str, Any]:
    """Return the body of a profile under Meta's names, null where Meta gave no value.

    ``id``, ``fetched_at`` and ``picture_expires_at`` are always included.
    """
    body = {"id": profile.igsid} | {field: getattr(profile, field) for field in fields}
    return body | {
        "fetched_at": format_timestamp(fetched_at),
        "picture_expires_at": format_timestamp(profile.picture_expires_at),
    }
