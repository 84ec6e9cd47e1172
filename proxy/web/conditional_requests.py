"""Conditional requests (RFC 9110 §13): decides when to send 304 Not Modified."""

from __future__ import annotations

from flask import Request


def is_not_modified(conditions: Request, etag: str | None) -> bool:
    """Return whether the client has the representation with this *etag* already.

    Only ``If-None-Match`` is evaluated. `Response.make_conditional` of Werkzeug would
    evaluate ``If-Match`` too, and send a 412 with the whole body.

    Source: https://www.rfc-editor.org/rfc/rfc9110#section-13.1.2
    """
    return etag is not None and conditions.if_none_match.contains_weak(etag)
