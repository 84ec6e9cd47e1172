"""A page of people over HTTP, as docs/api.md shows it."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

from services import crowd

API = Path(__file__).parents[2] / "docs" / "api.md"

VOLATILE = {"fetched_at", "picture_expires_at", "fbtrace_id", "detail"}


def lasting(body: object) -> object:
    """*body* without what is different each time; and in order."""
    if not isinstance(body, dict):
        return body
    return [(k, lasting(v)) for k, v in body.items() if k not in VOLATILE]


def test_the_page_of_the_documentation(stack) -> None:
    """The request that stands there, and the answer below it."""
    shown = API.read_text().partition("### `GET /profiles`\n")[2]
    path = re.search(r"^GET (/profiles\?\S+)$", shown, re.M)[1]
    example = re.search(r"```json\n(.*?)```", shown, re.DOTALL)[1]

    answer = stack.service.get(path)

    assert lasting(answer.json()) == lasting(json.loads(example))


def test_a_cold_page_takes_as_long_as_its_slowest(stack) -> None:
    """Fifty people whom Meta takes 0.5 s for, each; one after the other is 25 s."""
    people = [crowd(n) for n in range(50)]
    for igsid in people:
        stack.meta.person(igsid, delay=0.5)

    started = time.monotonic()
    page = stack.service.get(f"/profiles?ids={','.join(people)}")
    took = time.monotonic() - started

    assert list(page.json()["profiles"]) == people
    assert took < 5.0
    assert stack.meta.calls() == 50
