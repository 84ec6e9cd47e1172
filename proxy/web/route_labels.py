"""The labels of the request metric: each route, and the statuses that it can have."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources

from flask import Request

from proxy.domain.profile import DEFAULT_PAGE
from proxy.observability.metrics import PROFILE
from proxy.observability.request_metrics import OTHER_PAGE, RequestLabels
from proxy.web.problems import REFUSALS

HIT_ROUTE = "/profiles/<igsid>"
"""The route of the plain hits, which the fast path counts."""

UNKNOWN_ROUTE = "unknown"
"""The route of requests for a path that no route has."""

_CONVERTER = re.compile(r"<[^<>:]+:")
_PAGE_PREFIX = "/pages/<page>"

_PATH_LINE = re.compile(r"  (/\S*):")
_RESPONSES_LINE = re.compile(r"      responses:(?: &(\w+)| \{<<: \*(\w+)\})?")
_STATUS_LINE = re.compile(r'        "([1-5][0-9][0-9])":')


def request_labels() -> RequestLabels:
    """Return the routes of openapi.yaml, with the statuses of each."""
    openapi = resources.files(__package__).joinpath("openapi.yaml").read_text("utf-8")
    statuses = read_statuses(openapi)
    lookups = {
        _without_page(route)
        for route in statuses
        if route.startswith(_PAGE_PREFIX) and "/admin/" not in route
    }
    merged: dict[str, set[int]] = {}
    for route, listed in statuses.items():
        merged.setdefault(_without_page(route), set()).update(listed)
    status_of = {reason.value: status for reason, (status, _) in REFUSALS.items()}
    return RequestLabels(merged, lookups, HIT_ROUTE, {PROFILE: 200} | status_of)


def read_statuses(openapi: str) -> Mapping[str, set[int]]:
    """Return the statuses of each path in *openapi*, which is indented as ours is.

    A parser of all of YAML is no dependency; a test compares with one.
    """
    statuses: dict[str, set[int]] = {}
    anchors: dict[str, set[int]] = {}
    here = anchored = set[int]()
    for line in openapi.splitlines():
        if path := _PATH_LINE.fullmatch(line):
            route = path[1].replace("{", "<").replace("}", ">")
            here = statuses[route] = set()
        elif line and not line.startswith(" "):
            here = set()  # Not of a path.
        elif responses := _RESPONSES_LINE.fullmatch(line):
            anchor, alias = responses.groups()
            anchored = anchors.setdefault(anchor or "", set())
            here |= anchors.get(alias, set())
        elif status := _STATUS_LINE.match(line):
            here.add(int(status[1]))
            anchored.add(int(status[1]))
    return statuses


@cache
def route_label(rule: str) -> str:
    """Return the label of Flask's *rule*: without converters and the Page's prefix."""
    route = _without_page(_CONVERTER.sub("<", rule))
    return route.rstrip("/") or "/"


def label_of(request: Request) -> str:
    """Return the label of the *request*'s route."""
    rule = request.url_rule
    return UNKNOWN_ROUTE if rule is None else route_label(rule.rule)


def page_label(page: str | None, *, is_served: bool) -> str:
    """Return the label of a *page*, unless it is a caller's own word."""
    is_known = page is not None and (is_served or page == DEFAULT_PAGE)
    return page if page is not None and is_known else OTHER_PAGE


def _without_page(route: str) -> str:
    return route.removeprefix(_PAGE_PREFIX)
