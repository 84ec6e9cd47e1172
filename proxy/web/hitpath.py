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

NOT_PLAIN = (
    "HTTP_IF_NONE_MATCH",
    "HTTP_CACHE_CONTROL",
    "HTTP_PRAGMA",
    "CONTENT_LENGTH",
    "HTTP_TRANSFER_ENCODING",
)
"""What a request may not have that is answered here: conditions, directives,
a body. HEAD, and a query, are the view's too."""

TICK = 1.0
"""Seconds between two looks at what need not be looked at for each request."""

Environ = dict[str, Any]
Wsgi = Callable[[Environ, Any], Iterable[bytes]]


class People(Protocol):
    """What is known of people here, without asking anybody."""

    def recall(self, igsid: Igsid) -> Copy | None: ...

    def look(self, igsid: Igsid) -> Seen: ...


class Served:
    """A rendition, ready to be sent again and again."""

    __slots__ = (
        "body",
        "counted_as",
        "detail",
        "fetched_at",
        "fresh_until",
        "headers",
        "status",
    )

    def __init__(self, entry: StoredOutcome, source: str) -> None:
        """*source* says where it comes from, to be counted."""
        made = wire.rendition(entry)
        self.status = f"{made.status} {HTTPStatus(made.status).phrase}"
        self.headers = made.headers
        self.body = [made.body]
        self.detail = wire.detail_of(entry)
        self.fetched_at = entry.fetched_at
        self.fresh_until = entry.fresh_until
        self.counted_as = source, name_of(entry.outcome)


class HitPath:
    """WSGI in front of the app.

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
        self._ticked_at = -math.inf

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if (
            not path.startswith(PATH)
            or environ["REQUEST_METHOD"] != "GET"
            or environ["QUERY_STRING"]
        ):
            return self._app(environ, start_response)
        for name in NOT_PLAIN:
            if name in environ:
                return self._app(environ, start_response)
        now = self._wall()
        served = self._find(environ, path[len(PATH) :], now)
        if served is None:
            return self._app(environ, start_response)
        cache_status = wire.hit_status(served.fresh_until, now) + served.detail
        request_id = wire.request_id(environ.get("HTTP_X_REQUEST_ID"))
        headers = [
            *served.headers,
            ("Age", wire.age(served.fetched_at, now)),
            ("Cache-Status", cache_status),
            ("X-Request-ID", request_id),
            wire.NOSNIFF,
        ]
        if self._draining():
            headers.append(wire.CLOSE)
        if self._log_access:
            self._log_access(
                igsid=path[len(PATH) :],
                status=int(served.status[:3]),
                cache_status=cache_status,
                seconds=self._wall() - now,
                request_id=request_id,
            )
        self._answers[served.counted_as] += 1
        start_response(served.status, headers)
        return served.body

    def _find(self, environ: Environ, igsid: str, now: float) -> Served | None:
        """What is to be sent, if it is known and may be; else the view finds out."""
        try:
            self._doorkeeper.admit(environ, Scope.READ)
            person = wire.read_igsid(igsid)
        except wire.Problem:
            return None
        if now - self._ticked_at >= TICK:
            self._ticked_at = now
            self._each_second()
        copy = self._people.recall(person)
        if copy is not None:
            served: Served | None = copy.served
            if served is None:
                entry = decode(copy.stored, person)
                assert entry is not None  # It was read before it was kept.
                served = copy.served = Served(entry, "near")
        else:
            try:
                seen = self._people.look(person)
            except StoreUnavailable as away:
                environ[SEEN] = away
                return None
            entry = seen.entry
            if entry is None or entry.freshness(now) is not Freshness.FRESH:
                environ[SEEN] = seen
                return None
            return Served(entry, "hit")
        return served if now < served.fresh_until else None
