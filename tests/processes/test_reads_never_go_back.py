"""What one connection reads about a person never goes back, written here or elsewhere.

A process that has stored or read something newer has a local copy from before for some
milliseconds more, until the store's message about the change arrives.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.helpers.processes import Service, crowd
from tests.helpers.stack import Stack

WRITTEN = [crowd(n) for n in range(100)]
FOLLOWED = [crowd(n) for n in range(1000, 1020)]
NO_CACHE = {"Cache-Control": "no-cache"}


def name_of(service: Service, igsid: str, headers: dict[str, str] | None = None) -> str:
    return str(service.get(f"/profiles/{igsid}", headers=headers).json()["name"])


def names_after_no_cache(service: Service, igsid: str) -> tuple[str, str]:
    """Return the names in a forced answer, and in the plain one just after it."""
    return name_of(service, igsid, NO_CACHE), name_of(service, igsid)


@pytest.mark.parametrize("running", ["near cache"], indirect=True)
def test_plain_read_after_no_cache_is_not_older(stack: Stack) -> None:
    """By the process that has asked Meta, and by one that follows it.

    Each person is known as Before to both, for longer than satisfies ``no-cache``.
    """
    for igsid in WRITTEN + FOLLOWED:
        stack.meta.person(igsid, profile={"name": "Before"})
        for service in stack.services:
            name_of(service, igsid)
    time.sleep(2.1)
    for igsid in WRITTEN + FOLLOWED:
        delay = 0.02 if igsid in FOLLOWED else 0.0
        stack.meta.person(igsid, profile={"name": "After"}, delay=delay)
        for service in stack.services:
            name_of(service, igsid)
    asked = stack.meta.calls()

    names = [names_after_no_cache(stack.service, igsid) for igsid in WRITTEN]
    with ThreadPoolExecutor(2) as pool:
        for igsid in FOLLOWED:
            names += pool.map(names_after_no_cache, stack.services, [igsid] * 2)

    assert set(names) == {("After", "After")}
    assert stack.meta.calls() == asked + len(WRITTEN) + len(FOLLOWED)
