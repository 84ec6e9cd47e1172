"""The stores that tests run against: real servers, started when first asked for."""

from collections.abc import Iterator
from contextlib import ExitStack

import hypothesis
import pytest

from proxy.embedded import engine
from tests.helpers.redis_servers import (
    DidNotStart,
    Nodes,
    Server,
    Watched,
    clustered,
    require,
    watched,
)
from tests.helpers.signals import catch_ignored_signals

# How long an example takes says more about the machine than about the code.
hypothesis.settings.register_profile("tests", deadline=None)
hypothesis.settings.load_profile("tests")


def pytest_sessionstart() -> None:
    """Let no child of a test inherit an ignored signal, as under nohup."""
    catch_ignored_signals()


@pytest.fixture(scope="session")
def embedded_url() -> Iterator[str]:
    """The engine that the demo starts."""
    try:
        running = engine.start()
    except engine.EngineMissing as exc:
        require(False, f"an engine to embed ({exc.why})")
        raise
    with running:
        yield running.url


@pytest.fixture(scope="session")
def tcp_url() -> Iterator[str]:
    """A redis-server or valkey-server on a port of this machine."""
    with Server("tcp") as server:
        yield server.url


@pytest.fixture(scope="session")
def unix_url() -> Iterator[str]:
    """The same, behind a socket in the file system."""
    with Server("unix") as server:
        yield server.url


@pytest.fixture(scope="session")
def tls_url() -> Iterator[str]:
    """The same, behind TLS, with a certificate of an authority made for the tests."""
    with ExitStack() as ending:
        try:
            server = ending.enter_context(Server("tls"))
        except DidNotStart as exc:
            require("tls" not in str(exc).lower(), "a redis-server that can do TLS")
            raise
        yield server.url


@pytest.fixture(scope="session")
def whole() -> Iterator[Watched]:
    """A master and its replica, watched by Sentinels; a test may break and mend it."""
    with watched() as whole:
        yield whole


@pytest.fixture(scope="session")
def sentinel_url(whole: Watched) -> str:
    """The same, as a store like any other."""
    return whole.url


@pytest.fixture(scope="session")
def nodes() -> Iterator[Nodes]:
    """A Redis Cluster, which a test may break if it mends it again."""
    with clustered() as nodes:
        yield nodes


@pytest.fixture(scope="session")
def cluster_url(nodes: Nodes) -> str:
    """The same, as a store like any other."""
    return nodes.url
