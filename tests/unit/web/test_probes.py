"""Health, readiness and metrics; more tests are in the suites with a real store."""

from __future__ import annotations

import pytest
from prometheus_client import CONTENT_TYPE_LATEST

from proxy.app import create_app
from proxy.config.settings import Settings
from proxy.domain.failures import Throttled
from tests.helpers.builders import ADA, a_profile
from tests.helpers.prometheus import total


@pytest.fixture
def draining_client(graph, store):
    """A service whose server is about to stop, with the real clock of its store."""
    app = create_app(
        Settings.from_env({"PROXY_PAGE_TOKEN": "EAACANARY"}),
        client=store,
        graph=graph,
        draining=lambda: True,
    )
    return app.test_client()


def test_readyz_is_503_while_draining(draining_client):
    """Retry-After is when a load balancer has chosen another instance."""
    answer = draining_client.get("/readyz")

    assert answer.status_code == 503
    assert answer.json == {"status": "draining", "reasons": []}
    assert answer.headers["Retry-After"] == "1"


def test_healthz_is_200_while_draining(draining_client):
    """A supervisor that restarts unhealthy processes must not end the drain."""
    assert draining_client.get("/healthz").status_code == 200


def test_connection_stays_open_without_draining(client):
    """With this server, and with servers that do not support draining."""
    answer = client.get("/readyz")

    assert answer.status_code == 200
    assert "Connection" not in answer.headers


def test_metrics_can_be_scraped(client, graph):
    """In Prometheus's text format, and uncacheable on the way."""
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


def test_metrics_include_the_gate_and_the_quota(client, graph):
    """Read from the store for each scrape, because all processes share them."""
    graph.outcomes[ADA] = Throttled(retry_after=120.0)
    graph.usage_percent = 97.0
    client.get(f"/profiles/{ADA}")

    text = client.get("/metrics").text

    closed_for = total(text, "gate_closed_for_seconds", cause="throttled")
    assert closed_for == pytest.approx(120, abs=5)
    assert total(text, "gate_closed_for_seconds", cause="permission") == 0
    assert total(text, "graph_usage_ratio") == 0.97


def test_metrics_without_the_store_lack_only_the_gate(client, graph, server):
    """An outage is when operators read them."""
    graph.outcomes[ADA] = a_profile()
    server.connected = False
    client.get(f"/profiles/{ADA}")

    answer = client.get("/metrics")

    assert answer.status_code == 200
    assert total(answer.text, "store_up") == 0
    assert total(answer.text, "gate_closed_for_seconds") is None
    assert total(answer.text, "answers_total", source="fetched") == 1
    assert total(answer.text, "store_errors_total", kind="reads") > 0


def test_openapi_yaml_is_not_cached(draining_client):
    """It belongs to the running version."""
    answer = draining_client.get("/openapi.yaml")

    assert answer.data.startswith(b"openapi: 3")
    assert answer.headers["Cache-Control"] == "no-store"
