"""Hooks that run before and after every route: id, length, headers, access log."""

from __future__ import annotations

import time
from collections.abc import Callable

from flask import Flask, Response, g, request

from proxy.logs import log_access
from proxy.web import request_params, responses
from proxy.web.request_body import check_length


def register(app: Flask, *, access_log: bool, draining: Callable[[], bool]) -> None:
    """Give every request an id, and finish every response.

    While the server is *draining*, responses close their connection.
    """

    @app.before_request
    def begin_request() -> None:
        g.started = time.monotonic()
        g.request_id = request_params.request_id(request.headers.get("X-Request-ID"))
        if request.routing_exception is None:
            check_length(request)

    @app.after_request
    def finish_response(response: Response) -> Response:
        response.headers["X-Request-ID"] = g.request_id
        response.headers.update([responses.NOSNIFF])
        if draining():
            response.headers.update([responses.CLOSE])
        if access_log:
            _log(response)
        return response


def _log(response: Response) -> None:
    log_access(
        method=request.method,
        route=request.url_rule.rule if request.url_rule else None,
        igsid=(request.view_args or {}).get("igsid"),
        status=response.status_code,
        page=g.get("page"),
        cache_status=response.headers.get("Cache-Status"),
        seconds=time.monotonic() - g.started,
        request_id=g.request_id,
    )
