"""What the probes say; the rest of them is in the suites with a real store."""

from __future__ import annotations

import pytest

from proxy.app import create_app
from proxy.settings import Settings


@pytest.fixture
def leaving(graph, clock, store):
    """A service whose server is about to stop."""
    app = create_app(
        Settings.from_env({"PROXY_PAGE_TOKEN": "EAACANARY"}),
        client=store,
        graph=graph,
        clock=clock,
        draining=lambda: True,
    )
    return app.test_client()


def test_a_service_that_leaves_is_not_ready(leaving):
    """503 with the moment to try again, which is when another instance is chosen."""
    answer = leaving.get("/readyz")

    assert answer.status_code == 503
    assert answer.json == {"status": "draining", "reasons": []}
    assert answer.headers["Retry-After"] == "1"


def test_a_service_that_leaves_is_alive(leaving):
    """Whoever restarts what is not healthy must not end the drain."""
    assert leaving.get("/healthz").status_code == 200


def test_a_service_that_stays_closes_no_connection(client):
    """Neither under this server nor under one that knows of no drain."""
    answer = client.get("/readyz")

    assert answer.status_code == 200
    assert "Connection" not in answer.headers
