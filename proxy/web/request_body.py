"""Request bodies: their maximum length, and how many are read concurrently."""

from __future__ import annotations

import threading
from typing import TypeVar

import msgspec
from flask import Request

from proxy.domain.failures import Overloaded
from proxy.web.problems import Problem

MAX_BODY_BYTES = 64 * 1024
"""The maximum length of a body: an operator's, which is a line of JSON."""

WEBHOOKS = "webhooks"
"""The name of the blueprint that Meta calls."""

LONGER_BODIES = {WEBHOOKS: 1024 * 1024}
"""Other maximum lengths, by blueprint: Meta sends up to 1,000 updates at once."""

BODIES_AT_ONCE = 8
"""Bodies that a process reads concurrently; each can block a thread for long."""

Body = TypeVar("Body")


class BodyReader:
    """Reads the bodies of requests, a few at a time.

    Reading waits for the client without a timeout. Without a limit on concurrent
    reads, stalled clients could block every thread.
    """

    def __init__(self, at_once: int = BODIES_AT_ONCE) -> None:
        self._permits = threading.BoundedSemaphore(at_once)

    def read(self, from_request: Request, shape: type[Body]) -> Body:
        """Read and parse the JSON body of a request as *shape*.

        Raises:
            Problem: ``length_required``, ``unsupported_media_type``, or
                ``invalid_body``; its detail names the invalid part.
            Overloaded: too many bodies are being read.
        """
        if from_request.content_length is None:
            raise _length_required()
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
                f"Invalid body: {exc}. See its schema at GET /openapi.yaml.",
            ) from None
        except (UnicodeDecodeError, RecursionError):
            raise Problem(
                "invalid_body", "The body is not JSON in UTF-8, or nested too deeply."
            ) from None

    def read_bytes(self, from_request: Request) -> bytes:
        """Read the raw body of a request.

        Raises:
            Overloaded: too many bodies are being read.
        """
        if not self._permits.acquire(blocking=False):
            raise Overloaded(retry_after=1.0)
        try:
            return from_request.get_data()
        finally:
            self._permits.release()


def check_length(from_request: Request) -> None:
    """Reject a body before it is read, if it is too long or of unknown length.

    Raises:
        Problem: ``length_required`` or ``body_too_large``.
    """
    if "Transfer-Encoding" in from_request.headers:
        raise _length_required()
    most = LONGER_BODIES.get(from_request.blueprint or "", MAX_BODY_BYTES)
    if (from_request.content_length or 0) > most:
        raise Problem(
            "body_too_large",
            f"The body is too large. Send at most {most} bytes.",
            headers={"Connection": "close"},
        )


def _length_required() -> Problem:
    return Problem(
        "length_required",
        "Send the body with Content-Length and without Transfer-Encoding.",
    )
