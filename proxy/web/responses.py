"""Responses that must not be cached: JSON that is true only now, and problems."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from flask import Response, g, request
from werkzeug.exceptions import HTTPException

from proxy.domain.failures import LookupFailure, StoreUnavailable
from proxy.domain.profile import IGSID
from proxy.web import cache_headers
from proxy.web.problems import PROBLEMS, Problem, failure_body, problem_body

JSON, PROBLEM = "application/json", "application/problem+json"

NOSNIFF = ("X-Content-Type-Options", "nosniff")

CLOSE = ("Connection", "close")
"""A server should send this itself (PEP 3333), but granian leaves it to the app."""


IDLE_TIMEOUT = 75
"""Seconds for which our server keeps an idle connection; load balancers keep 60."""

KEEP_ALIVE = ("Keep-Alive", f"timeout={IDLE_TIMEOUT}")
"""Lets a client give a connection up before we do.

Source: https://www.rfc-editor.org/rfc/rfc2068#section-19.7.1.1
"""

EVERYWHERE = (NOSNIFF, KEEP_ALIVE)
"""Headers of every response, unless its connection is closed."""

RawResponse = tuple[int, list[tuple[str, str]], bytes]
"""A status, headers and a body."""


def closing(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return *headers* of a response after which the connection is closed."""
    return [*(header for header in headers if header != KEEP_ALIVE), CLOSE]


def json_response(
    status: int, body: Mapping[str, Any], mimetype: str = JSON
) -> Response:
    """Encode *body* as JSON in UTF-8, with ``no-store``."""
    response = Response(msgspec.json.encode(body), status, mimetype=mimetype)
    response.headers["Cache-Control"] = "no-store"
    return response


def render_ok(body: Mapping[str, Any]) -> Response:
    """Render a successful result that is true only now."""
    return json_response(200, body)


def render_problem(problem: Problem) -> Response:
    """Render a problem, with the igsid in the path if there is one.

    Sets ``g.problem``, for the log.
    """
    g.problem = problem
    response = _problem(
        problem_body(
            PROBLEMS[problem.code], problem.code, problem.detail, igsid=_igsid_in_path()
        )
    )
    response.headers.update(problem.headers)
    return response


def raw_problem(problem: Problem, request_id: str) -> RawResponse:
    """Return the response of a problem, to be sent in a view's place."""
    body = problem_body(PROBLEMS[problem.code], problem.code, problem.detail)
    headers = [
        ("Content-Type", PROBLEM),
        ("Cache-Control", "no-store"),
        ("X-Request-ID", request_id),
        NOSNIFF,
        *problem.headers.items(),
    ]
    return body["status"], headers, msgspec.json.encode(body)


def render_failure(failure: LookupFailure) -> Response:
    """Render a failure as a problem, which neither we nor the caller may cache."""
    response = _problem(failure_body(failure, _igsid_in_path()))
    response.headers["Cache-Status"] = cache_headers.failure_status(failure)
    return response


def render_store_unavailable(failure: StoreUnavailable) -> Response:
    """Render the problem of an operation whose result the store cannot confirm."""
    return _problem(
        problem_body(
            PROBLEMS["store_unavailable"],
            "store_unavailable",
            "The store cannot be reached. The request was not carried out, or only in"
            " part. Send it again.",
            igsid=_igsid_in_path(),
            retry_after=failure.retry_after,
        )
    )


def render_http_error(error: HTTPException) -> Response:
    """Render an error that the framework raises before it reaches a route."""
    code = {404: "unknown_path", 405: "method_not_allowed"}.get(error.code or 500)
    if code is None:
        return render_problem(Problem("invalid_request", "The request is malformed."))
    headers = dict(error.get_headers())
    allow = {"Allow": headers["Allow"]} if "Allow" in headers else None
    detail = {
        "unknown_path": "This path does not exist. GET /openapi.yaml lists all paths.",
        "method_not_allowed": "This path does not support this method. See Allow.",
    }[code]
    return render_problem(Problem(code, detail, headers=allow))


def _problem(body: dict[str, Any]) -> Response:
    response = json_response(body["status"], body, PROBLEM)
    if "retry_after" in body:
        response.headers["Retry-After"] = str(body["retry_after"])
    return response


def _igsid_in_path() -> str | None:
    """Return the igsid in the path of the request, if it is valid."""
    igsid = (request.view_args or {}).get("igsid", "")
    return igsid if IGSID.fullmatch(igsid) else None
