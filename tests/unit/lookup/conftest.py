"""A lookup on a fake store, and one whose store can be taken away."""

from __future__ import annotations

from collections.abc import Callable

import fakeredis
import pytest

from tests.helpers.world import World


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def losing() -> tuple[World, Callable[[], None]]:
    """A world, and the function that disconnects its store."""
    server = fakeredis.FakeServer()
    world = World(redis=fakeredis.FakeRedis(server=server))
    return world, lambda: setattr(server, "connected", False)
