"""Hits before Flask: the plain question, about somebody known, answered at once.

Most of what a hit costs in a view is the framework's: the routing, the contexts, the
response object. So the plain case is answered in front of it, from the same store and
with the same renditions, and everything else is handed on untouched. Whatever is
answered here, the view would have answered in the same words.

It is asked for a status, headers and a body, so that a server may have them as they
are; `FastPathMiddleware` makes WSGI of them for one that knows nothing else.

Tens of thousands of times a second, so what can be looked at a few times a second is,
and a call that need not be one is none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Protocol

from proxy.domain.failures import StoreUnavailable
from proxy.domain.profile import Igsid
from proxy.fast_path.cached_response import (
    PICTURE,
    WITH_INITIALS,
    CachedResponse,
    serve,
    serve_copied_picture,
    serve_copy,
    serve_picture,
)
from proxy.fast_path.middleware import Environ, FastPathCall, RawResponse, no_fast_path
from proxy.storage.codec import StoredEntry
from proxy.storage.entries import Snapshot
from proxy.storage.near_cache import LocalEntry
from proxy.web import representations, request_params, responses
from proxy.web.auth import Authenticator, Scope
from proxy.web.problems import Problem
from proxy.web.request_params import SNAPSHOT

PLACE = PAGE = "/profiles"
"""Where people are, by their ids; and a page of them, by a query."""

PATH = PLACE + "/"

IDS = re.compile(r"ids=[0-9]{5,25}(?:(?:,|%2[Cc])[0-9]{5,25}){0,99}", re.ASCII)
"""A query for a page of people and nothing else."""

NOT_PLAIN = (
    "HTTP_IF_NONE_MATCH",
    "HTTP_CACHE_CONTROL",
    "CONTENT_LENGTH",
    "HTTP_TRANSFER_ENCODING",
    "HTTP_UPGRADE",
)
"""What a request may not have that is answered here: conditions, directives, a body,
and the wish for another protocol, which the framework judges."""

TICK = 0.25
"""Seconds between two looks at what need not be looked at for each request."""

MOST_AUTHORIZED = 1024
"""Ways to show a key that are remembered from tick to tick."""


class People(Protocol):
    """What is known of people here, without asking anybody."""

    def recall(self, igsid: str) -> LocalEntry | None: ...

    def read(self, igsid: Igsid) -> Snapshot: ...


class FastPath:
    """The hits of one Page: what has a condition, directive or body is none."""

    def __init__(
        self,
        people: People,
        authenticator: Authenticator,
        *,
        now: Callable[[], float],
        draining: Callable[[], bool],
        each_tick: Callable[[], None],
        answers: dict[tuple[str, str], int],
        log_access: Callable[..., None] | None = None,
        behind: FastPathCall = no_fast_path,
    ) -> None:
        """*now* is epoch seconds; *each_tick* is called so often, while asked.

        *answers* counts by source and outcome (see `proxy.observability.metrics`).
        What is no hit here may be one *behind*.
        """
        self._behind = behind
        self._people = people
        self._authenticator = authenticator
        self._now = now
        self._draining = draining
        self._each_tick = each_tick
        self._answers = answers
        self._log_access = log_access
        self._recall = people.recall
        self._authorized: set[str | None] = set()
        self._tick_at = -math.inf

    def __call__(self, environ: Environ) -> RawResponse | None:
        path = environ["PATH_INFO"]
        place, _, last = path.rpartition("/")
        if (
            place == PLACE
            and environ["REQUEST_METHOD"] == "GET"
            and not environ.get("QUERY_STRING")
            and "HTTP_IF_NONE_MATCH" not in environ
            and "HTTP_CACHE_CONTROL" not in environ
            and "CONTENT_LENGTH" not in environ
            and "HTTP_TRANSFER_ENCODING" not in environ
            and "HTTP_UPGRADE" not in environ
        ):
            now = self._now()
            if not self._tick_at - TICK <= now < self._tick_at:
                self._tick(now)  # Also after the clock was set back.
            if environ.get("HTTP_AUTHORIZATION") in self._authorized or self._authorize(
                environ
            ):
                # Not yet known to be an id: if it is none, nothing is under it.
                copy = self._recall(last)
                served: CachedResponse | None = (
                    copy.served if copy is not None else None
                )
                if served is None:
                    served = self._find(environ, last, copy, now)
                if served is not None and now < served.fresh_until:
                    request_id = request_params.request_id(
                        environ.get("HTTP_X_REQUEST_ID")
                    )
                    headers = served.headers(now, request_id)
                    if self._draining():
                        headers.append(responses.CLOSE)
                    if self._log_access is not None:
                        self._log_access(
                            igsid=last,
                            status=served.status,
                            cache_status=dict(headers)["Cache-Status"],
                            seconds=self._now() - now,
                            request_id=request_id,
                        )
                    self._answers[served.counted_as] += 1
                    return served.status, headers, served.body
        elif path == PAGE and _is_plain(environ):
            return self._answer_page(environ)
        elif last == PICTURE and place.startswith(PATH) and _is_plain(environ):
            return self._answer_picture(environ, place[len(PATH) :])
        return self._behind(environ)

    def _answer_page(self, environ: Environ) -> RawResponse | None:
        """A page of people, if all of them are known to this process itself."""
        now = self._now()
        page = self._find_page(environ, now) if self._may_read(environ, now) else None
        if page is None:
            return None
        profiles: dict[str, bytes] = {}
        problems: dict[str, bytes] = {}
        for igsid, served in page.items():
            to = profiles if served.status == HTTPStatus.OK else problems
            to[igsid] = served.body
            self._answers[served.counted_as] += 1
        body = representations.page_body(profiles, problems)
        request_id = request_params.request_id(environ.get("HTTP_X_REQUEST_ID"))
        headers = [
            *representations.page_headers(body),
            responses.NOSNIFF,
            ("X-Request-ID", request_id),
        ]
        if self._draining():
            headers.append(responses.CLOSE)
        if self._log_access is not None:
            self._log_access(
                igsid=None,
                status=200,
                cache_status=None,
                seconds=self._now() - now,
                request_id=request_id,
                route=PAGE,
            )
        return HTTPStatus.OK, headers, body

    def _find_page(
        self, environ: Environ, now: float
    ) -> dict[str, CachedResponse] | None:
        query = environ["QUERY_STRING"]
        if IDS.fullmatch(query) is None:
            return None
        ids = query[len("ids=") :].upper().replace("%2C", ",").split(",")
        page: dict[str, CachedResponse] = {}
        for igsid in ids:
            copy = self._recall(igsid)
            if copy is None:
                return None
            served: CachedResponse = copy.served or serve_copy(copy)
            if now >= served.fresh_until:
                return None
            page[igsid] = served
        return page

    def _answer_picture(self, environ: Environ, igsid: str) -> RawResponse | None:
        """A person's picture, if the profile would be answered here."""
        query, now = environ["QUERY_STRING"], self._now()
        served = None
        if query in ("", WITH_INITIALS) and self._may_read(environ, now):
            served = self._find_picture(environ, igsid, query, now)
        if served is None or now >= served.fresh_until:
            return None
        request_id = request_params.request_id(environ.get("HTTP_X_REQUEST_ID"))
        headers = served.headers(now, request_id)
        if self._draining():
            headers.append(responses.CLOSE)
        if self._log_access is not None:
            self._log_access(
                igsid=igsid,
                status=served.status,
                cache_status=dict(headers)["Cache-Status"],
                seconds=self._now() - now,
                request_id=request_id,
                route="/profiles/<igsid>/picture",
            )
        self._answers[served.counted_as] += 1
        return served.status, headers, served.body

    def _find_picture(
        self, environ: Environ, igsid: str, query: str, now: float
    ) -> CachedResponse | None:
        copy = self._recall(igsid)
        if copy is not None:
            profile: CachedResponse = copy.served or serve_copy(copy)
            return profile.pictures.get(query) or serve_copied_picture(copy, query)
        form = self._read(environ, igsid, now)
        return serve_picture(form, query, source="hit") if form is not None else None

    def _may_read(self, environ: Environ, now: float) -> bool:
        if not self._tick_at - TICK <= now < self._tick_at:
            self._tick(now)  # Also after the clock was set back.
        return environ.get("HTTP_AUTHORIZATION") in self._authorized or self._authorize(
            environ
        )

    def _tick(self, now: float) -> None:
        self._tick_at = now + TICK
        self._authorized.clear()
        self._each_tick()

    def _authorize(self, environ: Environ) -> bool:
        """Whether the caller may read; whoever shows a key is known until the tick."""
        try:
            self._authenticator.authorize(environ, Scope.READ)
        except Problem:
            return False  # The view says why.
        if (
            self._authenticator.asks_for_keys
            and len(self._authorized) < MOST_AUTHORIZED
        ):
            self._authorized.add(environ.get("HTTP_AUTHORIZATION"))
        return True

    def _find(
        self, environ: Environ, text: str, copy: LocalEntry | None, now: float
    ) -> CachedResponse | None:
        """What is to be sent, of a *copy* or of what the store has; else the view's."""
        if copy is not None:
            return serve_copy(copy)
        form = self._read(environ, text, now)
        return serve(form, source="hit") if form is not None else None

    def _read(self, environ: Environ, text: str, now: float) -> StoredEntry | None:
        """What the store has of somebody, if it is fresh; else the view is told."""
        if not request_params.is_igsid(text):
            return None
        try:
            seen = self._people.read(text)
        except StoreUnavailable as away:
            environ[SNAPSHOT] = away
            return None
        form = seen.form
        if form is None or now >= form.fresh_until:
            environ[SNAPSHOT] = seen
            return None
        return form


def _is_plain(environ: Environ) -> bool:
    """Whether it is GET, with a query at most."""
    return environ["REQUEST_METHOD"] == "GET" and not any(
        name in environ for name in NOT_PLAIN
    )
