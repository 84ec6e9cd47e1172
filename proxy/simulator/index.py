"""The list of the control routes, which ``GET /_sim/`` returns."""

from __future__ import annotations

from typing import NamedTuple

_PERSON = "1254001000000001"


class Route(NamedTuple):
    """A control route: *body* is an example of what it takes, as JSON."""

    method: str
    path: str
    what: str
    body: str = ""


ROUTES = (
    Route("GET", "/_sim/", "this list"),
    Route("GET", "/_sim/health", "whether the simulator answers"),
    Route("GET", "/_sim/people", "the cast: who shows what"),
    Route("GET", "/_sim/calls", "what Meta was asked; of one person with ?igsid="),
    Route("GET", "/_sim/await", "wait for calls: ?igsid=, ?calls=, ?seconds="),
    Route(
        "PUT",
        "/_sim/people/<igsid>",
        "answer otherwise about a person: error, profile, status, headers, body, raw,"
        " delay, times, or wire: hang, drop, reset, truncate, drip, drip_headers, gzip,"
        " gzip_bomb, huge, chunked",
        '{"error": {"code": 2}, "times": 3}',
    ),
    Route("DELETE", "/_sim/people/<igsid>", "answer as usual about the person"),
    Route(
        "POST",
        "/_sim/people/<igsid>/writes",
        "the person writes: a webhook is sent, and consent given",
    ),
    Route(
        "POST",
        "/_sim/throttle",
        "throttle every call, for how many minutes the reply says; {} ends it",
        '{"code": 4, "minutes": 5}',
    ),
    Route(
        "POST",
        "/_sim/token",
        "let the token die, or live again, or be another (value)",
        '{"alive": false, "subcode": 463}',
    ),
    Route(
        "POST",
        "/_sim/usage",
        "report so many percent of the quota as used; {} ends it",
        '{"call_count": 96}',
    ),
    Route(
        "POST",
        "/_sim/fields",
        "fail calls that ask for a field, as a version without it does",
        '{"nonexisting": ["profile_pic"]}',
    ),
    Route("POST", "/_sim/release", "end every wait of the wire hang"),
    Route("POST", "/_sim/reset", "forget scripts, orders and counted calls"),
)
"""Every control route, in the order of the list."""


def index(url: str) -> dict[str, object]:
    """Return the list, with an example for the simulator at *url*.

    ``page`` in a body names another Page than the first.
    """
    return {
        "controls": [
            {
                "method": route.method,
                "path": route.path,
                "what": route.what,
                "example": _example(route, url),
            }
            for route in ROUTES
        ]
    }


def _example(route: Route, url: str) -> str:
    method = "" if route.method == "GET" else f" -X {route.method}"
    body = f" -d '{route.body}'" if route.body else ""
    return f"curl{method}{body} {url}{route.path.replace('<igsid>', _PERSON)}"
