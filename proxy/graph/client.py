"""The calls: one profile. The Page token lives here and goes nowhere else."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import io
import logging
import re
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from proxy.domain.answer import FetchResult
from proxy.domain.failures import (
    GraphTimeout,
    GraphUnavailable,
    LookupFailure,
    PermissionMissing,
    Throttled,
)
from proxy.domain.profile import (
    DEFAULT_PAGE,
    FIELDS,
    GraphError,
    Igsid,
    Outcome,
    Profile,
    Refusal,
)
from proxy.graph.replies import BlockedCodes, PictureRefused, read_reply
from proxy.graph.usage import Usage, read_usage
from proxy.logs import code_of, last_four

CONNECT_TIMEOUT = 2.0
"""Seconds for one attempt to reach Meta: all its addresses, and TLS."""

LEAST_TIMEOUT = 0.001
"""Seconds; zero would mean to a socket that it must not wait at all."""

MAX_BODY_BYTES = 1024 * 1024
"""A profile takes half a kilobyte. Counted after decompression."""

PICTURE_REFUSED_FOR = 86400.0
"""Seconds for which an account that knows no ``profile_pic`` is not asked for it."""

_VERSION = re.compile(r"v[0-9]{1,3}\.[0-9]{1,3}", re.ASCII)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Reply:
    """What came over the wire, whatever it means."""

    status: int
    headers: requests.structures.CaseInsensitiveDict[str]
    body: bytes


class GraphClient:
    """Asks Meta about one person at a time, for one Page.

    Source: https://developers.facebook.com/docs/messenger-platform/instagram/features/user-profile
    """

    def __init__(
        self,
        base_url: str,
        *,
        token: Callable[[], str],
        app_secret: Callable[[], str] | None,
        blocked: BlockedCodes,
        calls_at_once: int,
        page: str = DEFAULT_PAGE,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Ask at *base_url*, such as ``https://graph.facebook.com/v25.0``, for *page*.

        *token* and *app_secret* are called for each call, so that a rotated
        one is used at once. *monotonic* is monotonic, in seconds.
        """
        self._base_url = base_url.rstrip("/")
        self._token = token
        self._app_secret = app_secret
        self._blocked = blocked
        self._page = page
        self._monotonic = monotonic
        self._without_picture_until = 0.0
        self._session = _new_session(calls_at_once)

    def __repr__(self) -> str:
        return f"GraphClient({self._base_url!r})"

    def token_digest(self) -> str:
        """Which token is in use, by the first digits of its SHA-256."""
        return _digest_of(self._token())

    def fetch(self, igsid: Igsid, within: float) -> FetchResult:
        """Ask Meta who *igsid* is; the answer is complete in *within* seconds.

        One call, or two where Meta refuses the field ``profile_pic`` for this
        account. A failure is told, not raised.
        """
        deadline = self._monotonic() + within
        if self._monotonic() < self._without_picture_until:
            return self._ask_without_picture(igsid, deadline)
        try:
            return self._ask(igsid, FIELDS, deadline)
        except PictureRefused:
            told = self._ask_without_picture(igsid, deadline)
            if not isinstance(told.outcome, LookupFailure):
                self._without_picture_until = self._monotonic() + PICTURE_REFUSED_FOR
            return told

    def _ask_without_picture(self, igsid: Igsid, deadline: float) -> FetchResult:
        fields = tuple(field for field in FIELDS if field != "profile_pic")
        try:
            return self._ask(igsid, fields, deadline)
        except PictureRefused as refused:
            return FetchResult(
                PermissionMissing(refused.said), None, self.token_digest()
            )

    def _ask(
        self, igsid: Igsid, fields: tuple[str, ...], deadline: float
    ) -> FetchResult:
        """One call, with one line in the log, whatever comes of it.

        Raises:
            PictureRefused: as ``read_reply`` does.
        """
        started = self._monotonic()
        line: dict[str, Any] = {"page": self._page, "person": last_four(igsid)}
        token = self._token()
        usage = Usage(None, 0.0)
        version: str | None = None
        outcome: Outcome | LookupFailure | PictureRefused
        try:
            reply = self._get(igsid, fields, token, deadline, line)
            line["status"] = reply.status
            line["graph_version"] = version = _version_in(reply.headers)
            usage = read_usage(reply.headers)
            outcome = self._read(reply, igsid, usage)
        except (LookupFailure, PictureRefused) as failure:
            outcome = failure
        line |= _line_of(outcome)
        line["usage_percent"] = usage.percent
        line["seconds"] = round(self._monotonic() - started, 3)
        log.info("asked Meta", extra=line)
        if isinstance(outcome, PictureRefused):
            raise outcome
        return FetchResult(outcome, usage.percent, _digest_of(token), version)

    def _read(self, reply: _Reply, igsid: Igsid, usage: Usage) -> Outcome:
        """What *reply* means. Only a 200 can be a profile, whatever it looks like."""
        try:
            outcome = read_reply(reply.body, igsid, self._blocked)
        except Throttled as throttled:
            throttled.retry_after = usage.wait or None
            raise
        if isinstance(outcome, Profile) and reply.status != 200:
            raise GraphUnavailable()
        return outcome

    def _get(
        self,
        igsid: Igsid,
        fields: tuple[str, ...],
        token: str,
        deadline: float,
        line: dict[str, Any],
    ) -> _Reply:
        """Send the call; once more if the first try could not even connect.

        *line*, of the log, gets the kind of what went wrong in the end.
        """
        for last in (False, True):
            left = deadline - self._monotonic()
            if left <= 0:
                raise GraphTimeout()
            try:
                return self._send(igsid, fields, token, left)
            except requests.RequestException as exc:
                failure, kind = _failure_of(exc), _kind_of(exc)
                again = not last and _never_connected(exc)
            except urllib3.exceptions.HTTPError as exc:
                failure, kind, again = _failure_of(exc), _kind_of(exc), False
            if not again:
                break
        line["error"] = kind
        # Raised out here, so that it drags no library's exception along: their
        # texts contain the whole URL, with the person's id and the proof.
        raise failure

    def _send(
        self, igsid: Igsid, fields: tuple[str, ...], token: str, within: float
    ) -> _Reply:
        timeout = urllib3.Timeout(total=within)
        params = {"fields": ",".join(fields)}
        if self._app_secret:
            params["appsecret_proof"] = appsecret_proof(token, self._app_secret())
        with self._session.get(
            f"{self._base_url}/{igsid}",
            params=params,
            headers={"Authorization": f"Bearer {token}"},
            timeout=timeout,  # type: ignore[arg-type]  # documented, if not typed
            allow_redirects=False,
            stream=True,
        ) as response:
            body = response.raw.read(MAX_BODY_BYTES + 1, decode_content=True)
            if len(body) > MAX_BODY_BYTES:
                raise GraphUnavailable()
            return _Reply(response.status_code, response.headers, body)


def appsecret_proof(token: str, app_secret: str) -> str:
    """Prove that we know the app's secret, as Meta wants it: lower-case hex.

    Source: https://developers.facebook.com/docs/graph-api/guides/secure-requests
    """
    return hmac.new(app_secret.encode(), token.encode(), hashlib.sha256).hexdigest()


def _version_in(headers: Mapping[str, str]) -> str | None:
    """Which version answered, which need not be the one that was asked for."""
    version = headers.get("facebook-api-version", "")
    return version if _VERSION.fullmatch(version) else None


@lru_cache(maxsize=4)
def _digest_of(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()[:8]


def _line_of(outcome: Outcome | LookupFailure | PictureRefused) -> dict[str, Any]:
    """What a line of the log says of *outcome*."""
    match outcome:
        case Profile():
            return {"result": "profile"}
        case Refusal(reason=reason, said=said):
            result = reason.value
        case failure:
            result, said = code_of(failure), failure.said or GraphError()
    return {
        "result": result,
        "code": said.code,
        "subcode": said.subcode,
        "fbtrace_id": said.fbtrace_id,
    }


def _failure_of(exc: Exception) -> LookupFailure:
    """A library's exception as one of ours. A body that stalls is a timeout too."""
    timeouts = (requests.Timeout, urllib3.exceptions.TimeoutError)
    return GraphTimeout() if isinstance(exc, timeouts) else GraphUnavailable()


def _kind_of(exc: BaseException) -> str:
    """The class of what *exc* came of in the end; the texts have the whole URL."""
    while inner := exc.__cause__ or exc.__context__:
        exc = inner
    return type(exc).__name__


def _never_connected(exc: requests.RequestException) -> bool:
    """Nothing has been sent yet, so asking again cannot cost a second call."""
    reason = getattr(exc.args[0], "reason", None) if exc.args else None
    return isinstance(exc, requests.ConnectTimeout) or isinstance(
        reason, NewConnectionError
    )


class _Session(requests.Session):
    """A session to which no answer is a redirect.

    Told not to follow one, requests still works out where it leads, which
    raises for an odd ``Location``, and reads its whole body first.
    """

    def get_redirect_target(self, resp: requests.Response) -> None:
        return None


def _new_session(calls_at_once: int) -> requests.Session:
    """A session that is ours alone: no environment, no cookies, no retries."""
    # Its lines name whole URLs: at DEBUG every one, at WARNING the odd ones.
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


# A timeout of requests bounds each address by itself, and then the silence between
# two bytes, so a host with many addresses or a reply that drips takes far longer.
# Below, all shares one moment: urllib3 takes what connecting and TLS have cost off
# its total, and what is left is for the head and the body together.


def connect_to_any(addresses: Sequence[tuple[Any, ...]], until: float) -> socket.socket:
    """A connection to the first of *addresses* that takes one.

    They are as ``getaddrinfo`` gives them. Each gets an equal share of the time
    that is left, so that a silent one leaves some to the next. What is left of it
    in the end is the socket's timeout, which bounds the TLS handshake as a whole.
    *until* is on the monotonic clock.

    Raises:
        OSError: none does, for the last one's reason; TimeoutError when time is up.
    """
    reason = OSError("no address to try")
    for tried, address in enumerate(addresses):
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError("no address answered in time")
        try:
            sock = _connected_to(address, left / (len(addresses) - tried))
        except OSError as exc:
            reason = exc
        else:
            sock.settimeout(max(until - time.monotonic(), LEAST_TIMEOUT))
            return sock
    raise reason


def _connected_to(address: tuple[Any, ...], within: float) -> socket.socket:
    family, kind, protocol, _, place = address
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(within)
        sock.connect(place)
    except BaseException:
        sock.close()
        raise
    return sock


class _UntilDeadline(io.RawIOBase):
    """Bytes of *sock*, until the socket's timeout counted from now has passed."""

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
        self.fp = io.BufferedReader(_UntilDeadline(sock))


def _connect(connection: HTTPConnection) -> socket.socket:
    """What urllib3 calls for a new connection; its timeout is what is left of all."""
    until = time.monotonic() + (connection.timeout or 0.0)
    try:
        # Not ``host``, which has lost the last dot of a name that is complete.
        name, port = connection._dns_host, connection.port
        addresses = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
        # From here: the system bounds the look-up of a name, and we cannot.
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
