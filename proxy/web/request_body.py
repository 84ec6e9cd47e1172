"""Request bodies: their maximum length, their time, and how many are read at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Protocol, TypeVar

import msgspec
from flask import Request, g

from proxy.domain.failures import Overloaded
from proxy.web.body_mistakes import describe
from proxy.web.problems import Problem
from proxy.web.responses import CLOSE, RawResponse, raw_problem

MAX_BODY_BYTES = 64 * 1024
"""The maximum length of a body: an operator's, which is a line of JSON."""

WEBHOOKS = "webhooks"
"""The name of the blueprint that Meta calls."""

LONGER_BODIES = {WEBHOOKS: 1024 * 1024}
"""Other maximum lengths, by blueprint: Meta sends up to 1,000 updates at once."""

WEBHOOKS_AT_ONCE, ORDERS_AT_ONCE = 8, 4
"""Bodies that a process reads concurrently: of Meta, and of operators. Each can block
a thread, and operators must get through when webhooks do not."""

BODY_TIMEOUT = 10.0
"""Seconds in which a body must have come."""

BODY_LIMIT = "profile-proxy.body_limit"
"""Environ key of a `BodyLimit`, where the server has one."""

Body = TypeVar("Body")


class BodyRead(Protocol):
    """A read of a body; the server may give it up and answer the request itself."""

    @property
    def is_given_up(self) -> bool: ...


BodyLimit = Callable[
    [float, Callable[[], RawResponse]], AbstractContextManager[BodyRead]
]
"""Limits the read of a request's body to some seconds, and answers in its place."""


class BodyReader:
    """Reads the bodies of requests, a few at a time, each within *timeout* seconds.

    Without a limit on concurrent reads, stalled clients could block every thread.
    The time has a limit only where the server can interrupt a read: ours can.
    """

    def __init__(self, at_once: int, timeout: float = BODY_TIMEOUT) -> None:
        self._permits = threading.BoundedSemaphore(at_once)
        self._timeout = timeout

    def read(
        self, from_request: Request, shape: type[Body], rules: Mapping[str, str]
    ) -> Body:
        """Read and parse the JSON body of a request as *shape*.

        *rules* has what each key must be, for the detail of a problem.

        Raises:
            Problem: ``length_required``, ``unsupported_media_type``, or
                ``invalid_body``; its detail names the invalid part.
            Overloaded: too many bodies are being read.
        """
        _expected_bytes(from_request)
        if from_request.mimetype != "application/json":
            raise Problem(
                "unsupported_media_type",
                "Send the body with 'Content-Type: application/json'.",
            )
        try:
            return msgspec.json.decode(self.read_bytes(from_request), type=shape)
        except msgspec.MsgspecError as exc:
            raise Problem(
                "invalid_body",
                f"Invalid body: {describe(exc, rules)}. See its schema at GET"
                " /openapi.yaml.",
            ) from None
        except (UnicodeDecodeError, RecursionError):
            raise Problem(
                "invalid_body", "The body is not JSON in UTF-8, or nested too deeply."
            ) from None

    def read_bytes(self, from_request: Request) -> bytes:
        """Read the raw body of a request.

        Raises:
            Problem: ``length_required``, ``body_timeout``, or ``invalid_body`` when it
                is shorter than announced.
            Overloaded: too many bodies are being read.
        """
        expected = _expected_bytes(from_request)
        if not self._permits.acquire(blocking=False):
            raise Overloaded(retry_after=1.0)
        try:
            with self._limit(from_request) as read:
                body = from_request.get_data()
                g.is_body_read = True
        finally:
            self._permits.release()
        if read is not None and read.is_given_up:
            raise self._timed_out()
        if len(body) < expected:
            raise Problem(
                "invalid_body",
                f"The body ended after {len(body)} of the {expected} bytes that its"
                " Content-Length announced.",
            )
        return body

    def _limit(self, from_request: Request) -> AbstractContextManager[BodyRead | None]:
        limit: BodyLimit | None = from_request.environ.get(BODY_LIMIT)
        if limit is None:
            return nullcontext()
        answer = partial(raw_problem, self._timed_out(), g.request_id)
        return limit(self._timeout, answer)

    def _timed_out(self) -> Problem:
        return Problem(
            "body_timeout",
            f"The body did not come within {self._timeout:.0f} seconds. Send the"
            " request again, with all of its body.",
            headers=dict([CLOSE]),
        )


def check_length(from_request: Request) -> None:
    """Reject a body before it is read, if it is too long or of unknown length.

    Raises:
        Problem: ``length_required`` or ``body_too_large``.
    """
    if "Transfer-Encoding" in from_request.headers:
        raise _length_required(headers=dict([CLOSE]))
    most = LONGER_BODIES.get(from_request.blueprint or "", MAX_BODY_BYTES)
    if (from_request.content_length or 0) > most:
        raise Problem(
            "body_too_large",
            f"The body is too large. Send at most {most} bytes.",
            headers=dict([CLOSE]),
        )


def _expected_bytes(from_request: Request) -> int:
    if from_request.content_length is None:
        raise _length_required()
    return from_request.content_length


def _length_required(headers: Mapping[str, str] | None = None) -> Problem:
    return Problem(
        "length_required",
        "Send the body with Content-Length and without Transfer-Encoding.",
        headers=headers,
    )
