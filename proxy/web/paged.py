"""Where a Page is named: the same routes, below ``/pages/<page>``.

A route finds the Page of its request in ``g.page``. The plain hits of a named Page
are answered before Flask too, by a hit path of its own, behind that of the default
Page, which they cost nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from flask import Blueprint, Response, g

from proxy.logs import log_access
from proxy.lookup import ProfileLookup
from proxy.outcomes import DEFAULT_PAGE
from proxy.pages import Pages, UnknownPage
from proxy.web import responses
from proxy.web.hitpath import Environ, Wsgi
from proxy.web.problems import Problem

PREFIX = "/pages/<page>"

_PATH = re.compile(r"/pages/([^/]+)(/profiles(?:/.*)?)", re.DOTALL)

_WHOLE = "profile-proxy.path"
"""Where a request has its path, while a hit path sees it without the prefix."""

NewFront = Callable[[Wsgi, str, ProfileLookup], Wsgi]
"""Makes the hit path of a Page, in front of what it hands on to."""


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
    """WSGI in front of the app: a named Page's people are its own hit path's."""

    def __init__(self, app: Wsgi, pages: Pages, new_front: NewFront) -> None:
        self._app = app
        self._pages = pages
        self._new_front = new_front
        self._fronts: dict[str, tuple[ProfileLookup, Wsgi]] = {}

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        asked = _PATH.fullmatch(path)
        front = self._front(asked[1]) if asked else None
        if asked is None or front is None:
            return self._app(environ, start_response)
        environ[_WHOLE], environ["PATH_INFO"] = path, asked[2]
        return front(environ, start_response)

    def _front(self, name: str) -> Wsgi | None:
        page = self._pages.get(name)
        if page is None:
            self._fronts.pop(name, None)
            return None
        known, front = self._fronts.get(name, (None, self._app))
        if known is not page:  # The first time, or it was made anew.
            front = self._new_front(self._hand_on, name, page)
            self._fronts[name] = page, front
        return front

    def _hand_on(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        environ["PATH_INFO"] = environ.pop(_WHOLE)
        return self._app(environ, start_response)
