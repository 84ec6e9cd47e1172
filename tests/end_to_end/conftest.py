"""The service over HTTP, on a real engine, against the simulated Meta."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import redis

from proxy.embedded import engine
from tests.helpers.processes import (
    APP_SECRET,
    PAGE_TOKEN,
    VERIFY_TOKEN,
    WEBHOOK_SECRET,
    Service,
    SimulatedMeta,
    empty,
    new_key,
)

GRAPH_TIMEOUT = 1.5


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """Started once; ``stack`` is what a test asks for."""
    token = tmp_path_factory.mktemp("secrets") / "page_token"
    token.write_text(PAGE_TOKEN + "\n")
    with engine.start() as store:
        meta = SimulatedMeta(f"--app-secret={APP_SECRET}")
        settings = {
            "PAGE_TOKEN_FILE": str(token),
            "APP_SECRET": APP_SECRET,
            "GRAPH_URL": meta.url,
            "GRAPH_TIMEOUT": f"{GRAPH_TIMEOUT}s",
            "STORE_URL": store.url,
            "WEBHOOK_VERIFY_TOKEN": VERIFY_TOKEN,
            "WEBHOOK_SECRETS": WEBHOOK_SECRET,
            "WORKERS": "1",
            "LOG_LEVEL": "debug",
            "ACCESS_LOG": "1",
        }
        service = Service(**settings)
        client = redis.Redis.from_url(store.url)
        yield SimpleNamespace(
            meta=meta,
            service=service,
            redis=client,
            settings=settings,
            store=store,
            token_file=token,
            graph_timeout=GRAPH_TIMEOUT,
        )
        client.close()
        service.stop()
        meta.close()


@pytest.fixture
def stack(running: SimpleNamespace) -> SimpleNamespace:
    """The service, a store that is empty and a Meta that was asked nothing."""
    empty(running.redis, running.service)
    running.meta.order("reset")
    return running


@pytest.fixture(scope="session")
def guarded(running, tmp_path_factory):
    """A service with three keys: one reads, one is an operator's, one does both."""
    keys = {
        name: new_key(name, s)
        for name, s in (("inbox", "read"), ("ops", "admin"), ("both", "read,admin"))
    }
    file = tmp_path_factory.mktemp("keys") / "api_keys"
    file.write_text(
        "# who may call\n" + "".join(f"{line}\n" for _, line in keys.values())
    )
    settings = running.settings | {"API_KEYS_FILE": str(file)}
    service = Service(**settings)
    yield SimpleNamespace(
        service=service, file=file, **{name: key for name, (key, _) in keys.items()}
    )
    service.stop()
