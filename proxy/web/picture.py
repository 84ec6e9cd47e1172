"""A person's picture as HTTP: where it is, or initials in its place."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from flask import Response
from werkzeug.datastructures import Headers

from proxy.domain.answer import Answer
from proxy.domain.entry import Entry
from proxy.domain.failures import LookupFailure
from proxy.domain.profile import Profile
from proxy.web import cache_headers, initials, problems, representations
from proxy.web.problems import Problem
from proxy.web.representations import Representation

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

INITIALS = "initials"

SVG = "image/svg+xml"

SAFELY = ("Content-Security-Policy", "default-src 'none'; sandbox")
"""What is opened by itself may do nothing: it has a stranger's name in it."""

_LINK = re.compile(r"https?://[!-~]+", re.ASCII | re.IGNORECASE)
"""What is redirected to: of the web, and nothing that a header could not have."""


class _Redirect(Response):
    """To a link as it is: Werkzeug would write it anew, and Meta has signed it."""

    def get_wsgi_headers(self, environ: WSGIEnvironment) -> Headers:
        link = self.headers.pop("Location")
        headers = super().get_wsgi_headers(environ)
        headers["Location"] = self.headers["Location"] = link
        return headers


def read_fallback(asked: list[str]) -> bool:
    """Whether the ``fallback`` parameters *asked* for initials.

    Raises:
        Problem: ``invalid_fallback``; for something else, or twice.
    """
    if asked not in ([], [INITIALS]):
        raise Problem(
            "invalid_fallback", f"Send one parameter fallback, with value {INITIALS}."
        )
    return bool(asked)


def representation(entry: Entry, *, fallback: bool) -> Representation:
    """*entry* as a redirect to its picture; or why not, or with *fallback* initials.

    Kept by a caller for as long as the profile is fresh, which ends before the
    picture does.
    """
    outcome = entry.outcome
    if not isinstance(outcome, Profile):
        if not fallback:
            return representations.representation(entry)
        return _svg(initials.draw(outcome.igsid), "private, no-cache")
    kept = cache_headers.cache_control(entry)
    if outcome.profile_pic and _LINK.fullmatch(outcome.profile_pic):
        headers = [
            ("Content-Length", "0"),
            ("Cache-Control", kept),
            ("Location", outcome.profile_pic),
        ]
        return Representation(302, headers, b"", None)
    if fallback:
        drawn = initials.draw(outcome.igsid, outcome.name, outcome.username)
        return _svg(drawn, kept)
    return representations.problem_representation(
        "no_picture",
        f"This person has no picture. Send fallback={INITIALS} to get their initials.",
        outcome.igsid,
        kept,
    )


def render(answer: Answer, *, fallback: bool, now: float) -> Response:
    """An answer as HTTP, with how it came about."""
    made = representation(answer.entry, fallback=fallback)
    kind = _Redirect if made.status == 302 else Response
    response = kind(made.body, made.status, made.headers)
    if made.status == 302:
        del response.headers["Content-Type"]  # Flask's own, of a body that is none.
    response.headers["Age"] = str(cache_headers.age(answer.entry.fetched_at, now))
    response.headers["Cache-Status"] = cache_headers.cache_status(answer, now)
    return response


def render_failure(igsid: str, failure: LookupFailure) -> Response:
    """Initials of nobody, in place of a 5xx; others stay problems.

    Raises:
        LookupFailure: it is one of those.
    """
    if problems.FAILURES[type(failure)] < 500:
        raise failure
    made = _svg(initials.draw(igsid), "no-store")
    response = Response(made.body, made.status, made.headers)
    response.headers["Cache-Status"] = cache_headers.failure_status(failure)
    return response


def _svg(body: bytes, kept: str) -> Representation:
    headers = [
        ("Content-Type", SVG),
        ("Content-Length", str(len(body))),
        ("Cache-Control", kept),
        SAFELY,
    ]
    return Representation(200, headers, body, None)
