"""The service over HTTP, on a real engine, in front of the simulated Meta."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from proxy.embedded import engine
from tests.helpers.processes import (
    APP_SECRET,
    PAGE_TOKEN,
    VERIFY_TOKEN,
    WEBHOOK_SECRET,
    Service,
    new_key,
)
from tests.helpers.stack import Stack, start_stack


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack of the whole session; a test takes ``stack``, which is reset."""
    token = tmp_path_factory.mktemp("secrets") / "page_token"
    token.write_text(PAGE_TOKEN + "\n")
    settings = {
        "PAGE_TOKEN_FILE": str(token),
        "APP_SECRET": APP_SECRET,
        "WEBHOOK_VERIFY_TOKEN": VERIFY_TOKEN,
        "WEBHOOK_SECRETS": WEBHOOK_SECRET,
        "LOG_LEVEL": "debug",
        "ACCESS_LOG": "1",
    }
    with (
        engine.start() as store,
        start_stack(
            store.url,
            meta_arguments=[f"--app-secret={APP_SECRET}"],
            graph_timeout=1.5,
            settings=settings,
        ) as stack,
    ):
        yield stack


@pytest.fixture
def stack(running: Stack) -> Stack:
    """The service, an empty store and a Meta without scripts or counted calls."""
    running.reset()
    return running


@dataclass(frozen=True, slots=True)
class GuardedService:
    """A service with a file of API keys; *inbox* reads, *ops* is an operator's."""

    service: Service
    file: Path
    inbox: str
    ops: str
    both: str


@pytest.fixture(scope="session")
def guarded(
    running: Stack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GuardedService]:
    """A service with three keys: one for each scope, and one with both."""
    keys = {
        name: new_key(name, s)
        for name, s in (("inbox", "read"), ("ops", "admin"), ("both", "read,admin"))
    }
    file = tmp_path_factory.mktemp("keys") / "api_keys"
    file.write_text(
        "# who may call\n" + "".join(f"{line}\n" for _, line in keys.values())
    )
    service = Service(**running.settings | {"API_KEYS_FILE": str(file)})
    yield GuardedService(
        service=service, file=file, **{name: key for name, (key, _) in keys.items()}
    )
    service.stop()
