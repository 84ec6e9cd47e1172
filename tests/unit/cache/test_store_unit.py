"""When the store is said to be away, and when to be back."""

import logging
from collections.abc import Callable
from contextlib import suppress

import pytest
import redis

from proxy.cache.store import Reach
from proxy.outcomes import StoreUnavailable


def fail(reach: Reach, kind: str, place: str) -> None:
    with suppress(StoreUnavailable), reach.noted(kind, place):
        raise redis.ConnectionError


def succeed(reach: Reach, kind: str, place: str) -> None:
    with reach.noted(kind, place):
        pass


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What has been logged since it was last asked."""
    caplog.set_level(logging.INFO)

    def since() -> list[str]:
        messages = [record.message for record in caplog.records]
        caplog.clear()
        return messages

    return since


def test_a_node_that_fails_is_away_whatever_the_others_do(said) -> None:
    """Else it would be away and back with each of the people who live there."""
    reach = Reach(lambda: {"", "one", "other"})

    for _ in range(3):
        fail(reach, "reads", "one")
        succeed(reach, "reads", "other")
    assert said() == ["store away"]

    succeed(reach, "reads", "one")
    assert said() == ["store back"]


def test_what_goes_through_all_nodes_is_about_each_of_them(said) -> None:
    """A ping or a flush that works has met none that is away."""
    reach = Reach(lambda: {"", "one", "other"})
    fail(reach, "reads", "one")
    fail(reach, "reads", "")

    succeed(reach, "reads", "")

    assert said() == ["store away", "store back"]


def test_a_node_that_is_no_more_is_not_waited_for(said) -> None:
    """Its replica has taken its place."""
    places = {"", "one", "other"}
    reach = Reach(lambda: places)
    fail(reach, "writes", "one")

    places.remove("one")
    succeed(reach, "reads", "other")

    assert said() == ["store away", "store back"]


def test_every_error_is_counted_by_its_kind() -> None:
    """Also those after the first, which are not logged again."""
    counted: list[str] = []
    reach = Reach(lambda: {"", "one", "other"}, counted.append)

    fail(reach, "reads", "one")
    fail(reach, "reads", "one")
    succeed(reach, "reads", "one")
    fail(reach, "writes", "other")

    assert counted == ["reads", "reads", "writes"]
