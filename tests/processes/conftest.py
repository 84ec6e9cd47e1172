"""Two services on one store, in front of one simulated Meta."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from proxy.embedded import engine
from tests.helpers.processes import VERIFY_TOKEN, WEBHOOK_SECRET
from tests.helpers.stack import Stack, start_stack


@pytest.fixture(scope="module", params=["near cache", "no near cache"])
def running(request: pytest.FixtureRequest) -> Iterator[Stack]:
    """The stack of a whole test file; a test takes ``stack``, which is reset.

    Each promise must hold with and without the near cache. A file that needs longer
    calls than 2 s says so in its GRAPH_TIMEOUT.
    """
    settings = {
        "WEBHOOK_VERIFY_TOKEN": VERIFY_TOKEN,
        "WEBHOOK_SECRETS": WEBHOOK_SECRET,
        "NEAR_ENTRIES": "50000" if request.param == "near cache" else "0",
    }
    with (
        engine.start() as store,
        start_stack(
            store.url,
            services=({}, {}),
            graph_timeout=getattr(request.module, "GRAPH_TIMEOUT", 2.0),
            settings=settings,
        ) as stack,
    ):
        yield stack


@pytest.fixture
def stack(running: Stack) -> Stack:
    """Two services, an empty store and a Meta without scripts or counted calls."""
    running.reset()
    return running
