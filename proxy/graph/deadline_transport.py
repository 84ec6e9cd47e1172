"""The transport of requests, with one deadline for the whole call.

A timeout of requests bounds each address by itself, and then the silence between
two bytes, so a host with many addresses or a reply that drips takes far longer.
Here all phases share one deadline: urllib3 subtracts the time of connecting and of
TLS from its total, and the rest is for the head and the body together.
"""

from __future__ import annotations

import http.client
import io
import logging
import socket
import time
from collections.abc import Sequence
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

CONNECT_TIMEOUT = 2.0
"""Seconds for one attempt to connect to Meta: all its addresses, and TLS."""

LEAST_TIMEOUT = 0.001
"""Seconds. A socket with a timeout of zero does not wait at all."""


class _Session(requests.Session):
    """A session that treats no response as a redirect.

    With ``allow_redirects=False`` requests still resolves the target, which
    raises for an odd ``Location``, and reads the whole body first.
    """

    def get_redirect_target(self, resp: requests.Response) -> None:
        return None


def new_session(calls_at_once: int) -> requests.Session:
    """Return a session that uses no environment, no cookies and no retries."""
    # urllib3 logs whole URLs: at DEBUG every one, at WARNING the odd ones.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    session = _Session()
    session.trust_env = False
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.headers.update(
        {"User-Agent": "graph-profile-proxy", "Accept-Encoding": "gzip"}
    )
    adapter = _DeadlineAdapter(pool_connections=2, pool_maxsize=calls_at_once)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


def connect_to_any(addresses: Sequence[tuple[Any, ...]], until: float) -> socket.socket:
    """Connect to the first of *addresses* that accepts a connection.

    *addresses* are rows of ``getaddrinfo``. Each gets an equal share of the time
    left, so that a silent one leaves time for the next. The time left at the end
    is the socket's timeout, which bounds the TLS handshake as a whole.
    *until* is on the monotonic clock.

    Raises:
        OSError: no address accepted; the reason is the last one's.
        TimeoutError: the time was up first.
    """
    reason = OSError("no address to try")
    for tried, address in enumerate(addresses):
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError("no address answered in time")
        try:
            sock = _connect_to(address, left / (len(addresses) - tried))
        except OSError as exc:
            reason = exc
        else:
            sock.settimeout(max(until - time.monotonic(), LEAST_TIMEOUT))
            return sock
    raise reason


def _connect_to(address: tuple[Any, ...], within: float) -> socket.socket:
    family, kind, protocol, _, host_and_port = address
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(within)
        sock.connect(host_and_port)
    except BaseException:
        sock.close()
        raise
    return sock


class _DeadlineStream(io.RawIOBase):
    """A stream of the bytes of *sock*, with the socket's timeout as one deadline.

    The timeout counts from the creation of the stream, not from the last byte.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._bytes = sock.makefile("rb", buffering=0)
        self._deadline = time.monotonic() + (sock.gettimeout() or 0.0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the reply is not complete in time")
        self._sock.settimeout(left)
        return self._bytes.readinto(buffer)

    def close(self) -> None:
        self._bytes.close()
        super().close()


class _DeadlineResponse(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        self.fp = io.BufferedReader(_DeadlineStream(sock))


def _connect(connection: HTTPConnection) -> socket.socket:
    """Open the socket of *connection*, whose timeout is the time left for the call."""
    until = time.monotonic() + (connection.timeout or 0.0)
    try:
        # Not ``host``, which lacks the last dot of a fully qualified name.
        name, port = connection._dns_host, connection.port
        addresses = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
        # Counted from here: the system bounds the name look-up, and we cannot.
        until = min(until, time.monotonic() + CONNECT_TIMEOUT)
        return connect_to_any(addresses, until)
    except TimeoutError as exc:
        raise ConnectTimeoutError(connection, "no address answers") from exc
    except (OSError, UnicodeError) as exc:
        raise NewConnectionError(connection, "no address can be reached") from exc


class _DeadlineHTTPConnection(HTTPConnection):
    response_class = _DeadlineResponse

    def _new_conn(self) -> socket.socket:
        return _connect(self)


class _DeadlineHTTPSConnection(HTTPSConnection):
    response_class = _DeadlineResponse

    def _new_conn(self) -> socket.socket:
        return _connect(self)


class _DeadlineHTTPPool(HTTPConnectionPool):
    ConnectionCls = _DeadlineHTTPConnection


class _DeadlineHTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _DeadlineHTTPSConnection


class _DeadlineAdapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {
            "http": _DeadlineHTTPPool,
            "https": _DeadlineHTTPSPool,
        }
