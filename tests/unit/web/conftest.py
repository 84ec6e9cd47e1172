"""The whole service in this process: a fake store, a fake Meta, a clock to turn."""

from __future__ import annotations

import fakeredis
import pytest
from fakes import FakeClock, FakeGraph

from proxy.app import create_app
from proxy.settings import Settings

READER = {"Host": "localhost"}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def graph() -> FakeGraph:
    return FakeGraph()


@pytest.fixture
def store() -> fakeredis.FakeRedis:
    return fakeredis.FakeRedis()


@pytest.fixture
def client(graph, clock, store):
    app = create_app(
        Settings.from_env({"PROXY_PAGE_TOKEN": "EAACANARY"}),
        client=store,
        ask=graph.ask,
        clock=clock,
        jitter=lambda: 0.0,
    )
    return app.test_client()
