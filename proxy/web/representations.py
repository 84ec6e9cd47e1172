"""Entries as HTTP: the body and headers that tell of a person, or a page of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from math import floor
from typing import Any, Protocol

import msgspec
from flask import Response, request

from proxy.domain.answer import Answer
from proxy.domain.entry import Entry
from proxy.domain.failures import LookupFailure
from proxy.domain.profile import FIELDS, Igsid, Profile, Refusal
from proxy.web import cache_headers
from proxy.web.problems import (
    PROBLEMS,
    REFUSALS,
    failure_body,
    problem_body,
    refusal_body,
)
from proxy.web.request_params import NO_IGSID, is_igsid
from proxy.web.responses import JSON, PROBLEM
from proxy.web.timestamps import format_timestamp


class Representation(msgspec.Struct, frozen=True):
    """An entry as HTTP, but for what changes with the time and with who asks.

    *tag* is the ETag, without quotes, of what has one.
    """

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    tag: str | None


def representation(entry: Entry, fields: tuple[str, ...] = FIELDS) -> Representation:
    """*entry* as HTTP: a profile with these *fields*, or a refusal as a problem."""
    match entry.outcome:
        case Profile() as profile:
            body = profile_body(profile, entry.fetched_at, fields)
            return as_sent(entry, 200, JSON, body)
        case Refusal() as refusal:
            status = REFUSALS[refusal.reason][0]
            return as_sent(entry, status, PROBLEM, refusal_body(refusal))


def as_sent(
    entry: Entry, status: int, mimetype: str, body: Mapping[str, Any]
) -> Representation:
    """*body*, which tells of *entry*, and the headers that say how long it is good."""
    # Names as they are written: an escape would cost six bytes a letter.
    sent = msgspec.json.encode(body)
    if not isinstance(entry.outcome, Refusal):
        return with_etag(entry, status, mimetype, sent)
    headers = [
        ("Content-Type", mimetype),
        ("Content-Length", str(len(sent))),
        # A caller's own cache must not outlive the moment the person writes.
        ("Cache-Control", "private, no-cache"),
    ]
    return Representation(status, headers, sent, None)


class Bounds(Protocol):
    """What says how long an entry is fresh, in whichever form it is at hand."""

    @property
    def fetched_at(self) -> float: ...

    @property
    def fresh_until(self) -> float: ...


def with_etag(entry: Bounds, status: int, mimetype: str, sent: bytes) -> Representation:
    """A representation that callers may keep while *entry* is fresh, and revalidate."""
    tag = hashlib.sha256(sent).hexdigest()[:32]
    headers = [
        ("Content-Type", mimetype),
        ("Content-Length", str(len(sent))),
        cache_headers.KEPT[floor(entry.fresh_until - entry.fetched_at)],
        ("ETag", f'"{tag}"'),
    ]
    return Representation(status, headers, sent, tag)


def problem_representation(
    code: str, detail: str, igsid: str, kept: str
) -> Representation:
    """A problem that is true of an entry for as long as that is."""
    status = PROBLEMS[code]
    body = msgspec.json.encode(problem_body(status, code, detail, igsid=igsid))
    headers = [
        ("Content-Type", PROBLEM),
        ("Content-Length", str(len(body))),
        ("Cache-Control", kept),
    ]
    return Representation(status, headers, body, None)


def render(answer: Answer, fields: tuple[str, ...], *, now: float) -> Response:
    """An answer as HTTP: a profile, or a refusal as a problem."""
    return to_response(representation(answer.entry, fields), answer, now=now)


def to_response(made: Representation, answer: Answer, *, now: float) -> Response:
    """*made*, with what depends on the moment and on who asks."""
    response = Response(made.body, made.status, made.headers)
    # By hand, for Werkzeug would heed If-Match too, and send a 412 with all of it.
    if made.tag and request.if_none_match.contains_weak(made.tag):
        response.status_code = 304
    response.headers["Age"] = str(cache_headers.age(answer.entry.fetched_at, now))
    response.headers["Cache-Status"] = cache_headers.cache_status(answer, now)
    return response


def render_many(
    ids: Sequence[str],
    found: Mapping[Igsid, Answer | LookupFailure],
    fields: tuple[str, ...],
) -> Response:
    """A page of people: who each is, or why that is not told."""
    profiles: dict[str, bytes] = {}
    problems: dict[str, bytes] = {}
    for asked in ids:
        match found[asked] if is_igsid(asked) else None:
            case Answer(entry=entry):
                made = representation(entry, fields)
                (profiles if made.status == 200 else problems)[asked] = made.body
            case LookupFailure() as failure:
                problems[asked] = msgspec.json.encode(failure_body(failure, asked))
            case None:
                problems[asked] = msgspec.json.encode(
                    problem_body(400, "invalid_igsid", NO_IGSID)
                )
    body = page_body(profiles, problems)
    return Response(body, 200, page_headers(body))


def page_body(profiles: Mapping[str, bytes], problems: Mapping[str, bytes]) -> bytes:
    """A page of bodies that are JSON already, by whom they are about."""

    def members(bodies: Mapping[str, bytes]) -> bytes:
        return b",".join(
            b"%b:%b" % (msgspec.json.encode(asked), body)
            for asked, body in bodies.items()
        )

    return b'{"profiles":{%b},"problems":{%b}}' % (members(profiles), members(problems))


def page_headers(body: bytes) -> list[tuple[str, str]]:
    """Nobody keeps a page: each on it may be kept for another time."""
    return [
        ("Content-Type", JSON),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
    ]


def profile_body(
    profile: Profile, fetched_at: float, fields: tuple[str, ...]
) -> dict[str, Any]:
    """A profile under Meta's names: what was asked for, null where Meta said nothing.

    ``id``, ``fetched_at`` and ``picture_expires_at`` are always there.
    """
    body = {"id": profile.igsid} | {field: getattr(profile, field) for field in fields}
    return body | {
        "fetched_at": format_timestamp(fetched_at),
        "picture_expires_at": format_timestamp(profile.picture_expires_at),
    }
