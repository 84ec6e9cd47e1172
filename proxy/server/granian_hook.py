"""Ask the fast path before granian makes a WSGI environ of a request.

A trick: it replaces a private function of granian, ``mp._wsgi_call_wrap``, because
there is no public way in. It gains about 7 % of a hit's CPU time. Its price is that
granian must be older than 2.9; tests/unit/server/test_granian_hook.py fails when the
name is gone. Deleting it costs those 7 %: hits would be answered by the middleware.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Flask
from granian.server import mp

from proxy.fast_path.middleware import FastPathMiddleware

GranianCallback = Callable[[Any, dict[str, Any]], int]
"""Answers a request on granian's protocol object, and returns the status."""

Wrap = Callable[[GranianCallback], GranianCallback]


def unwrapped(callback: GranianCallback) -> GranianCallback:
    """Return *callback* itself."""
    return callback


def ask_fast_path_before_wsgi(around_views: Wrap = unwrapped) -> None:
    """Make the granian of this process ask the fast path before it uses WSGI.

    WSGI costs a hit a fourteenth: nine constant environ keys, the start_response
    call, and formatting a status line that granian parses again. Everything that
    tells one request from another is available without it. *around_views* wraps
    the callback that gets the requests which the fast path passes on.
    """
    mp._wsgi_call_wrap = fast_path_first(  # type: ignore[attr-defined]
        mp._wsgi_call_wrap,  # type: ignore[attr-defined]
        around_views,
    )


def fast_path_first(
    make_wsgi: Callable[..., Any], around_views: Wrap = unwrapped
) -> Callable[..., Any]:
    """Wrap *make_wsgi*, by which granian turns an app and options into a callback."""

    def make(app: Flask, *options: Any) -> GranianCallback:
        front = app.wsgi_app
        assert isinstance(front, FastPathMiddleware)
        call_app = around_views(make_wsgi(front.app, *options))

        def answer(protocol: Any, environ: dict[str, Any]) -> int:
            answered = front.fast_path(environ)
            if answered is None:
                return int(call_app(protocol, environ))
            protocol.response_bytes(*answered)
            return answered[0]

        return answer

    return make
