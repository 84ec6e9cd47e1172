"""A person's picture as HTTP: a redirect to it, or initials instead."""

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

SANDBOX = ("Content-Security-Policy", "default-src 'none'; sandbox")
"""Forbids everything to an SVG opened as a document: it contains a stranger's name."""

_LINK = re.compile(r"https?://[!-~]+", re.ASCII | re.IGNORECASE)
"""Links that may be redirected to: HTTP only, and only characters valid in a header."""


class _Redirect(Response):
    """A redirect to an unchanged link: Werkzeug would change it, but it is signed."""

    def get_wsgi_headers(self, environ: WSGIEnvironment) -> Headers:
        link = self.headers.pop("Location")
        headers = super().get_wsgi_headers(environ)
        headers["Location"] = self.headers["Location"] = link
        return headers


def read_fallback(asked: list[str]) -> bool:
    """Return whether the ``fallback`` parameters *asked* for initials.

    Raises:
        Problem: ``invalid_fallback``; another value, or more than one.
    """
    if asked not in ([], [INITIALS]):
        raise Problem(
            "invalid_fallback", f"Send one parameter fallback, with value {INITIALS}."
        )
    return bool(asked)


def representation(entry: Entry, *, fallback: bool) -> Representation:
    """Represent *entry* as a redirect to its picture, or as a problem.

    With *fallback*, initials replace the problem. Callers may cache it for as long
    as the profile is fresh, which ends before the picture's link expires.
    """
    outcome = entry.outcome
    if not isinstance(outcome, Profile):
        if not fallback:
            return representations.representation(entry)
        return _svg(initials.draw(outcome.igsid), "private, no-cache")
    cache_control = cache_headers.cache_control(entry)
    if outcome.profile_pic and _LINK.fullmatch(outcome.profile_pic):
        headers = [
            ("Content-Length", "0"),
            ("Cache-Control", cache_control),
            ("Location", outcome.profile_pic),
        ]
        return Representation(302, headers, b"", None)
    if fallback:
        drawn = initials.draw(outcome.igsid, outcome.name, outcome.username)
        return _svg(drawn, cache_control)
    return representations.problem_representation(
        "no_picture",
        f"This person has no picture. Send fallback={INITIALS} to get their initials.",
        outcome.igsid,
        cache_control,
    )


def render(answer: Answer, *, fallback: bool, now: float) -> Response:
    """Render the picture, with the age of the answer and its Cache-Status."""
    made = representation(answer.entry, fallback=fallback)
    kind = _Redirect if made.status == 302 else Response
    response = kind(made.body, made.status, made.headers)
    if made.status == 302:
        del response.headers["Content-Type"]  # Flask adds it even to an empty body.
    cache_headers.set_headers(response.headers, answer, now)
    return response


def render_failure(igsid: str, failure: LookupFailure) -> Response:
    """Render initials without a name in place of a 5xx.

    Raises:
        LookupFailure: its status is below 500, so it stays a problem.
    """
    if problems.FAILURES[type(failure)] < 500:
        raise failure
    made = _svg(initials.draw(igsid), "no-store")
    response = Response(made.body, made.status, made.headers)
    response.headers["Cache-Status"] = cache_headers.failure_status(failure)
    return response


def _svg(body: bytes, cache_control: str) -> Representation:
    headers = [
        ("Content-Type", SVG),
        ("Content-Length", str(len(body))),
        ("Cache-Control", cache_control),
        SANDBOX,
    ]
    return Representation(200, headers, body, None)
