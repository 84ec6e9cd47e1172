"""A batch of people over HTTP, as an inbox requests it."""

from __future__ import annotations

import time

import pytest

from tests.helpers.processes import ADA, BEN, crowd


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


@pytest.mark.parametrize(
    "ids", [[ADA, BEN], f"{ADA}, {BEN},", [f" {ADA}", f"{BEN},{ADA}"]]
)
@pytest.mark.parametrize("fields", [["name", "username"], "name, username"])
def test_lists_are_read_as_requests_and_people_write_them(stack, ids, fields) -> None:
    """`requests` and generated clients repeat the parameter for each item."""
    asked = {"ids": ids, "fields": fields}

    batch = stack.service.get("/profiles", params=asked).json()

    assert list(batch["profiles"][ADA])[:3] == ["id", "name", "username"]
    assert list(batch["problems"]) == [BEN]
    for path in (f"/profiles/{ADA}", f"/v25.0/{ADA}"):
        one = stack.service.get(path, params={"fields": fields}).json()
        assert {"id", "name", "username"} <= set(one)
        assert "follower_count" not in one


def test_batch_of_101_says_so(stack) -> None:
    """So that the caller need not count."""
    answer = stack.service.get(
        "/profiles", params={"ids": list(map(crowd, range(101)))}
    )

    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_ids")
    assert "101" in answer.json()["detail"]
