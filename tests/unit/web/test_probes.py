"""What the probes say; the rest of them is in the suites with a real store."""

from __future__ import annotations

import pytest
from prometheus_client import CONTENT_TYPE_LATEST

from proxy.app import create_app
from proxy.config.settings import Settings
from proxy.domain.failures import Throttled
from tests.helpers.builders import ADA, a_profile
from tests.helpers.prometheus import total


@pytest.fixture
def leaving(graph, store):
    """A service whose server is about to stop, by the real time, as its store is."""
    app = create_app(
        Settings.from_env({"PROXY_PAGE_TOKEN": "EAACANARY"}),
        client=store,
        graph=graph,
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


def test_what_is_counted_can_be_scraped(client, graph):
    """As text that Prometheus reads, and that nobody on the way may keep."""
    graph.outcomes[ADA] = a_profile()
    client.get(f"/profiles/{ADA}")
    client.get(f"/profiles/{ADA}")

    answer = client.get("/metrics")

    assert answer.status_code == 200
    assert answer.content_type == CONTENT_TYPE_LATEST
    assert answer.headers["Cache-Control"] == "no-store"
    assert total(answer.text, "answers_total", source="fetched") == 1
    assert total(answer.text, "answers_total", source="hit") == 1
    assert total(answer.text, "store_up") == 1


def test_a_closed_gate_and_the_quota_are_scraped(client, graph):
    """Read from the store at that moment, for they are the same for all processes."""
    graph.outcomes[ADA] = Throttled(retry_after=120.0)
    graph.usage_percent = 97.0
    client.get(f"/profiles/{ADA}")

    text = client.get("/metrics").text

    closed_for = total(text, "gate_closed_for_seconds", cause="throttled")
    assert closed_for == pytest.approx(120, abs=5)
    assert total(text, "gate_closed_for_seconds", cause="permission") == 0
    assert total(text, "graph_usage_ratio") == 0.97


def test_without_the_store_the_rest_is_scraped(client, graph, server):
    """That is when somebody looks."""
    graph.outcomes[ADA] = a_profile()
    server.connected = False
    client.get(f"/profiles/{ADA}")

    answer = client.get("/metrics")

    assert answer.status_code == 200
    assert total(answer.text, "store_up") == 0
    assert total(answer.text, "gate_closed_for_seconds") is None
    assert total(answer.text, "answers_total", source="fetched") == 1
    assert total(answer.text, "store_errors_total", kind="reads") > 0


def test_the_api_for_machines_is_of_this_version(leaving):
    """Nobody keeps that of another."""
    answer = leaving.get("/openapi.yaml")

    assert answer.data.startswith(b"openapi: 3")
    assert answer.headers["Cache-Control"] == "no-store"
