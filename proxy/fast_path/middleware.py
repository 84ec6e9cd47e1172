"""WSGI middleware that asks the fast path first."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

STATUS_LINES = {
    status.value: f"{status.value} {status.phrase.upper()}" for status in HTTPStatus
}
"""What WSGI calls each status."""

Environ = dict[str, Any]

Wsgi = Callable[[Environ, Any], Iterable[bytes]]

Answered = tuple[int, list[tuple[str, str]], bytes]
"""Status, headers and body."""

Hits = Callable[[Environ], Answered | None]
"""Answers a request at once; None leaves it to the view, untouched but for SNAPSHOT."""


class HitsFirst:
    """WSGI in front of an *app*, which has what is no plain hit.

    Source: https://flask.palletsprojects.com/en/stable/quickstart/#hooking-in-wsgi-middleware
    """

    def __init__(self, hits: Hits, app: Wsgi) -> None:
        self.hits = hits
        self.app = app

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        answered = self.hits(environ)
        if answered is None:
            return self.app(environ, start_response)
        status, headers, body = answered
        start_response(STATUS_LINES[status], headers)
        return [body]


def nobody(environ: Environ) -> None:
    """Knows nobody."""
