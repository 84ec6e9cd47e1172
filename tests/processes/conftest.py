"""Two instances of the service on one store, and one simulated Meta."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import redis

from proxy.embedded import engine
from tests.helpers.processes import (
    PAGE_TOKEN,
    VERIFY_TOKEN,
    WEBHOOK_SECRET,
    Service,
    SimulatedMeta,
    empty,
)

GRAPH_TIMEOUT = 2.0


@pytest.fixture(scope="module", params=["copies", "no copies"])
def running(request: pytest.FixtureRequest) -> Iterator[SimpleNamespace]:
    """Started once for a file of tests; ``stack`` is what a test asks for.

    Each promise holds with the near cache, and without.
    """
    with engine.start() as store:
        meta = SimulatedMeta()
        settings = {
            "PAGE_TOKEN": PAGE_TOKEN,
            "GRAPH_URL": meta.url,
            "GRAPH_TIMEOUT": f"{GRAPH_TIMEOUT}s",
            "STORE_URL": store.url,
            "WEBHOOK_VERIFY_TOKEN": VERIFY_TOKEN,
            "WEBHOOK_SECRETS": WEBHOOK_SECRET,
            "WORKERS": "1",
            "NEAR_ENTRIES": "50000" if request.param == "copies" else "0",
        }
        one, other = Service(**settings), Service(**settings)
        client = redis.Redis.from_url(store.url)
        yield SimpleNamespace(
            meta=meta,
            one=one,
            other=other,
            redis=client,
            settings=settings,
            graph_timeout=GRAPH_TIMEOUT,
        )
        client.close()
        one.stop()
        other.stop()
        meta.close()


@pytest.fixture
def stack(running: SimpleNamespace) -> SimpleNamespace:
    """Two instances, a store that is empty and a Meta that was asked nothing."""
    empty(running.redis, running.one, running.other)
    running.meta.order("reset")
    return running
