"""The Graph-compatible endpoint: the same lookup with Meta's requests and responses.

An existing Graph API client moves here by changing its base URL and its token, which
is an API key of this proxy. A refusal has the code that Meta gave. The code of a
failure is chosen by how such clients react to it: retry, wait or alert, but never take
the proxy's rejected token for their own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, g, request
from flask.blueprints import BlueprintSetupState
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BaseConverter

from proxy.domain.entry import Entry
from proxy.domain.failures import (
    LookupFailure,
    PermissionMissing,
    StoreUnavailable,
    Throttled,
    TooManyMisses,
)
from proxy.domain.profile import FIELDS, GraphError, Profile, Refusal
from proxy.lookup.pages import Pages, UnknownPage
from proxy.web import (
    cache_headers,
    page_prefix,
    problems,
    representations,
    request_params,
    responses,
)
from proxy.web.auth import Authenticator, Environ, Scope
from proxy.web.problems import Problem

DEFAULT_FIELDS = ("name",)
"""The fields besides ``id`` if the ``fields`` parameter is left out, as at Meta."""

NULLABLE = frozenset({"name", "profile_pic"})
"""Fields that Meta sends as null if they are not set; it leaves out all others."""

TRANSIENT = 503, 2
"""Status and code of a failure that is not in FAILURES: clients retry."""

FAILURES: dict[type[LookupFailure], tuple[int, int | None]] = {
    PermissionMissing: (403, None),
    Throttled: (503, 4),
    TooManyMisses: (429, 4),
}
"""Status and code of certain failures; None: the code that Meta gave."""

MESSAGES = {
    2: "(#2) The profile is temporarily unavailable; try again",
    4: "(#4) Request limit reached; try again later",
}
"""The messages of those codes; all of these failures are temporary."""

PERMISSION = 10
"""The code of a missing permission, of the caller or, without Meta's code, the app."""

PROBLEMS = {"unknown_key": 190, "scope_missing": PERMISSION, "not_local": PERMISSION}
"""Meta's code for some of our problems; INVALID for all others."""

INVALID = 100

UNKNOWN_KEY = "Invalid OAuth access token: send an API key of this proxy"

_PATH = re.compile(r"(/pages/[^/]+)?/(v?[0-9]|me(/|$))", re.ASCII)
"""Paths that begin with a version, with an id or with ``me``, of which Meta's clients
take every body without ``error`` for a profile."""


class GraphVersion(BaseConverter):
    """A version in a path, with or without a minor one: ``v25.0``, ``v25``."""

    regex = r"[0-9]+(?:\.[0-9]+)?"


class Digits(BaseConverter):
    """A path segment of digits alone, so that every other path stays ours."""

    regex = r"[0-9]+"


ErrorMessageOf = Callable[[Refusal], tuple[int, str, str]]
"""Returns the status, the message and the ``type`` that Meta has for a refusal."""


def blueprint(
    pages: Pages,
    authenticator: Authenticator,
    error_message_of: ErrorMessageOf,
    now: Callable[[], float],
) -> Blueprint:
    """Build the routes; *now* is epoch seconds."""
    bp = Blueprint("graph_api", __name__)
    bp.record(_register_converters)
    page_prefix.prepare_requests(
        bp, pages, authenticator, Scope.READ, _environ_with_key
    )

    @bp.get("/v<graph_version:version>/<igsid>", strict_slashes=False)
    @bp.get("/<digits:igsid>", strict_slashes=False)
    def read_node(igsid: str, version: str | None = None) -> Response:
        """Return one person's profile in Meta's format; *version* has no effect.

        200 and the profile, or an error in Meta's envelope.
        """
        if "ids" in request.args:
            return _unsupported_request()
        person = request_params.read_igsid(igsid)
        fields = read_fields(request.args)
        answer = g.lookup.find(
            person,
            client=g.client.name,
            directives=request_params.read_directives(
                request.headers.get("Cache-Control")
            ),
        )
        made = _representation(answer.entry, fields, error_message_of)
        return representations.to_response(made, answer, now=now())

    return bp


def _register_converters(setup: BlueprintSetupState) -> None:
    converters = {"graph_version": GraphVersion, "digits": Digits}
    setup.app.url_map.converters.update(converters)


def is_graph_path(path: str) -> bool:
    """Return whether *path* is one of Meta's, with every error in Meta's envelope."""
    return _PATH.match(path) is not None


def read_fields(args: MultiDict[str, str]) -> tuple[str, ...]:
    """Read the ``fields`` parameters; without any name, the default is Meta's.

    Raises:
        Problem: ``invalid_fields``; one is unknown, and Meta fails the whole call. Or
            see `request_params.read_list`.
    """
    names = request_params.read_list(args, "fields")
    for name in names:
        if name != "id" and name not in FIELDS:
            raise Problem(
                "invalid_fields", f"Tried accessing nonexisting field ({name})"
            )
    return tuple(names) or DEFAULT_FIELDS


def render_failure(failure: LookupFailure) -> Response:
    """Render a failure with a code to which Graph API clients react correctly."""
    status, code = FAILURES.get(type(failure), TRANSIENT)
    if code is not None:
        body = _error(code, MESSAGES[code], failure.said, is_transient=True)
    else:
        code = failure.said.code if failure.said else None
        code = PERMISSION if code is None else code
        # Meta also gives 230 for missing consent; clients distinguish by this text.
        text = "Requires a permission or a setting that the app or the Page lacks"
        body = _error(code, f"(#{code}) {text}", failure.said)
    response = responses.json_response(status, body)
    retry_after = problems.retry_after(failure, status)
    if retry_after is not None:
        response.headers["Retry-After"] = str(math.ceil(retry_after))
    response.headers["Cache-Status"] = cache_headers.failure_status(failure)
    return response


def render_problem(problem: Problem) -> Response:
    """Render a problem in Meta's envelope; only an unknown key has code 190.

    Sets ``g.problem``, for the log.
    """
    g.problem = problem
    code = PROBLEMS.get(problem.code, INVALID)
    message = f"(#{code}) {problem.detail}"
    if problem.code == "unknown_key":
        message = UNKNOWN_KEY
    response = responses.json_response(
        problems.PROBLEMS[problem.code], _error(code, message)
    )
    response.headers.update(problem.headers)
    return response


def render_http_error(error: HTTPException) -> Response:
    """Render an error of the framework: only one path and method are supported."""
    if error.code in (404, 405):
        return _unsupported_request()
    return render_problem(Problem("invalid_request", "The request is malformed."))


def render_unknown_page(unknown: UnknownPage) -> Response:
    """Render an unknown Page as Meta renders an unknown object."""
    return render_problem(Problem("unknown_page", str(unknown)))


def render_store_unavailable(failure: StoreUnavailable) -> Response:
    """Render an operation that the store did not confirm as a temporary failure."""
    status, code = TRANSIENT
    body = _error(code, MESSAGES[code], is_transient=True)
    response = responses.json_response(status, body)
    response.headers["Retry-After"] = str(math.ceil(failure.retry_after))
    return response


def render_bug() -> Response:
    """Render a bug of ours as Meta renders its own, without an explanation."""
    return responses.json_response(500, _error(1, "(#1) An unknown error occurred"))


def _unsupported_request() -> Response:
    message = (
        f"(#{INVALID}) Unsupported request: this proxy supports only"
        " GET /<igsid> and GET /v<N>.<M>/<igsid>, for one person"
    )
    return responses.json_response(404, _error(INVALID, message))


def _environ_with_key() -> Environ:
    """Return the WSGI environ, with the API key as a bearer token.

    Graph API clients send it as ``access_token`` of the query, as a bearer token or,
    older ones, after ``OAuth``. The key is read here, and is passed to nothing but the
    authenticator.
    """
    token = request.args.get("access_token")
    if not token:
        scheme, _, rest = request.headers.get("Authorization", "").partition(" ")
        token = rest if scheme.lower() == "oauth" else None
    if not token:
        return request.environ
    return {**request.environ, "HTTP_AUTHORIZATION": f"Bearer {token}"}


def _representation(
    entry: Entry, fields: tuple[str, ...], error_message_of: ErrorMessageOf
) -> representations.Representation:
    match entry.outcome:
        case Profile() as profile:
            return representations.json_representation(
                entry, 200, responses.JSON, _node(profile, fields)
            )
        case Refusal() as refusal:
            status, message, type_ = error_message_of(refusal)
            error = _error(refusal.said.code, message, refusal.said, type_=type_)
            if refusal.said.subcode is not None:
                error["error"]["error_subcode"] = refusal.said.subcode
            return representations.json_representation(
                entry, status, responses.JSON, error
            )


def _node(profile: Profile, fields: tuple[str, ...]) -> dict[str, Any]:
    node = {
        field: value
        for field in fields
        if field != "id"
        and ((value := getattr(profile, field)) is not None or field in NULLABLE)
    }
    return node | {"id": profile.igsid}


def _error(
    code: int | None,
    message: str,
    graph_error: GraphError | None = None,
    *,
    type_: str = "OAuthException",
    is_transient: bool = False,
) -> dict[str, dict[str, Any]]:
    """Return an error in Meta's envelope, with the trace id of *graph_error*.

    Source: https://developers.facebook.com/docs/graph-api/guides/error-handling
    """
    error: dict[str, Any] = {"message": message, "type": type_}
    if is_transient:
        error["is_transient"] = True
    error["code"] = code
    if graph_error is not None and graph_error.fbtrace_id is not None:
        error["fbtrace_id"] = graph_error.fbtrace_id
    return {"error": error}
