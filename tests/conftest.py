"""The stores that tests run against: real servers, started on first use."""

from collections.abc import Iterator
from contextlib import ExitStack

import hypothesis
import pytest

from proxy.embedded import engine
from tests.helpers.redis_servers import (
    ClusterNodes,
    DidNotStart,
    RedisServer,
    SentinelGroup,
    require,
    start_cluster,
    start_sentinels,
)
from tests.helpers.signals import catch_ignored_signals

# The time that an example takes depends more on the machine than on the code.
hypothesis.settings.register_profile("tests", deadline=None)
hypothesis.settings.load_profile("tests")


def pytest_sessionstart() -> None:
    """Let no child of a test inherit an ignored signal, as under nohup."""
    catch_ignored_signals()


@pytest.fixture(scope="session")
def embedded_url() -> Iterator[str]:
    """An engine as the demo starts it."""
    try:
        running = engine.start()
    except engine.EngineMissing as exc:
        require(False, f"an engine to embed ({exc.why})")
        raise
    with running:
        yield running.url


@pytest.fixture(scope="session")
def tcp_url() -> Iterator[str]:
    """A redis-server or valkey-server on a TCP port."""
    with RedisServer("tcp") as server:
        yield server.url


@pytest.fixture(scope="session")
def unix_url() -> Iterator[str]:
    """A server on a Unix socket."""
    with RedisServer("unix") as server:
        yield server.url


@pytest.fixture(scope="session")
def tls_url() -> Iterator[str]:
    """A server behind TLS, with a certificate of an authority made for the tests."""
    with ExitStack() as ending:
        try:
            server = ending.enter_context(RedisServer("tls"))
        except DidNotStart as exc:
            require("tls" not in str(exc).lower(), "a redis-server that can do TLS")
            raise
        yield server.url


@pytest.fixture(scope="session")
def whole() -> Iterator[SentinelGroup]:
    """A master and its replica with Sentinels. A test that breaks it must mend it."""
    with start_sentinels() as group:
        yield group


@pytest.fixture(scope="session")
def sentinel_url(whole: SentinelGroup) -> str:
    """The URL of a store behind Sentinels."""
    return whole.url


@pytest.fixture(scope="session")
def nodes() -> Iterator[ClusterNodes]:
    """A Redis Cluster. A test that breaks it must mend it."""
    with start_cluster() as nodes:
        yield nodes


@pytest.fixture(scope="session")
def cluster_url(nodes: ClusterNodes) -> str:
    """The URL of a Redis Cluster."""
    return nodes.url
