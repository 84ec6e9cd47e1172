"""The client of the Graph API. The Page token is used here and goes no further."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import requests
import urllib3
from urllib3.exceptions import NewConnectionError

from proxy.domain.answer import FetchResult
from proxy.domain.failures import (
    Cause,
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
from proxy.graph.deadline_transport import new_session
from proxy.graph.replies import BlockedCodes, PictureRefused, Reading, read_reply
from proxy.graph.usage import Usage, read_usage
from proxy.logs import caller, code_of, last_four

MAX_BODY_BYTES = 1024 * 1024
"""Counted after decompression. A profile takes half a kilobyte."""

PICTURE_REFUSED_FOR = 86400.0
"""Seconds without ``profile_pic`` in our calls, once Meta has refused that field."""

_VERSION = re.compile(r"v[0-9]{1,3}\.[0-9]{1,3}", re.ASCII)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Reply:
    """An HTTP response, read but not interpreted."""

    status: int
    headers: requests.structures.CaseInsensitiveDict[str]
    body: bytes


class GraphClient:
    """Fetches one person at a time from Meta, for one Page.

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
        """Create a client of *base_url*, such as ``https://graph.facebook.com/v25.0``.

        *token* and *app_secret* are called for each call, so that a rotated
        one is used at once. *page* is the Page's name in our log. *monotonic*
        is in seconds.
        """
        self._base_url = base_url.rstrip("/")
        self._token = token
        self._app_secret = app_secret
        self._blocked = blocked
        self._page = page
        self._monotonic = monotonic
        self._without_picture_until = 0.0
        self._session = new_session(calls_at_once)

    def __repr__(self) -> str:
        return f"GraphClient({self._base_url!r})"

    def token_digest(self) -> str:
        """Return the first digits of the SHA-256 of the token in use."""
        return _digest_of(self._token())

    def fetch(self, igsid: Igsid, within: float) -> FetchResult:
        """Fetch *igsid* from Meta, in at most *within* seconds.

        Costs one call, or two if Meta refuses the field ``profile_pic`` for
        this account. A failure is returned, not raised.
        """
        deadline = self._monotonic() + within
        if self._monotonic() < self._without_picture_until:
            return self._ask_without_picture(igsid, deadline)
        try:
            return self._ask(igsid, FIELDS, deadline)
        except PictureRefused:
            result = self._ask_without_picture(igsid, deadline)
            if not isinstance(result.outcome, LookupFailure):
                self._without_picture_until = self._monotonic() + PICTURE_REFUSED_FOR
            return result

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
        """Make one call, and log one line about its result.

        Raises:
            PictureRefused: as ``read_reply`` does.
        """
        started = self._monotonic()
        logged: dict[str, Any] = caller() | {"page": self._page}
        logged["person"] = last_four(igsid)
        token = self._token()
        usage = Usage(None, 0.0)
        version: str | None = None
        outcome: Outcome | LookupFailure | PictureRefused
        odd_fields: tuple[str, ...] = ()
        try:
            reply = self._send_with_connect_retry(
                igsid, fields, token, deadline, logged
            )
            logged["status"] = reply.status
            logged["graph_version"] = version = _answering_version(reply.headers)
            usage = read_usage(reply.headers)
            outcome, odd_fields = self._read(reply, igsid, usage)
        except (LookupFailure, PictureRefused) as failure:
            outcome = failure
        logged |= _log_fields(outcome)
        logged["usage_percent"] = usage.percent
        logged["seconds"] = round(self._monotonic() - started, 3)
        if odd_fields:
            logged["odd_fields"] = odd_fields
        log.info("asked Meta", extra=logged)
        if isinstance(outcome, PictureRefused):
            raise outcome
        return FetchResult(
            outcome, usage.percent, _digest_of(token), version, odd_fields
        )

    def _read(self, reply: _Reply, igsid: Igsid, usage: Usage) -> Reading:
        """Return the outcome in *reply*. Only a 200 can be a profile."""
        try:
            reading = read_reply(reply.body, igsid, self._blocked)
            if isinstance(reading.outcome, Profile) and reply.status != 200:
                raise GraphUnavailable.about_person()
            return reading
        except Throttled as throttled:
            throttled.retry_after = usage.wait or None
            raise
        except GraphUnavailable as unavailable:
            if reply.status >= 500:  # Whatever the body says, Meta itself has failed.
                unavailable.cause = Cause.UNAVAILABLE
            raise

    def _send_with_connect_retry(
        self,
        igsid: Igsid,
        fields: tuple[str, ...],
        token: str,
        deadline: float,
        logged: dict[str, Any],
    ) -> _Reply:
        """Send the call, and retry it once if no connection could be opened.

        Adds the class of the last error to *logged*.
        """
        for is_last_try in (False, True):
            left = deadline - self._monotonic()
            if left <= 0:
                raise GraphTimeout()
            try:
                return self._send(igsid, fields, token, left)
            except requests.RequestException as exc:
                failure, kind = _failure_of(exc), _root_class(exc)
                retry = not is_last_try and _failed_to_connect(exc)
            except urllib3.exceptions.HTTPError as exc:
                failure, kind, retry = _failure_of(exc), _root_class(exc), False
            if not retry:
                break
        logged["error"] = kind
        # Raised outside the except blocks, so that no library's exception is its
        # context: their texts contain the whole URL, with the person's id and
        # the proof.
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
    """Return the proof that we know the app's secret, in lower-case hex.

    Source: https://developers.facebook.com/docs/graph-api/guides/secure-requests
    """
    return hmac.new(app_secret.encode(), token.encode(), hashlib.sha256).hexdigest()


def _answering_version(headers: Mapping[str, str]) -> str | None:
    """Return the API version that answered, not always the one in our URL."""
    version = headers.get("facebook-api-version", "")
    return version if _VERSION.fullmatch(version) else None


@lru_cache(maxsize=4)
def _digest_of(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()[:8]


def _log_fields(outcome: Outcome | LookupFailure | PictureRefused) -> dict[str, Any]:
    """Return the fields of a log line that describe *outcome*."""
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
    """Translate a library's exception. A body that stalls is a timeout too."""
    timeouts = (requests.Timeout, urllib3.exceptions.TimeoutError)
    return GraphTimeout() if isinstance(exc, timeouts) else GraphUnavailable()


def _root_class(exc: BaseException) -> str:
    """Return the class name of the root cause of *exc*.

    Only the class, because the texts contain the whole URL.
    """
    while inner := exc.__cause__ or exc.__context__:
        exc = inner
    return type(exc).__name__


def _failed_to_connect(exc: requests.RequestException) -> bool:
    """Whether nothing was sent yet, so that a retry cannot cost a second call."""
    reason = getattr(exc.args[0], "reason", None) if exc.args else None
    return isinstance(exc, requests.ConnectTimeout) or isinstance(
        reason, NewConnectionError
    )
