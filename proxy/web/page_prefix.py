"""Where a Page is named: the same routes, below ``/pages/<page>``.

A route finds the Page of its request in ``g.page``. The plain hits of a named Page
are answered before Flask too, by a hit path of its own, behind that of the default
Page, which they cost nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, g

from proxy.domain.outcomes import DEFAULT_PAGE
from proxy.logs import log_access
from proxy.lookup.lookup import ProfileLookup
from proxy.lookup.pages import Pages, UnknownPage
from proxy.web import responses
from proxy.web.hitpath import Answered, Environ, Hits
from proxy.web.problems import Problem

PREFIX = "/pages/<page>"

_PATH = re.compile(r"/pages/([^/]+)(/profiles(?:/.*)?)", re.DOTALL)

NewHits = Callable[[str, ProfileLookup], Hits]
"""Makes the hit path of a Page."""


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


def log_access_of(name: str) -> Callable[..., None]:
    """How a hit path writes the line of a request about the Page of that *name*."""
    if name == DEFAULT_PAGE:
        return log_access

    def log(*, route: str = "/profiles/<igsid>", **line: Any) -> None:
        log_access(route=PREFIX + route, page=name, **line)

    return log


class PagedHits:
    """Hits on a named Page's people, who are at the same paths behind its prefix."""

    def __init__(self, pages: Pages, new_hits: NewHits) -> None:
        self._pages = pages
        self._new_hits = new_hits
        self._known: dict[str, tuple[ProfileLookup, Hits]] = {}

    def __call__(self, environ: Environ) -> Answered | None:
        path = environ["PATH_INFO"]
        asked = _PATH.fullmatch(path)
        hits = self._hits(asked[1]) if asked else None
        if asked is None or hits is None:
            return None
        environ["PATH_INFO"] = asked[2]
        try:
            return hits(environ)
        finally:
            environ["PATH_INFO"] = path

    def _hits(self, name: str) -> Hits | None:
        page = self._pages.get(name)
        if page is None:
            self._known.pop(name, None)
            return None
        known, hits = self._known.get(name, (None, None))
        if hits is None or known is not page:  # The first time, or it was made anew.
            hits = self._new_hits(name, page)
            self._known[name] = page, hits
        return hits
