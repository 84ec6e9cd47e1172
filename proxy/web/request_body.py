"""Bodies of requests: how long one may be, and how many are read at once."""

from __future__ import annotations

import threading
from typing import TypeVar

import msgspec
from flask import Request

from proxy.domain.failures import Overloaded
from proxy.web.problems import Problem

MAX_BODY_BYTES = 64 * 1024
"""The longest body a request may have: an operator's, which is a line of JSON."""

WEBHOOKS = "webhooks"
"""The blueprint of what Meta tells us."""

LONGER_BODIES = {WEBHOOKS: 1024 * 1024}
"""The longest body by blueprint, where it is another: Meta sends 1,000 updates."""

BODIES_AT_ONCE = 8
"""Bodies that are read at once in a process; each can hold a thread for long."""

Body = TypeVar("Body")


class BodyReader:
    """Reads the bodies of requests, a few at a time.

    Reading waits for the client, and nothing limits for how long: without a
    limit on how many do, clients that stall could hold every thread.
    """

    def __init__(self, at_once: int = BODIES_AT_ONCE) -> None:
        self._places = threading.BoundedSemaphore(at_once)

    def read(self, from_request: Request, shape: type[Body]) -> Body:
        """The JSON body of a request, as *shape*.

        Raises:
            Problem: ``length_required``, ``unsupported_media_type``, or
                ``invalid_body``, which says where.
            Overloaded: as many are being read as may be.
        """
        if from_request.content_length is None:
            raise _untold_length()
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
        """The body of a request as it came.

        Raises:
            Overloaded: as many are being read as may be.
        """
        if not self._places.acquire(blocking=False):
            raise Overloaded(retry_after=1.0)
        try:
            return from_request.get_data()
        finally:
            self._places.release()


def check_length(from_request: Request) -> None:
    """Refuse a body before it is read, if we do not know that it is short.

    Raises:
        Problem: ``length_required`` or ``body_too_large``.
    """
    if "Transfer-Encoding" in from_request.headers:
        raise _untold_length()
    most = LONGER_BODIES.get(from_request.blueprint or "", MAX_BODY_BYTES)
    if (from_request.content_length or 0) > most:
        raise Problem(
            "body_too_large",
            f"The body is too large. Send at most {most} bytes.",
            headers={"Connection": "close"},
        )


def _untold_length() -> Problem:
    return Problem(
        "length_required",
        "Send the body with Content-Length and without Transfer-Encoding.",
    )
