"""A store that is away, hangs or is full: one error, in time, with no secret in it."""

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
from proxy.storage.entries import EntryStore, Snapshot
from proxy.storage.flask_cache import ProfileCache
from proxy.storage.store_guard import CALLS_AT_ONCE, PROBED_EVERY
from tests.helpers.builders import form_of
from tests.helpers.redis_servers import Server, client_of, free_port, store_of
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
"""Seconds: connecting may take its time and then the answer, and slack for the test."""

Operation = Callable[[EntryStore], object]

OPERATIONS: dict[str, Operation] = {
    "look": lambda entries: entries.read(ADA),
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
"""What needs memory, and so fails where there is none."""

Open = Callable[[str], EntryStore]

each_operation = pytest.mark.parametrize("name", OPERATIONS)


@pytest.fixture(scope="session")
def open_store(cache_on: Callable[[redis.Redis], ProfileCache]) -> Iterator[Open]:
    """Builds what the service would have on the store at a URL.

    A second passes by its clock whenever it looks, so that it tries a store that
    hangs each time.
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
    """A store that was there and is used no more: nothing listens."""
    with store_of(request.param, PASSWORD) as (url, _):
        entries = open_store(url)
        entries.take(ADA, LEASE, MINUTE)
    return entries


@pytest.fixture(scope="module", params=KINDS)
def hanging(request: pytest.FixtureRequest, open_store: Open) -> Iterator[EntryStore]:
    """A store that accepts connections and then says nothing."""
    with store_of(request.param, PASSWORD) as (url, servers):
        entries = open_store(url)
        entries.take(ADA, LEASE, MINUTE)
        entries.read(ADA)  # Looks have connections of their own.
        for server in servers:
            server.pause()
        yield entries


@pytest.fixture
def server() -> Iterator[Server]:
    with Server("tcp", password=PASSWORD) as server:
        yield server


@pytest.fixture
def entries(server: Server, open_store: Open) -> EntryStore:
    return open_store(server.url)


@contextmanager
def full(server: Server) -> Iterator[None]:
    """Leave it without memory for anything new."""
    with client_of(server.url) as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 1)
        try:
            yield
        finally:
            client.config_set("maxmemory", 0)


def our_records(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name.startswith("proxy.")]


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.levelname, record.message) for record in our_records(caplog)]


def assert_unavailable(
    ask: Callable[[], object], caplog: pytest.LogCaptureFixture
) -> None:
    """It fails as it should, in time, and nothing of the URL is in text or log."""
    caplog.set_level(logging.DEBUG)
    began = time.monotonic()
    with pytest.raises(StoreUnavailable) as caught:
        ask()
    took = time.monotonic() - began

    raised = "".join(traceback.format_exception(caught.value))
    ours = raised + "".join(repr(vars(record)) for record in our_records(caplog))
    assert took < WITHIN
    assert PASSWORD not in ours + caplog.text
    for telling in ("redis.exceptions", "://", "127.0.0.1", "it.sock", ADA):
        assert telling not in ours


@each_operation
@pytest.mark.parametrize(
    "form",
    [
        "redis://{user}@{one}/0",
        "redis+sentinel://{user}@{one},{other}/people",
        "redis+cluster://{user}@{one},{other}",
    ],
)
def test_where_nothing_listens_everything_is_unavailable(
    open_store: Open, caplog: pytest.LogCaptureFixture, name: str, form: str
) -> None:
    """From the start: the service starts without its store."""
    one, other = (f"127.0.0.1:{free_port()}" for _ in range(2))
    entries = open_store(form.format(user=f":{PASSWORD}", one=one, other=other))

    assert_unavailable(lambda: OPERATIONS[name](entries), caplog)


def test_a_socket_that_is_not_there_is_unavailable(
    open_store: Open, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """As a port where nothing listens."""
    entries = open_store(f"unix://:{PASSWORD}@{tmp_path}/it.sock")

    assert_unavailable(lambda: entries.read(ADA), caplog)


@each_operation
def test_a_store_that_was_stopped_is_unavailable(
    stopped: EntryStore, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """A connection from before does not help, nor does it delay the error."""
    assert_unavailable(lambda: OPERATIONS[name](stopped), caplog)


@each_operation
def test_a_store_that_hangs_is_unavailable_in_time(
    hanging: EntryStore, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """On a connection from before as on a new one, and only once per operation."""
    assert_unavailable(lambda: OPERATIONS[name](hanging), caplog)


def test_a_flush_that_may_not_remove_is_no_flush(
    server: Server, open_store: Open, caplog: pytest.LogCaptureFixture
) -> None:
    """Though it may look for what it should."""
    with client_of(server.url) as raw:
        raw.acl_setuser(
            "looker",
            enabled=True,
            passwords=[f"+{PASSWORD}"],
            commands=["+@all", "-unlink"],
            keys=["*"],
        )
    entries = open_store(server.url.replace("//:", "//looker:"))
    entries.take(ADA, LEASE, MINUTE)
    entries.put(ADA, ENTRY, LEASE, NOW)

    assert_unavailable(lambda: entries.flush(None), caplog)
    assert entries.read(ADA).entry


@pytest.mark.parametrize("name", WRITES)
def test_a_full_store_is_unavailable_to_those_who_write(
    server: Server, entries: EntryStore, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """With the lease in hand: what we learned cannot be kept."""
    if name != "take":
        entries.take(ADA, LEASE, MINUTE)

    with full(server):
        assert_unavailable(lambda: OPERATIONS[name](entries), caplog)


@pytest.mark.parametrize("name", OPERATIONS.keys() - set(WRITES))
def test_a_full_store_still_reads_and_removes(
    server: Server, entries: EntryStore, name: str
) -> None:
    """An erase must not wait for memory that it would free."""
    entries.take(ADA, LEASE, MINUTE)

    with full(server):
        OPERATIONS[name](entries)


@pytest.mark.parametrize("password", [f"wrong-{PASSWORD}", ""], ids=["wrong", "none"])
def test_a_store_that_does_not_let_us_in_is_unavailable(
    server: Server, open_store: Open, caplog: pytest.LogCaptureFixture, password: str
) -> None:
    """And the password we tried stays with us."""
    entries = open_store(server.url.replace(f":{PASSWORD}@", f":{password}@"))

    assert_unavailable(lambda: entries.read(ADA), caplog)


def test_a_certificate_of_another_authority_is_not_accepted(
    open_store: Open, caplog: pytest.LogCaptureFixture, tls_url: str
) -> None:
    """Whoever could pretend to be the store would get names and leases."""
    entries = open_store(tls_url.partition("?")[0].replace("//", f"//:{PASSWORD}@"))

    assert_unavailable(lambda: entries.read(ADA), caplog)


def test_something_that_is_no_store_is_unavailable(
    open_store: Open, caplog: pytest.LogCaptureFixture, tls_url: str
) -> None:
    """Such as a port that wants TLS, asked without it."""
    place = tls_url.partition("?")[0].replace("rediss://", f"redis://:{PASSWORD}@")

    assert_unavailable(lambda: open_store(place).read(ADA), caplog)


def recovers(entries: EntryStore, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        assert entries.take(ADA, LEASE, MINUTE).lease == LEASE
    assert entries.put(ADA, ENTRY, LEASE, NOW) is True
    assert entries.read(ADA) == Snapshot(form_of(ENTRY), None, None)
    assert said(caplog) == [("WARNING", "store away"), ("WARNING", "store back")]


def fails(entries: EntryStore, *, times: int = 3) -> None:
    for _ in range(times):
        with pytest.raises(StoreUnavailable):
            entries.take(ADA, LEASE, MINUTE)


def test_a_store_that_is_started_again_is_used_again(
    server: Server, entries: EntryStore, caplog: pytest.LogCaptureFixture
) -> None:
    """By itself, though it knows our scripts no more; said once, and once."""
    entries.take(ADA, LEASE, MINUTE)

    server.stop()
    fails(entries)
    server.start()

    recovers(entries, caplog)


def test_a_store_that_hung_is_used_again(
    server: Server, entries: EntryStore, caplog: pytest.LogCaptureFixture
) -> None:
    """No late answer is taken for the next one's, and a lease is still its taker's."""
    entries.read(ADA)

    server.pause()
    fails(entries)
    server.resume()

    recovers(entries, caplog)


@pytest.mark.parametrize("kind", ["tcp", "sentinel", "cluster"])
def test_a_late_answer_is_nobodys(kind: str) -> None:
    """It comes when another is waited for already, and would be taken for that."""
    with store_of(kind) as (url, servers), new_client(url, connections=1) as client:
        client.set("{3}one", b"1", px=60_000)
        client.set("{3}other", b"2", px=60_000)
        for _ in range(2):
            servers[0].pause()
            with pytest.raises(redis.TimeoutError):
                client.get("{3}one")
            servers[0].resume()

            assert client.get("{3}other") == b"2"


def test_a_store_that_was_full_is_used_again(
    server: Server, entries: EntryStore, caplog: pytest.LogCaptureFixture
) -> None:
    """As soon as there is memory."""
    with full(server):
        fails(entries)

    recovers(entries, caplog)


def test_a_store_that_is_there_late_is_used(
    server: Server, open_store: Open, caplog: pytest.LogCaptureFixture
) -> None:
    """The service may start before its store."""
    server.stop()
    entries = open_store(server.url)

    fails(entries)
    server.start()

    recovers(entries, caplog)


def test_a_full_store_that_can_be_read_is_said_to_be_away_once(
    server: Server, entries: EntryStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Every miss looks before it takes; that must not make two lines of each."""
    with full(server):
        for _ in range(3):
            assert entries.read(ADA) == Snapshot(None, None, None)
            fails(entries, times=1)

    assert said(caplog) == [("WARNING", "store away")]


class SlowLog(logging.Handler):
    """Takes its time, as stderr does when nobody reads it."""

    def emit(self, record: logging.LogRecord) -> None:
        threading.Event().wait(0.1)


@pytest.fixture
def slow_log() -> Iterator[None]:
    handler = SlowLog()
    logging.getLogger("proxy").addHandler(handler)
    yield
    logging.getLogger("proxy").removeHandler(handler)


@pytest.mark.usefixtures("slow_log")
def test_many_threads_say_once_that_the_store_is_away(
    server: Server, entries: EntryStore, caplog: pytest.LogCaptureFixture
) -> None:
    """And once that it is back, however many notice while a slow log is written."""
    line = threading.Barrier(32)

    def read_one(_: int) -> None:
        line.wait()
        with suppress(StoreUnavailable):
            entries.read(ADA)

    with ThreadPoolExecutor(32) as pool:
        server.stop()
        list(pool.map(read_one, range(32)))
        server.start()
        list(pool.map(read_one, range(32)))

    assert said(caplog) == [("WARNING", "store away"), ("WARNING", "store back")]


def test_a_connection_found_dead_is_replaced_unnoticed(
    server: Server, entries: EntryStore, caplog: pytest.LogCaptureFixture
) -> None:
    """The store, or something between, closes idle connections without a word."""
    entries.take(ADA, LEASE, MINUTE)

    with client_of(server.url) as client:
        client.client_kill_filter(_type="normal", skipme=True)

    assert entries.read(ADA).lease == LEASE
    assert said(caplog) == []


def test_a_restart_between_two_requests_is_not_noticed(
    server: Server, entries: EntryStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Dead connections and forgotten scripts are made good within one operation."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: entries.take(ADA, LEASE, MINUTE), range(64)))

    server.stop()
    server.start()

    assert entries.take(ADA, LEASE, MINUTE).lease == LEASE
    assert said(caplog) == []


def test_a_crowd_takes_turns(server: Server, entries: EntryStore) -> None:
    """However many threads ask at once, only so many connections are opened."""
    start = threading.Barrier(128)

    def read_one(_: int) -> None:
        start.wait(10)
        entries.read(ADA)

    with ThreadPoolExecutor(128) as pool:
        list(pool.map(read_one, range(128)))

    with client_of(server.url) as client:
        others = len(client.client_list()) - 1
    assert 1 <= others <= CALLS_AT_ONCE
