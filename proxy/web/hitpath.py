"""Hits before Flask: the plain question, about somebody known, answered at once.

Most of what a hit costs in a view is the framework's: the routing, the contexts, the
response object. So the plain case is answered in front of it, from the same store and
with the same renditions, and everything else is handed on untouched. Whatever is
answered here, the view would have answered in the same words.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any, Protocol

from proxy.cache.near import Copy
from proxy.cache.store import Seen, decode
from proxy.metrics import name_of
from proxy.outcomes import Freshness, Igsid, StoredOutcome, StoreUnavailable
from proxy.web import wire
from proxy.web.keys import Doorkeeper, Scope

PATH = "/profiles/"

SEEN = "profile-proxy.seen"
"""Where a request that is handed on has what a look at the store has shown."""

TICK = 1.0
"""Seconds between two looks at what need not be looked at for each request."""

Environ = dict[str, Any]
Wsgi = Callable[[Environ, Any], Iterable[bytes]]


class People(Protocol):
    """What is known of people here, without asking anybody."""

    def recall(self, igsid: str) -> Copy | None: ...

    def look(self, igsid: Igsid) -> Seen: ...


class Served:
    """A rendition, ready to be sent again and again."""

    __slots__ = (
        "_detail",
        "_fetched_at",
        "_fixed",
        "_lately",
        "body",
        "counted_as",
        "fresh_until",
        "status",
    )

    def __init__(self, entry: StoredOutcome, source: str) -> None:
        """*source* says where it comes from, to be counted."""
        made = wire.rendition(entry)
        self.status = f"{made.status} {HTTPStatus(made.status).phrase}"
        self.body = [made.body]
        self.counted_as = source, name_of(entry.outcome)
        self.fresh_until = entry.fresh_until
        self._fetched_at = entry.fetched_at
        self._fixed = [*made.headers, wire.NOSNIFF]
        self._detail = wire.detail_of(entry)
        self._lately: tuple[int, int, list[tuple[str, str]]] = -1, -1, []

    def headers_at(self, now: float) -> list[tuple[str, str]]:
        """All but those of one request. Made anew when a second has passed."""
        age, ttl = wire.age(self._fetched_at, now), wire.ttl(self.fresh_until, now)
        made_for_age, made_for_ttl, headers = self._lately
        if age != made_for_age or ttl != made_for_ttl:
            cache_status = wire.hit_status(ttl) + self._detail
            headers = [*self._fixed, ("Age", str(age)), ("Cache-Status", cache_status)]
            self._lately = age, ttl, headers
        return headers


class HitPath:
    """WSGI in front of the app: what has a query, condition, directive or body is its.

    Source: https://flask.palletsprojects.com/en/stable/quickstart/#hooking-in-wsgi-middleware
    """

    def __init__(
        self,
        app: Wsgi,
        people: People,
        doorkeeper: Doorkeeper,
        *,
        wall: Callable[[], float],
        draining: Callable[[], bool],
        each_second: Callable[[], None],
        answers: dict[tuple[str, str], int],
        log_access: Callable[..., None] | None = None,
    ) -> None:
        """*wall* is epoch seconds; *each_second* is called so often, while asked.

        *answers* counts by source and outcome (see `proxy.metrics`).
        """
        self._app = app
        self._people = people
        self._doorkeeper = doorkeeper
        self._wall = wall
        self._draining = draining
        self._each_second = each_second
        self._answers = answers
        self._log_access = log_access
        self._tick_at = -math.inf

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if (
            path.startswith(PATH)
            and environ["REQUEST_METHOD"] == "GET"
            and not environ["QUERY_STRING"]
            and "HTTP_IF_NONE_MATCH" not in environ
            and "HTTP_CACHE_CONTROL" not in environ
            and "HTTP_PRAGMA" not in environ
            and "CONTENT_LENGTH" not in environ
            and "HTTP_TRANSFER_ENCODING" not in environ
        ):
            now = self._wall()
            served = self._find(environ, path[len(PATH) :], now)
            if served is not None and now < served.fresh_until:
                return self._send(served, environ, start_response, now)
        return self._app(environ, start_response)

    def _find(self, environ: Environ, igsid: str, now: float) -> Served | None:
        """What is to be sent, if it is known and may be; else the view finds out."""
        try:
            self._doorkeeper.admit(environ, Scope.READ)
        except wire.Problem:
            return None
        if now >= self._tick_at:
            self._tick_at = now + TICK
            self._each_second()
        # Not yet known to be an id: if it is none, there is nothing under it.
        copy = self._people.recall(igsid)
        if copy is None:
            return self._look(environ, igsid, now)
        served: Served | None = copy.served
        if served is None:
            entry = decode(copy.stored)
            assert entry is not None  # It was read before it was kept.
            served = copy.served = Served(entry, "near")
        return served

    def _look(self, environ: Environ, igsid: str, now: float) -> Served | None:
        """What the store has; what is not to be sent is left to the view."""
        try:
            seen = self._people.look(wire.read_igsid(igsid))
        except wire.Problem:
            return None
        except StoreUnavailable as away:
            environ[SEEN] = away
            return None
        entry = seen.entry
        if entry is None or entry.freshness(now) is not Freshness.FRESH:
            environ[SEEN] = seen
            return None
        return Served(entry, "hit")

    def _send(
        self, served: Served, environ: Environ, start_response: Any, now: float
    ) -> Iterable[bytes]:
        request_id = wire.request_id(environ.get("HTTP_X_REQUEST_ID"))
        headers = [*served.headers_at(now), ("X-Request-ID", request_id)]
        if self._draining():
            headers.append(wire.CLOSE)
        if self._log_access:
            self._log_access(
                igsid=environ["PATH_INFO"][len(PATH) :],
                status=int(served.status[:3]),
                cache_status=dict(headers)["Cache-Status"],
                seconds=self._wall() - now,
                request_id=request_id,
            )
        self._answers[served.counted_as] += 1
        start_response(served.status, headers)
        return served.body
