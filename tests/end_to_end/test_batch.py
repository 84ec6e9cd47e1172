"""A batch of people over HTTP, as an inbox requests it."""

from __future__ import annotations

import time

from tests.helpers.processes import crowd


def test_cold_batch_takes_as_long_as_its_slowest_person(stack) -> None:
    """Meta takes 0.5 s for each of fifty people, which is 25 s one by one."""
    people = [crowd(n) for n in range(50)]
    for igsid in people:
        stack.meta.person(igsid, delay=0.5)

    started = time.monotonic()
    batch = stack.service.get(f"/profiles?ids={','.join(people)}")
    took = time.monotonic() - started

    assert list(batch.json()["profiles"]) == people
    assert took < 5.0
    assert stack.meta.calls() == 50
