"""A simulator on a free port, and threads that call it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from proxy.simulator.server import Simulator
from tests.helpers.simulator_client import Client


@pytest.fixture
def meta() -> Iterator[Client]:
    with Simulator() as simulator:
        yield Client(simulator.url)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as threads:
        yield threads
