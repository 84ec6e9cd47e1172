"""Where a Page is named: the same routes, below ``/pages/<page>``.

A route finds the Page of its request in ``g.page``. The plain hits of a named Page
are answered before Flask too, by a hit path of its own, behind that of the default
Page, which they cost nothing.
"""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, g

from proxy.domain.profile import DEFAULT_PAGE
from proxy.lookup.pages import UnknownPage
from proxy.web import responses
from proxy.web.problems import Problem

PREFIX = "/pages/<page>"


def take_page(bp: Blueprint) -> None:
    """Have the routes of *bp* find in ``g.page`` which Page they are asked about.

    They are registered a second time with PREFIX, and are the same functions.

    Source: https://flask.palletsprojects.com/en/stable/patterns/urlprocessors/
    """

    @bp.url_value_preprocessor
    def take(endpoint: str | None, values: dict[str, Any] | None) -> None:
        g.page = (values or {}).pop("page", DEFAULT_PAGE)


def render_unknown_page(unknown: UnknownPage) -> Response:
    """There is no such Page. Which there are is not said."""
    return responses.render_problem(Problem("unknown_page", str(unknown)))
