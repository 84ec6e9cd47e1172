"""WSGI middleware that asks the fast path first."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from proxy.web.responses import RawResponse

STATUS_LINES = {
    status.value: f"{status.value} {status.phrase.upper()}" for status in HTTPStatus
}
"""The status line that WSGI expects, by status code."""

Environ = dict[str, Any]

Wsgi = Callable[[Environ, Any], Iterable[bytes]]

FastPathCall = Callable[[Environ], RawResponse | None]
"""Answers a request from the cache, or returns None to pass it on to the view.

It leaves the environ as it is, except that it may add `request_params.SNAPSHOT`.
"""


class FastPathMiddleware:
    """Wraps a WSGI *app*, which serves every request that the fast path passes on.

    Source: https://flask.palletsprojects.com/en/stable/quickstart/#hooking-in-wsgi-middleware
    """

    def __init__(self, fast_path: FastPathCall, app: Wsgi) -> None:
        self.fast_path = fast_path
        self.app = app

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        answered = self.fast_path(environ)
        if answered is None:
            return self.app(environ, start_response)
        status, headers, body = answered
        start_response(STATUS_LINES[status], headers)
        return [body]


def no_fast_path(environ: Environ) -> None:
    """Pass every request on to the view."""
