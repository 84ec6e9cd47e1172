"""Hooks that run before and after every route: id, length, headers, logs."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable

from flask import Flask, Response, g, request

from proxy.logs import (
    NO_CALLER,
    OncePerSecond,
    clear_caller,
    log_access,
    set_caller,
)
from proxy.observability.request_metrics import RequestMetrics
from proxy.web import request_params, responses, route_labels
from proxy.web.problems import Problem
from proxy.web.request_body import check_length

log = logging.getLogger(__name__)

OF_A_CALLER = frozenset({"unknown_key", "scope_missing", "not_local"})
"""The problems of one of the operator's own services. Its address is logged; that of
others, such as a browser, may be a person's."""


def register(
    app: Flask,
    requests: RequestMetrics,
    *,
    access_log: bool,
    draining: Callable[[], bool],
) -> None:
    """Give every request an id, and finish, count and log every response.

    While the server is *draining*, responses close their connection.
    """
    # By code: strangers with old picture links must not hide an unknown key.
    refusals: dict[str, OncePerSecond] = defaultdict(OncePerSecond)

    @app.before_request
    def begin_request() -> None:
        g.started = time.monotonic()
        g.request_id = request_params.request_id(request.headers.get("X-Request-ID"))
        set_caller(g.request_id)
        if request.routing_exception is None:
            check_length(request)

    @app.after_request
    def finish_response(response: Response) -> Response:
        response.headers["X-Request-ID"] = g.request_id
        response.headers.update([responses.NOSNIFF])
        if draining() or _has_unread_body():
            response.headers.update([responses.CLOSE])
        elif _is_kept(response):
            response.headers.update([responses.KEEP_ALIVE])
        _count(response, requests)
        if access_log:
            _log(response)
        if response.status_code in (401, 403) and "problem" in g:
            _log_refusal(g.problem, refusals[g.problem.code])
        return response

    @app.teardown_request
    def end_request(_: BaseException | None) -> None:
        clear_caller()


def _is_kept(response: Response) -> bool:
    """Return whether the connection stays open, as far as it is known here."""
    asked = request.headers.get("Connection", "").lower()
    return not ("close" in asked or "Connection" in response.headers)


def _has_unread_body() -> bool:
    """Return whether the request has a body that no route has read.

    The server ends the connection then, unless all of the body has come already. A
    client that is not told so loses its next request.
    """
    return bool(request.content_length) and not g.get("is_body_read", False)


def _count(response: Response, requests: RequestMetrics) -> None:
    requests.count(
        route_labels.label_of(request),
        response.status_code,
        _page(),
        time.monotonic() - g.started,
    )


def _log(response: Response) -> None:
    log_access(
        method=request.method,
        route=route_labels.label_of(request),
        igsid=(request.view_args or {}).get("igsid"),
        status=response.status_code,
        page=g.get("page"),
        cache_status=response.headers.get("Cache-Status"),
        seconds=time.monotonic() - g.started,
        request_id=g.request_id,
        key=g.client.name if "client" in g else NO_CALLER.key,
    )


def _log_refusal(problem: Problem, refusals: OncePerSecond) -> None:
    """Warn that a caller may not do this, unless *refusals* leaves it out."""
    left_out = refusals.take()
    if left_out is None:
        return
    line: dict[str, object] = {"route": route_labels.label_of(request)}
    line |= {"page": _page(), "code": problem.code, "left_out": left_out}
    if problem.key is not None:
        line["key"] = problem.key
    if problem.code in OF_A_CALLER:
        line["address"] = request.remote_addr
    log.warning("caller refused", extra=line)


def _page() -> str:
    """Return the label of the Page that was asked for."""
    return route_labels.page_label(g.get("page"), is_served="lookup" in g)
