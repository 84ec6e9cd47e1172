"""Error handlers of the whole app: every error becomes a problem body.

Below a path of Meta's Graph API, it becomes an error in Meta's envelope instead.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException

from proxy.domain.failures import LookupFailure, StoreUnavailable
from proxy.lookup.pages import UnknownPage
from proxy.web import graph_api, page_prefix, responses
from proxy.web.problems import Problem

log = logging.getLogger(__name__)


def register(app: Flask) -> None:
    """Handle every exception that a route or the framework can raise."""
    for error, render, render_in_envelope in (
        (Problem, responses.render_problem, graph_api.render_problem),
        (LookupFailure, responses.render_failure, graph_api.render_failure),
        (
            StoreUnavailable,
            responses.render_store_unavailable,
            graph_api.render_store_unavailable,
        ),
        (UnknownPage, page_prefix.render_unknown_page, graph_api.render_unknown_page),
        (HTTPException, responses.render_http_error, graph_api.render_http_error),
        (Exception, _render_bug, _render_bug_in_envelope),
    ):
        app.register_error_handler(error, _by_path(render, render_in_envelope))


def _by_path(
    render: Callable[[Any], Response], render_in_envelope: Callable[[Any], Response]
) -> Callable[[Any], Response]:
    """Return a handler that renders by the path, whether a route has it or not."""

    def handle(error: Any) -> Response:
        if graph_api.is_graph_path(request.path):
            return render_in_envelope(error)
        return render(error)

    return handle


def _render_bug(exc: Exception) -> Response:
    _log_bug()
    return responses.render_problem(
        Problem(
            "internal_error",
            "This is a bug in the service. Its log has the details, under the"
            " X-Request-ID of this response.",
        )
    )


def _render_bug_in_envelope(exc: Exception) -> Response:
    _log_bug()
    return graph_api.render_bug()


def _log_bug() -> None:
    log.exception("bug", extra={"request_id": g.request_id})
