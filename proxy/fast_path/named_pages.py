"""The fast paths of named Pages, whose people are at the same paths behind a prefix."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from proxy.domain.profile import DEFAULT_PAGE
from proxy.fast_path.middleware import Answered, Environ, Hits
from proxy.logs import log_access
from proxy.lookup.lookup import ProfileLookup
from proxy.lookup.pages import Pages
from proxy.web.page_prefix import PREFIX

_PATH = re.compile(r"/pages/([^/]+)(/profiles(?:/.*)?)", re.DOTALL)

NewHits = Callable[[str, ProfileLookup], Hits]
"""Makes the hit path of a Page."""


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
