"""A batch of people as one JSON body: a profile or a problem for each id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from flask import Response

from proxy.domain.answer import Answer
from proxy.domain.failures import LookupFailure
from proxy.domain.profile import Igsid
from proxy.web.picture_link import LinkOf
from proxy.web.problems import failure_body, problem_body
from proxy.web.representations import representation
from proxy.web.request_params import INVALID_IGSID, is_igsid
from proxy.web.responses import JSON


def render_batch(
    ids: Sequence[str],
    found: Mapping[Igsid, Answer | LookupFailure],
    fields: tuple[str, ...],
    link_of: LinkOf | None = None,
) -> Response:
    """Render what was *found* for each of *ids*; an invalid id is a problem too.

    *link_of* is as for `representation`.
    """
    profiles: dict[str, bytes] = {}
    problems: dict[str, bytes] = {}
    for igsid in ids:
        match found[igsid] if is_igsid(igsid) else None:
            case Answer(entry=entry):
                made = representation(entry, fields, link_of)
                (profiles if made.status == 200 else problems)[igsid] = made.body
            case LookupFailure() as failure:
                problems[igsid] = msgspec.json.encode(failure_body(failure, igsid))
            case None:
                problems[igsid] = msgspec.json.encode(
                    problem_body(400, "invalid_igsid", INVALID_IGSID)
                )
    body = batch_body(profiles, problems)
    return Response(body, 200, batch_headers(body))


def batch_body(profiles: Mapping[str, bytes], problems: Mapping[str, bytes]) -> bytes:
    """Join bodies that are encoded as JSON already, by the id that each is about."""

    def members(bodies: Mapping[str, bytes]) -> bytes:
        return b",".join(
            b"%b:%b" % (msgspec.json.encode(igsid), body)
            for igsid, body in bodies.items()
        )

    return b'{"profiles":{%b},"problems":{%b}}' % (members(profiles), members(problems))


def batch_headers(body: bytes) -> list[tuple[str, str]]:
    """Return headers that forbid caching: each entry has a lifetime of its own."""
    return [
        ("Content-Type", JSON),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
    ]
