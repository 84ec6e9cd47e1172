"""Every answer shown in docs/api.md equals the service's answer."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.processes import ADA, BEN, Service

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text()

CHANGES = {"profile_pic", "fbtrace_id", "detail"}
"""Fields whose text changes each time, or is shortened on the page."""

FIXED_NUMBERS = {"code", "subcode", "status"}
"""Fields whose numbers are compared; other numbers are counts or change each time."""

MOMENT_OR_RECEIPT = re.compile(r"\d{4}-\d\d-\d\dT[\d:]+Z|[0-9a-f]{8}(-[0-9a-f]+){4}")


ELSEWHERE = {"Several Pages"}
"""Tested by test_instagram_login.py, whose service has another Page."""


def examples() -> list[tuple[str, Any]]:
    """Return each example with the heading above it."""
    found = []
    for section in re.split(r"^###? ", PAGE, flags=re.MULTILINE):
        heading = section.partition("\n")[0]
        if heading in ELSEWHERE:
            continue
        for shown in re.findall(r"```json\n(.*?)```", section, re.DOTALL):
            found.append((heading, json.loads(shown)))
    return found


def batch(service: Service) -> Any:
    path = re.search(r"^GET (/profiles\?\S+)$", PAGE, re.M)
    assert path
    return service.get(path[1])


def stats(service: Service) -> Any:
    return service.get("/admin/stats")


ASKED: list[tuple[str, Callable[[Service], Any]]] = [
    ("`GET /profiles/<igsid>`", lambda service: service.get(f"/profiles/{ADA}")),
    ("`GET /profiles`", batch),
    (
        "`GET /v<version>/<igsid>`",
        lambda service: service.get(
            f"/v25.0/{ADA}?fields=name,username,profile_pic&access_token=x"
        ),
    ),
    ("`GET /v<version>/<igsid>`", lambda service: service.get(f"/v25.0/{BEN}")),
    (
        "`GET /admin/profiles/<igsid>`",
        lambda service: service.get(f"/admin/profiles/{BEN}"),
    ),
    (
        "`DELETE /admin/profiles/<igsid>`",
        lambda service: service.request("DELETE", f"/admin/profiles/{ADA}"),
    ),
    (
        "`POST /admin/flush`",
        lambda service: service.request("POST", "/admin/flush", json={"what": "all"}),
    ),
    (
        "`POST /admin/gates/<cause>/open`",
        lambda service: service.request("POST", "/admin/gates/permission/open"),
    ),
    ("`GET /admin/stats`", stats),
    ("Codes", lambda service: service.get(f"/profiles/{BEN}")),
]


def comparable(value: Any, key: str = "") -> Any:
    """Return *value* in its order, with a placeholder for each part that changes."""
    if isinstance(value, dict):
        return [(name, comparable(inner, name)) for name, inner in value.items()]
    if isinstance(value, str):
        changes = key in CHANGES or MOMENT_OR_RECEIPT.fullmatch(value)
        return "text" if changes else value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value if key in FIXED_NUMBERS else "number"
    return value


@pytest.mark.parametrize("number", range(len(ASKED)), ids=lambda n: ASKED[n][0])
def test_example_equals_the_answer(stack, number) -> None:
    """Ada's profile and Ben's refusal are stored."""
    stack.service.get(f"/profiles?ids={ADA},{BEN}")
    _, shown = examples()[number]
    _, ask = ASKED[number]

    body = ask(stack.service).json()

    if ask is stats:  # The page shows only some outcomes.
        listed = shown["instance"]["outcomes"]
        outcomes = body["instance"]["outcomes"]
        body["instance"]["outcomes"] = {name: outcomes[name] for name in listed}
        # And keys that this service does not have.
        keys = shown["instance"].pop("keys").values()
        for key in body["instance"].pop("keys").values():
            assert all(list(key) == list(each) for each in keys)
    assert comparable(body) == comparable(shown)


def test_every_example_has_a_request() -> None:
    """A new example needs a row in ASKED."""
    assert [heading for heading, _ in examples()] == [heading for heading, _ in ASKED]
