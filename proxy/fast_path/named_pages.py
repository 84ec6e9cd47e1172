"""The fast paths of named Pages, which serve the same paths behind a prefix."""

from __future__ import annotations

import re
from collections.abc import Callable

from proxy.fast_path.middleware import Environ, FastPathCall
from proxy.lookup.lookup import ProfileLookup
from proxy.lookup.pages import Pages
from proxy.web.responses import RawResponse

_PATH = re.compile(r"/pages/([^/]+)(/profiles(?:/.*)?)", re.DOTALL)

NewFastPath = Callable[[str, ProfileLookup], FastPathCall]
"""Builds the fast path of one Page."""


class NamedPageFastPaths:
    """Passes a request below a Page's prefix to the fast path of that Page."""

    def __init__(self, pages: Pages, new_fast_path: NewFastPath) -> None:
        self._pages = pages
        self._new_fast_path = new_fast_path
        self._fast_paths: dict[str, tuple[ProfileLookup, FastPathCall]] = {}

    def __call__(self, environ: Environ) -> RawResponse | None:
        path = environ["PATH_INFO"]
        match = _PATH.fullmatch(path)
        fast_path = self._fast_path(match[1]) if match else None
        if match is None or fast_path is None:
            return None
        environ["PATH_INFO"] = match[2]
        try:
            return fast_path(environ)
        finally:
            environ["PATH_INFO"] = path

    def _fast_path(self, name: str) -> FastPathCall | None:
        page = self._pages.get(name)
        if page is None:
            self._fast_paths.pop(name, None)
            return None
        built_for, fast_path = self._fast_paths.get(name, (None, None))
        # Built on the first request, and again after the Page was replaced.
        if fast_path is None or built_for is not page:
            fast_path = self._new_fast_path(name, page)
            self._fast_paths[name] = page, fast_path
        return fast_path
