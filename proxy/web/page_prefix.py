"""The routes of named Pages: the same routes again, below ``/pages/<page>``.

A route finds its Page's name in ``g.page``, and its lookup in ``g.lookup``. Each named
Page has a fast path of its own, too. It is asked after the default Page's, so that it
adds no cost there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Blueprint, Flask, Response, g, request

from proxy.domain.profile import DEFAULT_PAGE
from proxy.logs import set_caller
from proxy.lookup.pages import Pages, UnknownPage
from proxy.web import responses
from proxy.web.auth import Authenticator, Client, Environ, Scope
from proxy.web.problems import Problem

PREFIX = "/pages/<page>"


def prepare_requests(
    bp: Blueprint,
    pages: Pages,
    authenticator: Authenticator,
    scope: Scope,
    environ: Callable[[], Environ] = lambda: request.environ,
    client_of_link: Callable[[], Client | None] = lambda: None,
) -> None:
    """Before each route of *bp*, authorize the caller and find the Page.

    In this order: a caller without a key must not learn which Pages exist. *environ*
    holds the caller's key; *client_of_link* returns the client of a request that a
    signed link authorizes. Sets ``g.page``, ``g.client`` and ``g.lookup``.

    Source: https://flask.palletsprojects.com/en/stable/patterns/urlprocessors/
    """

    @bp.url_value_preprocessor
    def take_page(endpoint: str | None, values: dict[str, Any] | None) -> None:
        g.page = (values or {}).pop("page", DEFAULT_PAGE)

    @bp.before_request
    def authorize() -> None:
        if client := client_of_link():
            set_client(client)
        else:
            authorize_request(authenticator, scope, environ())
        g.lookup = pages.find(g.page)


def authorize_request(
    authenticator: Authenticator, scope: Scope, environ: Environ
) -> None:
    """Authorize the caller, and name its key in the log lines about this request.

    Sets ``g.client``.

    Raises:
        Problem: ``unknown_key``, ``scope_missing`` or ``not_local``.
    """
    set_client(authenticator.authorize(environ, scope))


def set_client(client: Client) -> None:
    """Set ``g.client``, and name it in the log lines about this request."""
    g.client = client
    set_caller(g.request_id, client.name)


def register(app: Flask, bp: Blueprint) -> None:
    """Register the routes of *bp* twice: for the default Page, and below PREFIX."""
    app.register_blueprint(bp)
    app.register_blueprint(
        bp, name=f"{bp.name}_of_page", url_prefix=f"{PREFIX}{bp.url_prefix or ''}"
    )


def render_unknown_page(unknown: UnknownPage) -> Response:
    """Render the problem of an unknown Page, without the names of those that exist."""
    return responses.render_problem(Problem("unknown_page", str(unknown)))
