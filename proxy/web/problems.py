"""RFC 9457 problem details: every error code with its status and text.

Refusals, failures and invalid requests all have the same format.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any

from proxy.domain.failures import (
    GraphTimeout,
    GraphUnavailable,
    LookupFailure,
    NotCached,
    Overloaded,
    PermissionMissing,
    Throttled,
    TokenRejected,
    TooManyMisses,
)
from proxy.domain.profile import GraphError, Reason, Refusal

PROBLEM_TYPE = "urn:graph-profile-proxy:problem:"
"""The prefix of a problem's ``type``; the code follows (RFC 9457 §3.1.1)."""

REFUSALS: dict[Reason, tuple[int, str]] = {
    Reason.CONSENT_REQUIRED: (
        403,
        "Meta needs the person's consent, which a message to the business gives. This"
        " person has not sent one yet, or only before the app was connected.",
    ),
    Reason.BLOCKED: (
        403,
        "Meta reports that this person is not available to this business. Show the"
        " contact without a name; only the person can change it.",
    ),
    Reason.NOT_FOUND: (
        404,
        "Meta has no person with this id for this business. Check the id and the Page.",
    ),
    Reason.UNAVAILABLE: (
        404,
        "Meta does not show this person: blocked, deleted, not a contact of this"
        " business or not permitted. Meta does not report which.",
    ),
}
"""The status and the detail of every refusal."""

FAILURES: dict[type[LookupFailure], int] = {
    TokenRejected: 502,
    PermissionMissing: 502,
    Throttled: 503,
    GraphTimeout: 504,
    GraphUnavailable: 502,
    Overloaded: 503,
    TooManyMisses: 429,
    NotCached: 504,
}
"""The status of every failure."""

DEFAULT_RETRY_AFTER = 60.0
"""Seconds to wait if the cause gives no number, but the status requires one."""

PROBLEMS: dict[str, int] = {
    "invalid_igsid": 400,
    "invalid_ids": 400,
    "invalid_fields": 400,
    "invalid_fallback": 400,
    "invalid_body": 400,
    "invalid_request": 400,
    "unknown_key": 401,
    "invalid_signature": 403,
    "invalid_verify_token": 403,
    "bad_signature": 403,
    "not_local": 403,
    "scope_missing": 403,
    "no_picture": 404,
    "unknown_cause": 404,
    "unknown_page": 404,
    "unknown_path": 404,
    "method_not_allowed": 405,
    "body_timeout": 408,
    "length_required": 411,
    "body_too_large": 413,
    "unsupported_media_type": 415,
    "internal_error": 500,
    "store_unavailable": 503,
}
"""The status of every other problem, by its code."""


class Problem(Exception):
    """A request that gets a problem as its response; *code* is one of PROBLEMS."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
    ) -> None:
        """*key* is the name of the API key that the log blames; None: not told."""
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})
        self.key = key


def refusal_body(refusal: Refusal) -> dict[str, Any]:
    """Return the problem body of a refusal."""
    status, detail = REFUSALS[refusal.reason]
    return problem_body(
        status,
        refusal.reason.value,
        detail,
        igsid=refusal.igsid,
        graph_error=refusal.said,
    )


def retry_after(failure: LookupFailure, status: int) -> float | None:
    """Return the seconds to wait before a retry; a 429 and a 503 always have them."""
    if failure.retry_after is None and status in (429, 503):
        return DEFAULT_RETRY_AFTER
    return failure.retry_after


def failure_body(failure: LookupFailure, igsid: str | None) -> dict[str, Any]:
    """Return the problem body of a failure."""
    status = FAILURES[type(failure)]
    not_asked = "" if failure.asked else " Meta was not asked."
    return problem_body(
        status,
        failure.code,
        f"{failure.what[0].upper()}{failure.what[1:]}.{not_asked}",
        igsid=igsid,
        graph_error=failure.said,
        retry_after=retry_after(failure, status),
    )


def render_graph_error(error: GraphError) -> dict[str, Any]:
    """Return the codes of Meta's error, without its message."""
    return {
        "code": error.code,
        "subcode": error.subcode,
        "fbtrace_id": error.fbtrace_id,
    }


def problem_body(
    status: int,
    code: str,
    detail: str,
    *,
    igsid: str | None = None,
    graph_error: GraphError | None = None,
    retry_after: float | None = None,
) -> dict[str, Any]:
    """Return a problem body (RFC 9457); members without a value are left out."""
    body: dict[str, Any] = {
        "type": PROBLEM_TYPE + code,
        "title": code.replace("_", " ").capitalize(),
        "status": status,
        "detail": detail,
        "code": code,
    }
    if igsid is not None:
        body["igsid"] = igsid
    if graph_error is not None:
        body["graph"] = render_graph_error(graph_error)
    if retry_after is not None:
        body["retry_after"] = ceil(retry_after)
    return body
