"""The Graph client on the wire: connections, TLS, redirects, and one deadline."""

from __future__ import annotations

import gzip
import logging
import socket
import ssl
import threading
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import trustme

from proxy.domain.failures import GraphTimeout, GraphUnavailable
from proxy.domain.profile import Igsid, Profile
from proxy.graph.client import GraphClient
from proxy.graph.deadline_transport import connect_to_any

ADA = Igsid("1254001234567890")
TOKEN = "EAACANARYPAGETOKEN0123456789"
LOGGER = GraphClient.__module__

Address = tuple[int, int, int, str, Any]


@dataclass
class RecordingServer:
    """A server that records connections and requests; a test may set its reply."""

    server: ThreadingHTTPServer
    port: int
    connections: int = 0
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    reply: bytes = b'{"id":"1254001234567890","name":"Ada"}'


@pytest.fixture
def meta() -> Iterator[RecordingServer]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            meta.connections += 1
            super().setup()

        def do_GET(self) -> None:
            meta.requests.append((self.path, dict(self.headers)))
            self.send_response(meta.status)
            for name, value in meta.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(meta.reply)))
            self.end_headers()
            self.wfile.write(meta.reply)

        def log_message(self, *args: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    meta = RecordingServer(server, server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield meta
    server.shutdown()
    thread.join()
    server.server_close()


def a_client(base_url: str) -> GraphClient:
    return GraphClient(
        base_url,
        token=lambda: TOKEN,
        app_secret=None,
        blocked=frozenset(),
        calls_at_once=4,
    )


def test_client_reuses_its_connection(meta) -> None:
    """After profiles and refusals alike: a handshake for each call would cost more."""
    client = a_client(f"http://127.0.0.1:{meta.port}")

    client.fetch(ADA, 2.0)
    meta.status, meta.reply = 400, b'{"error":{"code":9010}}'
    client.fetch(ADA, 2.0)
    client.fetch(ADA, 2.0)

    assert (len(meta.requests), meta.connections) == (3, 1)


def test_client_sends_no_cookies(meta) -> None:
    """A cookie of one reply must not go into the next call."""
    meta.headers = {"Set-Cookie": "datr=secret; Path=/"}
    client = a_client(f"http://127.0.0.1:{meta.port}")

    client.fetch(ADA, 2.0)
    client.fetch(ADA, 2.0)

    assert all("Cookie" not in headers for _, headers in meta.requests)


def test_client_ignores_the_environment(meta, monkeypatch) -> None:
    """Neither a proxy nor a .netrc of the machine may get the token."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    client = a_client(f"http://127.0.0.1:{meta.port}")

    assert isinstance(client.fetch(ADA, 2.0).outcome, Profile)
    assert meta.requests[0][1]["Authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize(
    ("scheme", "kind"),
    [("http", "ConnectionRefusedError"), ("https", "SSLError")],
    ids=["refused", "not TLS"],
)
def test_log_names_the_class_of_a_connection_error(meta, caplog, scheme, kind) -> None:
    """Only the class, because the texts of libraries contain the URL."""
    caplog.set_level(logging.INFO)
    port = meta.port
    if scheme == "http":
        with socket.create_server(("127.0.0.1", 0)) as gone:
            port = gone.getsockname()[1]

    a_client(f"{scheme}://127.0.0.1:{port}").fetch(ADA, 2.0)

    [line] = [vars(record) for record in caplog.records if record.name == LOGGER]
    assert (line["result"], line["error"]) == ("graph_unavailable", kind)
    assert ADA not in str(line)


def test_redirect_is_not_followed(meta) -> None:
    """Otherwise the token would go to its target."""
    meta.status = 302
    meta.headers = {"Location": f"http://127.0.0.1:{meta.port}/elsewhere"}
    meta.reply = b""
    client = a_client(f"http://127.0.0.1:{meta.port}")

    result = client.fetch(ADA, 2.0)

    assert isinstance(result.outcome, GraphUnavailable)
    assert len(meta.requests) == 1


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (bytes(30 << 20), {}),
        (gzip.compress(bytes(30 << 20)), {"Content-Encoding": "gzip"}),
    ],
    ids=["30 MB", "a gzip bomb"],
)
def test_body_of_a_redirect_is_bounded(meta, body, headers) -> None:
    """It is not used, so it must not fill the memory."""
    meta.status, meta.reply = 302, body
    meta.headers = {"Location": "/elsewhere", **headers}
    client = a_client(f"http://127.0.0.1:{meta.port}")
    tracemalloc.start()

    try:
        result = client.fetch(ADA, 2.0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(result.outcome, GraphUnavailable)
    assert peak < 10 << 20


@pytest.mark.parametrize(
    "location",
    [
        "",
        "//",
        "http://[::1",
        "\xff\xfe/x",
        "http://\xe9\xff.example/",
        "http://exa mple:abc/",
        "http://a:99999999/",
    ],
)
def test_location_of_a_redirect_is_not_parsed(meta, location) -> None:
    """An invalid location is a failure of Meta, not a bug of ours."""
    meta.status, meta.reply, meta.headers = 302, b"", {"Location": location}
    client = a_client(f"http://127.0.0.1:{meta.port}")

    assert isinstance(client.fetch(ADA, 2.0).outcome, GraphUnavailable)


@pytest.fixture
def authority(meta) -> trustme.CA:
    """Put the server behind TLS, with a certificate of this authority."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    meta.server.socket = context.wrap_socket(meta.server.socket, server_side=True)
    return authority


def test_untrusted_certificate_ends_the_call(meta, authority) -> None:
    """Before the token is sent."""
    client = a_client(f"https://127.0.0.1:{meta.port}")

    result = client.fetch(ADA, 2.0)

    assert isinstance(result.outcome, GraphUnavailable)
    assert meta.requests == []


def test_client_reuses_its_connection_over_tls(meta, authority, tmp_path) -> None:
    """TLS connections have the same deadline stream."""
    trusted = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(trusted))
    client = a_client(f"https://127.0.0.1:{meta.port}")
    client._session.verify = str(trusted)

    assert isinstance(client.fetch(ADA, 2.0).outcome, Profile)
    client.fetch(ADA, 2.0)
    assert meta.connections == 1


def test_stalled_tls_handshake_ends_at_the_deadline() -> None:
    """The server accepts and never replies."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = a_client(f"https://127.0.0.1:{silent.getsockname()[1]}")
        started = time.monotonic()

        result = client.fetch(ADA, 0.5)

    assert isinstance(result.outcome, GraphTimeout | GraphUnavailable)
    assert time.monotonic() - started < 1.0


def test_tls_handshake_counts_against_the_deadline(tmp_path) -> None:
    """Its time is not added to the time for the reply, which never comes here."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    trusted = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(trusted))
    over = threading.Event()

    def shake_hands_slowly(server: socket.socket) -> None:
        accepted, _ = server.accept()
        over.wait(0.7)
        with context.wrap_socket(accepted, server_side=True) as connection:
            connection.recv(4096)
            over.wait(5)

    with socket.create_server(("127.0.0.1", 0)) as server:
        slow = threading.Thread(target=shake_hands_slowly, args=(server,))
        slow.start()
        client = a_client(f"https://127.0.0.1:{server.getsockname()[1]}")
        client._session.verify = str(trusted)
        started = time.monotonic()

        result = client.fetch(ADA, 1.0)

        took = time.monotonic() - started
        over.set()
        slow.join()
    assert isinstance(result.outcome, GraphTimeout)
    assert 0.7 < took < 1.3


@pytest.fixture
def silent() -> Iterator[Address]:
    """An address that does not reply to a connection: its queue is full."""
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for waiting in (first, second):
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        yield address_of(full)


def address_of(server: socket.socket) -> Address:
    """Return the address of *server* as a row of ``getaddrinfo``."""
    return (server.family, server.type, server.proto, "", server.getsockname())


def test_all_addresses_of_a_host_share_one_deadline(silent) -> None:
    """Four silent ones take no longer than one."""
    started = time.monotonic()

    with pytest.raises(TimeoutError):
        connect_to_any([silent] * 4, started + 0.6)

    assert 0.5 < time.monotonic() - started < 0.9


def test_silent_address_leaves_time_for_the_next(silent) -> None:
    """A dead IPv6 address must not use up the time of the IPv4 address."""
    until = time.monotonic() + 1.0

    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        connect_to_any([silent, address_of(server)], until) as connection,
    ):
        assert connection.getpeername() == server.getsockname()
        assert 0 < (connection.gettimeout() or 0) <= 0.5


def test_unreachable_address_is_skipped() -> None:
    """It refuses, or this machine does not know its family."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        refusing = address_of(closed)
    unknown = (250, *refusing[1:])

    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        connect_to_any(
            [unknown, refusing, address_of(server)], time.monotonic() + 1.0
        ) as connection,
    ):
        assert connection.getpeername() == server.getsockname()


def test_last_unreachable_address_gives_the_error() -> None:
    """As if it were the only one."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        refusing = address_of(server)

    with pytest.raises(ConnectionRefusedError):
        connect_to_any([refusing] * 3, time.monotonic() + 1.0)


def test_failure_and_log_contain_no_secret_of_the_call(caplog) -> None:
    """At DEBUG too: no token, no proof and no whole id, nor in a chained exception."""
    caplog.set_level(logging.DEBUG)
    client = GraphClient(
        "http://127.0.0.1:9",
        token=lambda: TOKEN,
        app_secret=lambda: "canarysecret",
        blocked=frozenset(),
        calls_at_once=4,
    )

    failure = client.fetch(ADA, 2.0).outcome

    assert isinstance(failure, GraphUnavailable)
    assert failure.__context__ is None
    output = caplog.text + repr(failure) + "".join(map(str, map(vars, caplog.records)))
    for secret in (TOKEN, "canarysecret", "appsecret_proof", ADA):
        assert secret not in output
