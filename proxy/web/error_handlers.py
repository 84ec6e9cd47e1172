"""Error handlers of the whole app: every error becomes a problem body.

Below a path of Meta's Graph API, it becomes an error in Meta's envelope instead.
"""

from __future__ import annotations

import logging

from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException

from proxy.domain.failures import LookupFailure, StoreUnavailable
from proxy.lookup.pages import UnknownPage
from proxy.web import graph_api, page_prefix, responses
from proxy.web.problems import Problem

log = logging.getLogger(__name__)


def register(app: Flask) -> None:
    """Handle every exception that a route or the framework can raise."""
    app.register_error_handler(Problem, responses.render_problem)
    app.register_error_handler(LookupFailure, responses.render_failure)
    app.register_error_handler(StoreUnavailable, responses.render_store_unavailable)
    app.register_error_handler(UnknownPage, page_prefix.render_unknown_page)
    app.register_error_handler(HTTPException, _render_http_error)
    app.register_error_handler(Exception, _render_bug)


def _render_http_error(error: HTTPException) -> Response:
    if graph_api.is_graph_path(request.path):
        return graph_api.render_http_error(error)
    return responses.render_http_error(error)


def _render_bug(exc: Exception) -> Response:
    log.exception("bug", extra={"request_id": g.request_id})
    if graph_api.is_graph_path(request.path):
        return graph_api.render_bug()
    return responses.render_problem(
        Problem(
            "internal_error",
            "This is a bug in the service. Its log has the details, under the"
            " X-Request-ID of this response.",
        )
    )
