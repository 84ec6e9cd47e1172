"""The Graph door: the same lookup in Meta's own shape, for clients made for Meta.

An existing Graph client moves by changing its base URL and its token, which is an API
key of ours here. A refusal has the code that Meta gave. The code of a failure is chosen
for what such a client does on reading it: ask again, wait, or tell somebody, but never
take our dead token for its own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, g, request
from werkzeug.exceptions import HTTPException

from proxy.domain.entry import Entry
from proxy.domain.failures import (
    LookupFailure,
    PermissionMissing,
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
"""What is told, beside ``id``, to those who do not say which fields they want."""

NULLABLE = frozenset({"name", "profile_pic"})
"""What Meta sends as null when it is not set; the rest it leaves out then."""

TRANSIENT = 503, 2
"""Status and code of a failure that is not in FAILURES: ask again."""

FAILURES: dict[type[LookupFailure], tuple[int, int | None]] = {
    PermissionMissing: (403, None),
    Throttled: (503, 4),
    TooManyMisses: (429, 4),
}
"""Status and code of the other failures; None: the code that Meta gave."""

MESSAGES = {
    2: "(#2) The profile is temporarily unavailable; try again",
    4: "(#4) Request limit reached; try again later",
}
"""What comes with those codes, which all pass by themselves."""

PERMISSION = 10
"""The code of what the caller, or where Meta was not asked the app, may not do."""

PROBLEMS = {"unknown_key": 190, "scope_missing": PERMISSION, "not_local": PERMISSION}
"""Other requests that cannot be answered as asked, as their code; else INVALID."""

INVALID = 100

UNKNOWN_KEY = "Invalid OAuth access token: send an API key of this proxy"

_PATH = re.compile(r"(/pages/[^/]+)?/v[0-9]+\.[0-9]+(/|$)", re.ASCII)

WordsOf = Callable[[Refusal], tuple[int, str, str]]
"""The status, the message and the ``type`` of a refusal."""


def blueprint(
    pages: Pages,
    authenticator: Authenticator,
    words_of: WordsOf,
    now: Callable[[], float],
) -> Blueprint:
    """The routes, answering from *pages*; *now* is epoch seconds."""
    bp = Blueprint("graph_door", __name__)
    page_prefix.prepare_requests(
        bp, pages, authenticator, Scope.READ, _environ_with_key
    )
    bp.register_error_handler(Problem, render_problem)
    bp.register_error_handler(LookupFailure, render_failure)
    bp.register_error_handler(HTTPException, render_http_error)
    bp.register_error_handler(UnknownPage, render_unknown_page)

    @bp.get("/v<float:version>/<igsid>")
    def read_node(version: float, igsid: str) -> Response:
        """One person's profile, whatever the *version*, as Meta would have it.

        200 and the profile, or an error in Meta's envelope.
        """
        if "ids" in request.args:
            return _nothing_here()
        person = request_params.read_igsid(igsid)
        fields = read_fields(request.args.getlist("fields"))
        answer = g.lookup.find(
            person,
            client=g.client.name,
            directives=request_params.read_directives(
                request.headers.get("Cache-Control")
            ),
        )
        made = _rendition(answer.entry, fields, words_of)
        return representations.to_response(made, answer, now=now())

    return bp


def is_asked(path: str) -> bool:
    """Whether *path* is one of Meta's, under which all errors are in its envelope."""
    return _PATH.match(path) is not None


def read_fields(asked: list[str]) -> tuple[str, ...]:
    """The fields that the ``fields`` parameters *asked* for, read as Meta does.

    The last of them counts; spaces, empty names and repeated ones do not matter.

    Raises:
        Problem: ``invalid_fields``; one is unknown, and Meta fails the whole call.
    """
    names = [name.strip() for name in (asked or [""])[-1].split(",")]
    for name in names:
        if name and name != "id" and name not in FIELDS:
            raise Problem(
                "invalid_fields", f"Tried accessing nonexisting field ({name})"
            )
    return tuple(dict.fromkeys(filter(None, names))) or DEFAULT_FIELDS


def render_failure(failure: LookupFailure) -> Response:
    """A failure, with a code by which the callers of Meta know what to do."""
    status, code = FAILURES.get(type(failure), TRANSIENT)
    if code is not None:
        body = _error(code, MESSAGES[code], failure.said, is_transient=True)
    else:
        code = failure.said.code if failure.said else None
        code = PERMISSION if code is None else code
        # Not for want of consent, where 230 is what Meta gave: clients tell by words.
        text = "Requires a permission or a setting that the app or the Page lacks"
        body = _error(code, f"(#{code}) {text}", failure.said)
    response = responses.json_response(status, body)
    retry_after = problems.retry_after(failure, status)
    if retry_after is not None:
        response.headers["Retry-After"] = str(math.ceil(retry_after))
    response.headers["Cache-Status"] = cache_headers.failure_status(failure)
    return response


def render_problem(problem: Problem) -> Response:
    """A request that cannot be answered as asked; 190 is an unknown key, only."""
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
    """What the framework refuses: there is one path here, and one method."""
    if error.code in (404, 405):
        return _nothing_here()
    return render_problem(Problem("invalid_request", "The request is malformed."))


def render_unknown_page(unknown: UnknownPage) -> Response:
    """A Page that is none, as Meta would not know an object. Nobody is asked."""
    return render_problem(Problem("unknown_page", str(unknown)))


def render_bug() -> Response:
    """A bug of ours, as Meta would not explain one either."""
    return responses.json_response(500, _error(1, "(#1) An unknown error occurred"))


def _nothing_here() -> Response:
    message = (
        f"(#{INVALID}) Unsupported request: this proxy supports only"
        " GET /v<N>.<M>/<igsid>, for one person"
    )
    return responses.json_response(404, _error(INVALID, message))


def _environ_with_key() -> Environ:
    """Return the WSGI environ, with ``access_token`` of the query as the API key.

    The key is read here, and is passed to nothing but the authenticator.
    """
    token = request.args.get("access_token")
    if not token:
        return request.environ
    return {**request.environ, "HTTP_AUTHORIZATION": f"Bearer {token}"}


def _rendition(
    entry: Entry, fields: tuple[str, ...], words_of: WordsOf
) -> representations.Representation:
    match entry.outcome:
        case Profile() as profile:
            return representations.json_representation(
                entry, 200, responses.JSON, _node(profile, fields)
            )
        case Refusal() as refusal:
            status, message, type_ = words_of(refusal)
            error = _error(refusal.said.code, message, refusal.said, type_=type_)
            if refusal.said.subcode is not None:
                error["error"]["error_subcode"] = refusal.said.subcode
            return representations.json_representation(
                entry, status, responses.JSON, error
            )


def _node(profile: Profile, fields: tuple[str, ...]) -> dict[str, Any]:
    told = {
        field: value
        for field in fields
        if field != "id"
        and ((value := getattr(profile, field)) is not None or field in NULLABLE)
    }
    return told | {"id": profile.igsid}


def _error(
    code: int | None,
    message: str,
    said: GraphError | None = None,
    *,
    type_: str = "OAuthException",
    is_transient: bool = False,
) -> dict[str, dict[str, Any]]:
    """Meta's envelope. Nothing of what Meta said, but its trace id, comes from *said*.

    Source: https://developers.facebook.com/docs/graph-api/guides/error-handling
    """
    error: dict[str, Any] = {"message": message, "type": type_}
    if is_transient:
        error["is_transient"] = True
    error["code"] = code
    if said is not None and said.fbtrace_id is not None:
        error["fbtrace_id"] = said.fbtrace_id
    return {"error": error}
