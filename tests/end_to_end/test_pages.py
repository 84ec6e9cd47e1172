"""A page of people over HTTP, as whoever fills an inbox asks for it."""

from __future__ import annotations

import time

from tests.helpers.processes import crowd


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
