"""A store that is away, hangs or is full: one error, in time, without a secret."""

import itertools
import logging
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
import redis

from proxy.domain.entry import Entry
from proxy.domain.failures import GraphTimeout, StoreUnavailable
from proxy.domain.profile import GraphError, Igsid, Reason, Refusal
from proxy.storage.client_factory import REDIS_TIMEOUT
from proxy.storage.entries import EntryStore
from proxy.storage.flask_cache import ProfileCache
from proxy.storage.snapshot import Snapshot
from proxy.storage.store_guard import CALLS_AT_ONCE, PROBED_EVERY
from tests.helpers.builders import form_of
from tests.helpers.redis_servers import RedisServer, client_of, free_port, start_store
from tests.helpers.store_clients import new_client

NOW = 1_800_000_000.0
MINUTE = 60.0
ADA = Igsid("1254001000000001")
LEASE = "0123456789abcdef"
PASSWORD = "s3cr3t-canary"
ENTRY = Entry(
    Refusal(ADA, Reason.BLOCKED, GraphError(551)), NOW, NOW + MINUTE, NOW + MINUTE
)
LIFELESS = Entry(ENTRY.outcome, NOW, NOW, NOW)

WITHIN = 2 * REDIS_TIMEOUT + 0.5
"""Seconds: a timeout to connect, a timeout for the reply, and slack for the test."""

Operation = Callable[[EntryStore], object]

OPERATIONS: dict[str, Operation] = {
    "read": lambda entries: entries.read(ADA),
    "take": lambda entries: entries.take(ADA, LEASE, MINUTE),
    "put": lambda entries: entries.put(ADA, ENTRY, LEASE, NOW),
    "put-without-life": lambda entries: entries.put(ADA, LIFELESS, LEASE, NOW),
    "fail": lambda entries: entries.fail(ADA, GraphTimeout(), LEASE, now=NOW),
    "release": lambda entries: entries.release(ADA, LEASE),
    "erase": lambda entries: entries.erase(ADA),
    "flush": lambda entries: entries.flush(None),
    "flush-some": lambda entries: entries.flush(lambda entry: True),
    "flush-dry": lambda entries: entries.flush(None, dry_run=True),
    "ping": lambda entries: entries.ping(),
}

WRITES = ("take", "put", "fail", "ping")
"""The operations that need memory, and so fail where there is none."""

Open = Callable[[str], EntryStore]

each_operation = pytest.mark.parametrize("name", OPERATIONS)


@pytest.fixture(scope="session")
def open_store(cache_on: Callable[[redis.Redis], ProfileCache]) -> Iterator[Open]:
    """Builds the entries on the store at a URL, as the service does.

    A second passes by their clock with each reading, so that the circuit breaker lets
    each call through to a store that hangs.
    """
    with ExitStack() as ending:

        def open_one(url: str) -> EntryStore:
            client = ending.enter_context(new_client(url, connections=64))
            clock = itertools.count(step=PROBED_EVERY).__next__
            return EntryStore(cache_on(client), "default", monotonic=clock)

        yield open_one


KINDS = ("tcp", "unix", "tls", "sentinel", "cluster")


@pytest.fixture(scope="module", params=KINDS)
def stopped(request: pytest.FixtureRequest, open_store: Open) -> EntryStore:
    """A store that was used before its server stopped: nothing listens."""
    with start_store(request.param, PASSWORD) as (url, _):
        entries = open_store(url)
        entries.take(ADA, LEASE, MINUTE)
    return entries


@pytest.fixture(scope="module", params=KINDS)
def hanging(request: pytest.FixtureRequest, open_store: Open) -> Iterator[EntryStore]:
    """A store that accepts connections and then sends nothing."""
    with start_store(request.param, PASSWORD) as (url, servers):
        entries = open_store(url)
        entries.take(ADA, LEASE, MINUTE)
        entries.read(ADA)  # Reads have connections of their own.
        for server in servers:
            server.pause()
        yield entries


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer("tcp", password=PASSWORD) as server:
        yield server


@pytest.fixture
def entries(server: RedisServer, open_store: Open) -> EntryStore:
    return open_store(server.url)


@contextmanager
def full(server: RedisServer) -> Iterator[None]:
    """Leave *server* without memory for new keys."""
    with client_of(server.url) as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 1)
        try:
            yield
        finally:
            client.config_set("maxmemory", 0)


def our_records(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name.startswith("proxy.")]


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.levelname, record.message) for record in our_records(caplog)]


def assert_unavailable(
    operate: Callable[[], object], caplog: pytest.LogCaptureFixture
) -> None:
    """Assert that *operate* fails in time, and that no text has part of the URL."""
    caplog.set_level(logging.DEBUG)
    began = time.monotonic()
    with pytest.raises(StoreUnavailable) as caught:
        operate()
    took = time.monotonic() - began

    raised = "".join(traceback.format_exception(caught.value))
    ours = raised + "".join(repr(vars(record)) for record in our_records(caplog))
    assert took < WITHIN
    assert PASSWORD not in ours + caplog.text
    for word in ("redis.exceptions", "://", "127.0.0.1", "it.sock", ADA):
        assert word not in ours


@each_operation
@pytest.mark.parametrize(
    "form",
    [
        "redis://{user}@{one}/0",
        "redis+sentinel://{user}@{one},{other}/people",
        "redis+cluster://{user}@{one},{other}",
    ],
)
def test_every_operation_is_unavailable_where_nothing_listens(
    open_store: Open, caplog: pytest.LogCaptureFixture, name: str, form: str
) -> None:
    """From the start, because the service starts without its store."""
    one, other = (f"127.0.0.1:{free_port()}" for _ in range(2))
    entries = open_store(form.format(user=f":{PASSWORD}", one=one, other=other))

    assert_unavailable(lambda: OPERATIONS[name](entries), caplog)


def test_store_without_a_unix_socket_is_unavailable(
    open_store: Open, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """As on a port where nothing listens."""
    entries = open_store(f"unix://:{PASSWORD}@{tmp_path}/it.sock")

    assert_unavailable(lambda: entries.read(ADA), caplog)


@each_operation
def test_store_that_was_stopped_is_unavailable(
    stopped: EntryStore, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """A connection from before does not delay the error."""
    assert_unavailable(lambda: OPERATIONS[name](stopped), caplog)


@each_operation
def test_store_that_hangs_is_unavailable_in_time(
    hanging: EntryStore, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """On an old connection as on a new one, with one timeout for each operation."""
    assert_unavailable(lambda: OPERATIONS[name](hanging), caplog)


def test_flush_without_permission_to_remove_is_unavailable(
    server: RedisServer, open_store: Open, caplog: pytest.LogCaptureFixture
) -> None:
    """Although it may scan for keys."""
    with client_of(server.url) as raw:
        raw.acl_setuser(
            "scanner",
            enabled=True,
            passwords=[f"+{PASSWORD}"],
            commands=["+@all", "-unlink"],
            keys=["*"],
        )
    entries = open_store(server.url.replace("//:", "//scanner:"))
    entries.take(ADA, LEASE, MINUTE)
    entries.put(ADA, ENTRY, LEASE, NOW)

    assert_unavailable(lambda: entries.flush(None), caplog)
    assert entries.read(ADA).entry


@pytest.mark.parametrize("name", WRITES)
def test_full_store_is_unavailable_for_writes(
    server: RedisServer,
    entries: EntryStore,
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    """Also with the lease taken: the entry cannot be stored."""
    if name != "take":
        entries.take(ADA, LEASE, MINUTE)

    with full(server):
        assert_unavailable(lambda: OPERATIONS[name](entries), caplog)


@pytest.mark.parametrize("name", OPERATIONS.keys() - set(WRITES))
def test_full_store_still_reads_and_removes(
    server: RedisServer, entries: EntryStore, name: str
) -> None:
    """An erase must not wait for memory that it would free."""
    entries.take(ADA, LEASE, MINUTE)

    with full(server):
        OPERATIONS[name](entries)


@pytest.mark.parametrize("password", [f"wrong-{PASSWORD}", ""], ids=["wrong", "none"])
def test_store_that_rejects_our_password_is_unavailable(
    server: RedisServer,
    open_store: Open,
    caplog: pytest.LogCaptureFixture,
    password: str,
) -> None:
    """And the password that we tried is in no text."""
    entries = open_store(server.url.replace(f":{PASSWORD}@", f":{password}@"))

    assert_unavailable(lambda: entries.read(ADA), caplog)


def test_certificate_of_another_authority_is_not_accepted(
    open_store: Open, caplog: pytest.LogCaptureFixture, tls_url: str
) -> None:
    """An attacker that pretends to be the store would receive names and leases."""
    entries = open_store(tls_url.partition("?")[0].replace("//", f"//:{PASSWORD}@"))

    assert_unavailable(lambda: entries.read(ADA), caplog)


def test_server_that_is_not_a_store_is_unavailable(
    open_store: Open, caplog: pytest.LogCaptureFixture, tls_url: str
) -> None:
    """Such as a TLS port, to a client without TLS."""
    url = tls_url.partition("?")[0].replace("rediss://", f"redis://:{PASSWORD}@")

    assert_unavailable(lambda: open_store(url).read(ADA), caplog)


def assert_recovers(
    entries: EntryStore, caplog: pytest.LogCaptureFixture, was: str = "store away"
) -> None:
    for _ in range(3):
        assert entries.take(ADA, LEASE, MINUTE).lease == LEASE
    assert entries.put(ADA, ENTRY, LEASE, NOW) is True
    assert entries.read(ADA) == Snapshot(form_of(ENTRY), None, None)
    assert logged(caplog) == [("WARNING", was), ("WARNING", "store back")]


def assert_fails(entries: EntryStore, *, times: int = 3) -> None:
    for _ in range(times):
        with pytest.raises(StoreUnavailable):
            entries.take(ADA, LEASE, MINUTE)


def test_store_that_is_restarted_is_used_again(
    server: RedisServer, entries: EntryStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Although it has lost our scripts; each change is logged once."""
    entries.take(ADA, LEASE, MINUTE)

    server.stop()
    assert_fails(entries)
    server.start()

    assert_recovers(entries, caplog)


def test_store_that_hung_is_used_again(
    server: RedisServer, entries: EntryStore, caplog: pytest.LogCaptureFixture
) -> None:
    """No late reply is taken for the next, and a lease still has its owner."""
    entries.read(ADA)

    server.pause()
    assert_fails(entries)
    server.resume()

    assert_recovers(entries, caplog)


@pytest.mark.parametrize("kind", ["tcp", "sentinel", "cluster"])
def test_late_reply_is_not_taken_for_the_next(kind: str) -> None:
    """It arrives while the client waits for the reply to another command."""
    with start_store(kind) as (url, servers), new_client(url, connections=1) as client:
        client.set("{3}one", b"1", px=60_000)
        client.set("{3}other", b"2", px=60_000)
        for _ in range(2):
            servers[0].pause()
            with pytest.raises(redis.TimeoutError):
                client.get("{3}one")
            servers[0].resume()

            assert client.get("{3}other") == b"2"


def test_store_that_was_full_is_used_again(
    server: RedisServer, entries: EntryStore, caplog: pytest.LogCaptureFixture
) -> None:
    """As soon as there is memory."""
    with full(server):
        assert_fails(entries)

    assert_recovers(entries, caplog, "store full")


def test_store_that_starts_late_is_used(
    server: RedisServer, open_store: Open, caplog: pytest.LogCaptureFixture
) -> None:
    """The service may start before its store."""
    server.stop()
    entries = open_store(server.url)

    assert_fails(entries)
    server.start()

    assert_recovers(entries, caplog)


def test_full_store_that_can_be_read_is_logged_once_as_full(
    server: RedisServer, entries: EntryStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Every miss reads, and then fails to take the lease: no two lines for each."""
    with full(server):
        for _ in range(3):
            assert entries.read(ADA) == Snapshot(None, None, None)
            assert_fails(entries, times=1)

    assert logged(caplog) == [("WARNING", "store full")]


class SlowLog(logging.Handler):
    """Is slow, as stderr is while no process reads it."""

    def emit(self, record: logging.LogRecord) -> None:
        threading.Event().wait(0.1)


@pytest.fixture
def slow_log() -> Iterator[None]:
    handler = SlowLog()
    logging.getLogger("proxy").addHandler(handler)
    yield
    logging.getLogger("proxy").removeHandler(handler)


@pytest.mark.usefixtures("slow_log")
def test_many_threads_log_once_that_the_store_is_away(
    server: RedisServer, entries: EntryStore, caplog: pytest.LogCaptureFixture
) -> None:
    """And once that it is back, however many notice during a slow log write."""
    start = threading.Barrier(32)

    def read_one(_: int) -> None:
        start.wait()
        with suppress(StoreUnavailable):
            entries.read(ADA)

    with ThreadPoolExecutor(32) as pool:
        server.stop()
        list(pool.map(read_one, range(32)))
        server.start()
        list(pool.map(read_one, range(32)))

    assert logged(caplog) == [("WARNING", "store away"), ("WARNING", "store back")]


def test_dead_connection_is_replaced_without_a_log_line(
    server: RedisServer, entries: EntryStore, caplog: pytest.LogCaptureFixture
) -> None:
    """The store, or a firewall, closes idle connections without notice."""
    entries.take(ADA, LEASE, MINUTE)

    with client_of(server.url) as client:
        client.client_kill_filter(_type="normal", skipme=True)

    assert entries.read(ADA).lease == LEASE
    assert logged(caplog) == []


def test_restart_between_two_requests_is_not_logged(
    server: RedisServer, entries: EntryStore, caplog: pytest.LogCaptureFixture
) -> None:
    """One operation replaces dead connections and lost scripts."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: entries.take(ADA, LEASE, MINUTE), range(64)))

    server.stop()
    server.start()

    assert entries.take(ADA, LEASE, MINUTE).lease == LEASE
    assert logged(caplog) == []


def test_concurrent_reads_open_at_most_calls_at_once_connections(
    server: RedisServer, entries: EntryStore
) -> None:
    """However many threads read at once."""
    start = threading.Barrier(128)

    def read_one(_: int) -> None:
        start.wait(10)
        entries.read(ADA)

    with ThreadPoolExecutor(128) as pool:
        list(pool.map(read_one, range(128)))

    with client_of(server.url) as client:
        others = len(client.client_list()) - 1
    assert 1 <= others <= CALLS_AT_ONCE
