"""The client by itself, on the wire: connections, TLS, and one deadline for all."""

from __future__ import annotations

import gzip
import logging
import socket
import ssl
import threading
import time
import tracemalloc
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
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


@pytest.fixture
def meta() -> Iterator[SimpleNamespace]:
    """A server that counts connections; ``reply`` may be replaced."""
    seen = SimpleNamespace(connections=0, requests=[], status=200, headers={})
    seen.reply = b'{"id":"1254001234567890","name":"Ada"}'

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            seen.connections += 1
            super().setup()

        def do_GET(self) -> None:
            seen.requests.append((self.path, dict(self.headers)))
            self.send_response(seen.status)
            for name, value in seen.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(seen.reply)))
            self.end_headers()
            self.wfile.write(seen.reply)

        def log_message(self, *args: object) -> None:
            """Nothing to say."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    seen.server, seen.port = server, server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield seen
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


def test_a_connection_is_used_for_many_calls(meta) -> None:
    """Good answers and refusals leave it open; a handshake each would cost more."""
    client = a_client(f"http://127.0.0.1:{meta.port}")

    client.fetch(ADA, 2.0)
    meta.status, meta.reply = 400, b'{"error":{"code":9010}}'
    client.fetch(ADA, 2.0)
    client.fetch(ADA, 2.0)

    assert (len(meta.requests), meta.connections) == (3, 1)


def test_a_cookie_is_not_sent_back(meta) -> None:
    """What one call brings must not follow the next."""
    meta.headers = {"Set-Cookie": "datr=secret; Path=/"}
    client = a_client(f"http://127.0.0.1:{meta.port}")

    client.fetch(ADA, 2.0)
    client.fetch(ADA, 2.0)

    assert all("Cookie" not in headers for _, headers in meta.requests)


def test_the_environment_has_no_say(meta, monkeypatch) -> None:
    """Neither a proxy nor a .netrc of the machine gets to see the token."""
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
def test_the_log_says_why_meta_was_not_reached(meta, caplog, scheme, kind) -> None:
    """By the kind of the error alone: what libraries say has the URL."""
    caplog.set_level(logging.INFO)
    port = meta.port
    if scheme == "http":
        with socket.create_server(("127.0.0.1", 0)) as gone:
            port = gone.getsockname()[1]

    a_client(f"{scheme}://127.0.0.1:{port}").fetch(ADA, 2.0)

    [line] = [vars(record) for record in caplog.records if record.name == LOGGER]
    assert (line["result"], line["error"]) == ("graph_unavailable", kind)
    assert ADA not in str(line)


def test_a_redirect_is_not_followed(meta) -> None:
    """The token would go wherever it points."""
    meta.status = 302
    meta.headers = {"Location": f"http://127.0.0.1:{meta.port}/elsewhere"}
    meta.reply = b""
    client = a_client(f"http://127.0.0.1:{meta.port}")

    told = client.fetch(ADA, 2.0)

    assert isinstance(told.outcome, GraphUnavailable)
    assert len(meta.requests) == 1


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (bytes(30 << 20), {}),
        (gzip.compress(bytes(30 << 20)), {"Content-Encoding": "gzip"}),
    ],
    ids=["30 MB", "a gzip bomb"],
)
def test_the_body_of_a_redirect_is_bounded_too(meta, body, headers) -> None:
    """Nobody wants it, so it must not fill the memory."""
    meta.status, meta.reply = 302, body
    meta.headers = {"Location": "/elsewhere", **headers}
    client = a_client(f"http://127.0.0.1:{meta.port}")
    tracemalloc.start()

    try:
        told = client.fetch(ADA, 2.0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(told.outcome, GraphUnavailable)
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
def test_where_a_redirect_leads_is_not_looked_at(meta, location) -> None:
    """A place that makes no sense is Meta's trouble, not a bug of ours."""
    meta.status, meta.reply, meta.headers = 302, b"", {"Location": location}
    client = a_client(f"http://127.0.0.1:{meta.port}")

    assert isinstance(client.fetch(ADA, 2.0).outcome, GraphUnavailable)


@pytest.fixture
def authority(meta) -> trustme.CA:
    """Puts the server behind TLS, under a certificate of this authority."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    meta.server.socket = context.wrap_socket(meta.server.socket, server_side=True)
    return authority


def test_tls_is_verified(meta, authority) -> None:
    """A certificate nobody vouches for ends the call before the token is sent."""
    client = a_client(f"https://127.0.0.1:{meta.port}")

    told = client.fetch(ADA, 2.0)

    assert isinstance(told.outcome, GraphUnavailable)
    assert meta.requests == []


def test_a_call_over_tls_keeps_its_connection(meta, authority, tmp_path) -> None:
    """The same reading against a deadline, over TLS."""
    trusted = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(trusted))
    client = a_client(f"https://127.0.0.1:{meta.port}")
    client._session.verify = str(trusted)

    assert isinstance(client.fetch(ADA, 2.0).outcome, Profile)
    client.fetch(ADA, 2.0)
    assert meta.connections == 1


def test_a_tls_handshake_that_stalls_ends_in_time() -> None:
    """A server that accepts and says nothing is a timeout, not a hang."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = a_client(f"https://127.0.0.1:{silent.getsockname()[1]}")
        started = time.monotonic()

        told = client.fetch(ADA, 0.5)

    assert isinstance(told.outcome, GraphTimeout | GraphUnavailable)
    assert time.monotonic() - started < 1.0


def test_a_slow_tls_handshake_is_on_the_same_clock(tmp_path) -> None:
    """What it takes is taken off the time for the reply, which never comes here."""
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

        told = client.fetch(ADA, 1.0)

        took = time.monotonic() - started
        over.set()
        slow.join()
    assert isinstance(told.outcome, GraphTimeout)
    assert 0.7 < took < 1.3


@pytest.fixture
def silent() -> Iterator[Address]:
    """An address that takes no connection and says so to nobody: its queue is full."""
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for waiting in (first, second):
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        yield address_of(full)


def address_of(server: socket.socket) -> Address:
    """As ``getaddrinfo`` would give it."""
    return (server.family, server.type, server.proto, "", server.getsockname())


def test_all_addresses_of_a_host_share_one_deadline(silent) -> None:
    """Four that are silent take no longer than one."""
    started = time.monotonic()

    with pytest.raises(TimeoutError):
        connect_to_any([silent] * 4, started + 0.6)

    assert 0.5 < time.monotonic() - started < 0.9


def test_a_silent_address_leaves_time_for_the_next(silent) -> None:
    """An IPv6 that leads nowhere must not cost the IPv4 its turn."""
    until = time.monotonic() + 1.0

    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        connect_to_any([silent, address_of(server)], until) as connection,
    ):
        assert connection.getpeername() == server.getsockname()
        assert 0 < (connection.gettimeout() or 0) <= 0.5


def test_an_address_that_cannot_be_reached_is_passed_over() -> None:
    """One that refuses, or of a kind that this machine does not know."""
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


def test_where_no_address_can_be_reached_the_last_one_tells_why() -> None:
    """As it would if there were no other."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        refusing = address_of(server)

    with pytest.raises(ConnectionRefusedError):
        connect_to_any([refusing] * 3, time.monotonic() + 1.0)


def test_nothing_of_the_call_is_in_what_is_raised_or_logged(caplog) -> None:
    """At DEBUG too: no token, no URL, no whole id, in no link of the chain."""
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
    told = caplog.text + repr(failure) + "".join(map(str, map(vars, caplog.records)))
    for secret in (TOKEN, "canarysecret", "appsecret_proof", ADA):
        assert secret not in told
