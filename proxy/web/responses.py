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
