"""Answers plain requests from the cache before Flask is involved.

Most of what a hit costs in a view is the framework: the routing, the contexts, the
response object. So plain requests for fresh entries are answered here, from the same
store and the same representations, and every other request is passed on unchanged.
A response is byte for byte the one that the view would send.

The fast path returns a status, headers and a body, which a server may send directly;
`FastPathMiddleware` adapts that to WSGI for servers that support nothing else.

It runs tens of thousands of times a second. So checks that tolerate staleness run once
per tick, and helpers are inlined.
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
    CachedResponse,
    picture_from_local,
    picture_from_stored,
    response_from_local,
    response_from_stored,
)
from proxy.fast_path.middleware import Environ, FastPathCall, no_fast_path
from proxy.fast_path.page_links import QUERY, WITH_INITIALS, PageLinks, TodaysLinks
from proxy.logs import NO_CALLER
from proxy.observability.metrics import PageMetrics
from proxy.storage.codec import StoredEntry
from proxy.storage.near_cache import LocalEntry
from proxy.storage.snapshot import Snapshot
from proxy.web import batch, request_params, responses
from proxy.web.auth import LINK_CLIENT, Authenticator, Scope
from proxy.web.problems import Problem
from proxy.web.request_params import SNAPSHOT
from proxy.web.responses import RawResponse

BATCH = "/profiles"
"""The path of a batch of people, by a query; the parent of each person's path."""

PEOPLE = BATCH + "/"

PICTURE_ROUTE = "/profiles/<igsid>/picture"

IDS = re.compile(r"ids=[0-9]{5,25}(?:(?:,|%2[Cc])[0-9]{5,25}){0,99}", re.ASCII)
"""A query for a batch of people without any other parameter."""

NOT_PLAIN = (
    "HTTP_IF_NONE_MATCH",
    "HTTP_CACHE_CONTROL",
    "CONTENT_LENGTH",
    "HTTP_TRANSFER_ENCODING",
)
"""Environ keys that a plain request lacks: conditions, directives and a body."""

KEPT = frozenset({None, "keep-alive", "Keep-Alive"})
"""What a plain request says of its connection. Otherwise it is to be closed, or to
change its protocol, which the framework handles."""

TICK = 0.25
"""Seconds between two runs of the checks that tolerate staleness."""

MOST_AUTHORIZED = 1024
"""The most Authorization headers that are remembered until the next tick."""


class Entries(Protocol):
    """Reads entries from this process's near cache, or from the store."""

    def recall(self, igsid: str) -> LocalEntry | None: ...

    def read(self, igsid: Igsid) -> Snapshot: ...


class FastPath:
    """Answers plain requests about the people of one Page from fresh entries.

    A request with a condition, a directive or a body is not plain.
    """

    def __init__(
        self,
        entries: Entries,
        authenticator: Authenticator,
        *,
        now: Callable[[], float],
        draining: Callable[[], bool],
        on_tick: Callable[[], None],
        metrics: PageMetrics,
        log_access: Callable[..., None] | None = None,
        next_fast_path: FastPathCall = no_fast_path,
        links: PageLinks | None = None,
    ) -> None:
        """*now* is epoch seconds; *on_tick* is called once per TICK with requests.

        *metrics* are the Page's own (see `proxy.observability.metrics`).
        *next_fast_path* may answer a request that is not about this Page. *links* are
        the Page's picture links, if there are any.
        """
        self._links = links
        self._next_fast_path = next_fast_path
        self._entries = entries
        self._authenticator = authenticator
        self._now = now
        self._draining = draining
        self._on_tick = on_tick
        self._plain_hits = metrics.plain_hits
        self._answers = metrics.answers
        self._requests = metrics.requests
        self._log_access = log_access
        self._recall = entries.recall
        self._authorized: dict[str | None, str] = {}
        self._tick_at = -math.inf

    def __call__(self, environ: Environ) -> RawResponse | None:
        path = environ["PATH_INFO"]
        parent, _, last = path.rpartition("/")
        if (
            parent == BATCH
            and environ["REQUEST_METHOD"] == "GET"
            and not environ.get("QUERY_STRING")
            and "HTTP_IF_NONE_MATCH" not in environ
            and "HTTP_CACHE_CONTROL" not in environ
            and "CONTENT_LENGTH" not in environ
            and "HTTP_TRANSFER_ENCODING" not in environ
            and ("HTTP_CONNECTION" not in environ or environ["HTTP_CONNECTION"] in KEPT)
        ):
            # One profile. All of it is inlined here: a call more can be measured.
            now = self._now()
            if not self._tick_at - TICK <= now < self._tick_at:
                self._tick(now)  # Also after the clock was set back.
            if environ.get("HTTP_AUTHORIZATION") in self._authorized or self._authorize(
                environ
            ):
                # *last* may not be an igsid: then no entry is cached under it.
                local = self._recall(last)
                cached: CachedResponse | None = (
                    local.served if local is not None else None
                )
                if cached is None or now >= cached.sent_until:
                    cached = self._find(environ, last, local, now)
                if cached is not None:
                    request_id = request_params.request_id(
                        environ.get("HTTP_X_REQUEST_ID")
                    )
                    headers = cached.headers(now, request_id)
                    if self._draining():
                        headers = responses.closing(headers)
                    if self._log_access is not None:
                        self._log_access(
                            igsid=last,
                            status=cached.status,
                            cache_status=dict(headers)["Cache-Status"],
                            seconds=self._now() - now,
                            request_id=request_id,
                            key=self._key_of(environ),
                        )
                    self._plain_hits[cached.counted_as] += 1
                    return cached.status, headers, cached.body
        elif path == BATCH and _is_plain(environ):
            return self._answer_batch(environ)
        elif last == PICTURE and parent.startswith(PEOPLE) and _is_plain(environ):
            return self._answer_picture(environ, parent[len(PEOPLE) :])
        return self._next_fast_path(environ)

    def _answer_batch(self, environ: Environ) -> RawResponse | None:
        """Answer with a batch of people, if this process has a copy of each entry."""
        now = self._now()
        found = self._find_batch(environ, now) if self._may_read(environ, now) else None
        if found is None:
            return None
        profiles: dict[str, bytes] = {}
        problems: dict[str, bytes] = {}
        for igsid, cached in found.items():
            bodies = profiles if cached.status == HTTPStatus.OK else problems
            bodies[igsid] = cached.body
            self._answers[cached.counted_as] += 1
        self._requests[BATCH, 200] += 1
        body = batch.batch_body(profiles, problems)
        headers = [
            *batch.batch_headers(body),
            *responses.EVERYWHERE,
            (
                "X-Request-ID",
                request_params.request_id(environ.get("HTTP_X_REQUEST_ID")),
            ),
        ]
        return self._send(
            environ, 200, headers, body, started_at=now, igsid=None, route=BATCH
        )

    def _find_batch(
        self, environ: Environ, now: float
    ) -> dict[str, CachedResponse] | None:
        query = environ["QUERY_STRING"].replace("&ids=", ",")
        if IDS.fullmatch(query) is None:
            return None
        ids = query[len("ids=") :].upper().replace("%2C", ",").split(",")
        found: dict[str, CachedResponse] = {}
        for igsid in ids:
            local = self._recall(igsid)
            if local is None:
                return None
            cached: CachedResponse | None = local.served
            if cached is None or now >= cached.sent_until:
                cached = self._find_local(local, now)
                if cached is None:
                    return None
            found[igsid] = cached
        return found

    def _answer_picture(self, environ: Environ, igsid: str) -> RawResponse | None:
        """Answer with a person's picture, if their profile would be answered here."""
        query, now = environ["QUERY_STRING"], self._now()
        key = None
        if self._links is not None and (link := QUERY.fullmatch(query)):
            self._keep_ticking(now)
            query, key = self._links.open(igsid, link, now), LINK_CLIENT.name
            if query is None:
                return None  # The view reports why.
        elif query not in ("", WITH_INITIALS) or not self._may_read(environ, now):
            return None
        cached = self._find_picture(environ, igsid, query, now)
        if cached is None or now >= cached.fresh_until:
            return None
        self._answers[cached.counted_as] += 1
        self._requests[PICTURE_ROUTE, cached.status] += 1
        return self._send(
            environ,
            cached.status,
            cached.headers(
                now, request_params.request_id(environ.get("HTTP_X_REQUEST_ID"))
            ),
            cached.body,
            started_at=now,
            igsid=igsid,
            route=PICTURE_ROUTE,
            key=key,
        )

    def _find_picture(
        self, environ: Environ, igsid: str, query: str, now: float
    ) -> CachedResponse | None:
        local = self._recall(igsid)
        if local is not None:
            profile: CachedResponse = local.served or response_from_local(
                local, self._todays_links(now)
            )
            return profile.pictures.get(query) or picture_from_local(local, query)
        stored = self._read(environ, igsid, now)
        if stored is None:
            return None
        return picture_from_stored(stored, query, source="hit")

    def _send(
        self,
        environ: Environ,
        status: int,
        headers: list[tuple[str, str]],
        body: bytes,
        *,
        started_at: float,
        igsid: str | None,
        route: str,
        key: str | None = None,
    ) -> RawResponse:
        """Finish the response to a batch or a picture, and log the access."""
        if self._draining():
            headers = responses.closing(headers)
        if self._log_access is not None:
            sent = dict(headers)
            self._log_access(
                igsid=igsid,
                status=status,
                cache_status=sent.get("Cache-Status"),
                seconds=self._now() - started_at,
                request_id=sent["X-Request-ID"],
                key=key or self._key_of(environ),
                route=route,
            )
        return status, headers, body

    def _may_read(self, environ: Environ, now: float) -> bool:
        self._keep_ticking(now)
        return environ.get("HTTP_AUTHORIZATION") in self._authorized or self._authorize(
            environ
        )

    def _keep_ticking(self, now: float) -> None:
        if not self._tick_at - TICK <= now < self._tick_at:
            self._tick(now)  # Also after the clock was set back.

    def _tick(self, now: float) -> None:
        self._tick_at = now + TICK
        self._authorized.clear()
        self._on_tick()

    def _authorize(self, environ: Environ) -> bool:
        """Check that the caller may read; remember header and key until the tick."""
        try:
            client = self._authenticator.authorize(environ, Scope.READ)
        except Problem:
            return False  # The view reports why.
        if (
            self._authenticator.asks_for_keys
            and len(self._authorized) < MOST_AUTHORIZED
        ):
            self._authorized[environ.get("HTTP_AUTHORIZATION")] = client.name
        return True

    def _key_of(self, environ: Environ) -> str:
        """Return the name of the caller's key, for the access log."""
        if name := self._authorized.get(environ.get("HTTP_AUTHORIZATION")):
            return name
        try:
            return self._authenticator.authorize(environ, Scope.READ).name
        except Problem:  # Its key has been removed at this moment.
            return NO_CALLER.key

    def _find(
        self, environ: Environ, text: str, local: LocalEntry | None, now: float
    ) -> CachedResponse | None:
        """Build the response from a local entry or from the store, if it is fresh."""
        if local is not None:
            return self._find_local(local, now)
        stored = self._read(environ, text, now)
        if stored is None:
            return None
        return response_from_stored(stored, self._todays_links(now), source="hit")

    def _find_local(self, local: LocalEntry, now: float) -> CachedResponse | None:
        """Build the response from a local entry, if it is fresh."""
        cached: CachedResponse | None = local.served
        if cached is None or now < cached.fresh_until:
            cached = response_from_local(local, self._todays_links(now))
        return cached if now < cached.fresh_until else None

    def _todays_links(self, now: float) -> TodaysLinks | None:
        return None if self._links is None else self._links.of_today(now)

    def _read(self, environ: Environ, text: str, now: float) -> StoredEntry | None:
        """Read a fresh entry from the store; otherwise leave the result to the view."""
        if not request_params.is_igsid(text):
            return None
        try:
            snapshot = self._entries.read(text)
        except StoreUnavailable as unavailable:
            environ[SNAPSHOT] = unavailable
            return None
        stored = snapshot.stored_entry
        if stored is None or now >= stored.fresh_until:
            environ[SNAPSHOT] = snapshot
            return None
        return stored


def _is_plain(environ: Environ) -> bool:
    """Return whether the request is a GET of which only the query may vary."""
    return (
        environ["REQUEST_METHOD"] == "GET"
        and environ.get("HTTP_CONNECTION") in KEPT
        and not any(name in environ for name in NOT_PLAIN)
    )
