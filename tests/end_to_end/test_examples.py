"""Every answer that docs/api.md shows is one that the service gives."""

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
"""What is another text each time, or shortened on the page."""

IS_TOLD = {"code", "subcode", "status"}
"""Numbers that are not merely counts, or different each time."""

MOMENT_OR_RECEIPT = re.compile(r"\d{4}-\d\d-\d\dT[\d:]+Z|[0-9a-f]{8}(-[0-9a-f]+){4}")


ELSEWHERE = {"Several Pages"}
"""Tried by test_instagram_login.py, whose service has another Page."""


def examples() -> list[tuple[str, Any]]:
    """The heading that each example stands under, and what it shows."""
    found = []
    for section in re.split(r"^###? ", PAGE, flags=re.MULTILINE):
        heading = section.partition("\n")[0]
        if heading in ELSEWHERE:
            continue
        for shown in re.findall(r"```json\n(.*?)```", section, re.DOTALL):
            found.append((heading, json.loads(shown)))
    return found


def page_of_people(service: Service) -> Any:
    path = re.search(r"^GET (/profiles\?\S+)$", PAGE, re.M)
    assert path
    return service.get(path[1])


def stats(service: Service) -> Any:
    return service.get("/admin/stats")


ASKED: list[tuple[str, Callable[[Service], Any]]] = [
    ("`GET /profiles/<igsid>`", lambda service: service.get(f"/profiles/{ADA}")),
    ("`GET /profiles`", page_of_people),
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
    ("`GET /admin/stats`", stats),
    ("Codes", lambda service: service.get(f"/profiles/{BEN}")),
]


def lasting(told: Any, key: str = "") -> Any:
    """*told*, in its order, without what is different each time."""
    if isinstance(told, dict):
        return [(name, lasting(value, name)) for name, value in told.items()]
    if isinstance(told, str):
        changes = key in CHANGES or MOMENT_OR_RECEIPT.fullmatch(told)
        return "text" if changes else told
    if isinstance(told, int | float) and not isinstance(told, bool):
        return told if key in IS_TOLD else "number"
    return told


@pytest.mark.parametrize("number", range(len(ASKED)), ids=lambda n: ASKED[n][0])
def test_the_example_is_what_is_answered(stack, number) -> None:
    """About Ada, who is known, and Ben, who has not consented."""
    stack.service.get(f"/profiles?ids={ADA},{BEN}")
    _, shown = examples()[number]
    _, ask = ASKED[number]

    told = ask(stack.service).json()

    if ask is stats:  # On the page, the list of outcomes is shortened.
        listed = shown["instance"]["outcomes"]
        all_of_them = told["instance"]["outcomes"]
        told["instance"]["outcomes"] = {name: all_of_them[name] for name in listed}
    assert lasting(told) == lasting(shown)


def test_every_example_is_asked_for() -> None:
    """A new one needs a row above."""
    assert [heading for heading, _ in examples()] == [heading for heading, _ in ASKED]
