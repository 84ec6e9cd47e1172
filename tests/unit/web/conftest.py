"""The whole service in this process, with a fake store, Meta and clock."""

from __future__ import annotations

import fakeredis
import pytest

from proxy.app import create_app
from proxy.config.settings import Settings
from tests.helpers.fakes import FakeClock, FakeGraph, FakeTaskQueue

READER = {"Host": "localhost"}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def graph() -> FakeGraph:
    return FakeGraph()


@pytest.fixture
def server() -> fakeredis.FakeServer:
    """The server of the store; it is down while ``connected`` is False."""
    return fakeredis.FakeServer()


@pytest.fixture
def store(server) -> fakeredis.FakeRedis:
    return fakeredis.FakeRedis(server=server)


@pytest.fixture
def background() -> FakeTaskQueue:
    return FakeTaskQueue()


@pytest.fixture
def client(graph, clock, store, background):
    app = create_app(
        Settings.from_env({"PROXY_PAGE_TOKEN": "EAACANARY"}),
        client=store,
        graph=graph,
        submit=background.submit,
        now=clock,
        jitter=lambda: 0.0,
        sleep=lambda seconds: None,
    )
    return app.test_client()
