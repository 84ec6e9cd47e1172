"""The fast paths of named Pages, whose people are at the same paths behind a prefix."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from proxy.domain.profile import DEFAULT_PAGE
from proxy.fast_path.middleware import Environ, FastPathCall, RawResponse
from proxy.logs import log_access
from proxy.lookup.lookup import ProfileLookup
from proxy.lookup.pages import Pages
from proxy.web.page_prefix import PREFIX

_PATH = re.compile(r"/pages/([^/]+)(/profiles(?:/.*)?)", re.DOTALL)

NewFastPath = Callable[[str, ProfileLookup], FastPathCall]
"""Makes the hit path of a Page."""


def log_access_of(name: str) -> Callable[..., None]:
    """How a hit path writes the line of a request about the Page of that *name*."""
    if name == DEFAULT_PAGE:
        return log_access

    def log(*, route: str = "/profiles/<igsid>", **line: Any) -> None:
        log_access(route=PREFIX + route, page=name, **line)

    return log


class NamedPageFastPaths:
    """Hits on a named Page's people, who are at the same paths behind its prefix."""

    def __init__(self, pages: Pages, new_fast_path: NewFastPath) -> None:
        self._pages = pages
        self._new_fast_path = new_fast_path
        self._known: dict[str, tuple[ProfileLookup, FastPathCall]] = {}

    def __call__(self, environ: Environ) -> RawResponse | None:
        path = environ["PATH_INFO"]
        asked = _PATH.fullmatch(path)
        fast_path = self._fast_path(asked[1]) if asked else None
        if asked is None or fast_path is None:
            return None
        environ["PATH_INFO"] = asked[2]
        try:
            return fast_path(environ)
        finally:
            environ["PATH_INFO"] = path

    def _fast_path(self, name: str) -> FastPathCall | None:
        page = self._pages.get(name)
        if page is None:
            self._known.pop(name, None)
            return None
        known, fast_path = self._known.get(name, (None, None))
        if (
            fast_path is None or known is not page
        ):  # The first time, or it was made anew.
            fast_path = self._new_fast_path(name, page)
            self._known[name] = page, fast_path
        return fast_path
