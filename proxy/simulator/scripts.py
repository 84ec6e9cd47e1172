"""Scripts: answers about one person that a test sets in place of the usual."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from proxy.simulator import errors
from proxy.simulator.errors import GraphError
from proxy.simulator.reading import (
    BadRequest,
    read_flag,
    read_integer,
    read_object,
    read_seconds,
    read_text,
)
from proxy.simulator.replies import meta_json

MAX_WAIT = 120.0
_KEYS = frozenset(
    "status headers body raw raw_base64 delay profile error wire times".split()
)
_CONTENTS = ("body", "raw", "raw_base64", "profile", "error")
_ERROR_KEYS = frozenset("code subcode message status type is_transient".split())


class Wire(StrEnum):
    """How a reply is sent: whole, or with one of the faults of a network."""

    WHOLE = "whole"
    HANG = "hang"
    DROP = "drop"
    RESET = "reset"
    TRUNCATE = "truncate"
    DRIP = "drip"
    DRIP_HEADERS = "drip_headers"
    GZIP = "gzip"
    GZIP_BOMB = "gzip_bomb"
    HUGE = "huge"
    CHUNKED = "chunked"


@dataclass(frozen=True, slots=True)
class Script:
    """The answers about one person for a while; None leaves a part unchanged.

    ``content`` is a whole body, ``profile`` is merged over the person's own and
    makes them consent, ``error`` replaces both. A header that is None is omitted.
    ``times`` is how often the script still applies, None for ever.
    """

    status: int | None = None
    headers: Mapping[str, str | None] = field(default_factory=dict)
    content: bytes | None = None
    profile: Mapping[str, object] | None = None
    error: GraphError | None = None
    answers_after: float | None = None
    wire: Wire = Wire.WHOLE
    times: int | None = None


def read_script(value: object, igsid: str, now: float) -> Script:
    """Return the script in the body of ``PUT /_sim/people/<igsid>``.

    Raises:
        BadRequest: a key is unknown, a value is wrong, or two keys exclude
            each other; the text names it.
    """
    body = read_object(value, _KEYS)
    contents = [key for key in _CONTENTS if key in body]
    if len(contents) > 1:
        raise BadRequest(f"only one of these at a time: {', '.join(contents)}")
    status, delay, times = body.get("status"), body.get("delay"), body.get("times")
    return Script(
        status=None
        if status is None
        else read_integer(status, "status", low=200, high=599),
        headers=_read_headers(body.get("headers", {})),
        content=_read_content(body),
        profile=_read_profile(body["profile"]) if "profile" in body else None,
        error=_read_error(body["error"], igsid, now) if "error" in body else None,
        answers_after=None
        if delay is None
        else read_seconds(delay, "delay", maximum=MAX_WAIT),
        wire=_read_wire(body.get("wire", Wire.WHOLE)),
        times=None
        if times is None
        else read_integer(times, "times", low=1, high=1_000_000),
    )


def _read_headers(value: object) -> Mapping[str, str | None]:
    if not isinstance(value, dict):
        raise BadRequest("'headers' must be an object")
    headers: dict[str, str | None] = {}
    for name, text in value.items():
        if text is not None and not (isinstance(text, str) and _fits_a_header(text)):
            raise BadRequest(f"header {name!r} must be one line of Latin-1 or null")
        if not name or not _fits_a_header(name) or ":" in name:
            raise BadRequest(f"{name!r} cannot be the name of a header")
        headers[name.lower()] = text
    return headers


def _fits_a_header(text: str) -> bool:
    return text.isprintable() and all(ord(letter) < 256 for letter in text)


def _read_content(body: Mapping[str, object]) -> bytes | None:
    if "body" in body:
        return meta_json(body["body"])
    if "raw" in body:
        return read_text(body["raw"], "raw").encode("utf-8", "surrogatepass")
    if "raw_base64" not in body:
        return None
    try:
        return base64.b64decode(read_text(body["raw_base64"], "raw_base64"), None, True)
    except (binascii.Error, ValueError) as exc:
        raise BadRequest("'raw_base64' must be base64") from exc


def _read_profile(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise BadRequest("'profile' must be an object")
    return value


def _read_error(value: object, igsid: str, now: float) -> GraphError:
    body = read_object(value, _ERROR_KEYS)
    if "code" not in body:
        raise BadRequest("'error' needs a 'code'")
    code = read_integer(body["code"], "code", low=0, high=10_000_000)
    subcode = body.get("subcode")
    if subcode is not None:
        subcode = read_integer(subcode, "subcode", low=0, high=10_000_000)
    error = errors.error_for(code, subcode, igsid, now)
    if "message" in body:
        error = replace(error, message=read_text(body["message"], "message"))
    if "type" in body:
        error = replace(error, type=read_text(body["type"], "type"))
    if "status" in body:
        status = read_integer(body["status"], "status", low=200, high=599)
        error = replace(error, status=status)
    if "is_transient" in body:
        flag = read_flag(body["is_transient"], "is_transient")
        error = replace(error, is_transient=flag)
    return error


def _read_wire(value: object) -> Wire:
    try:
        return Wire(read_text(value, "wire"))
    except ValueError as exc:
        raise BadRequest(f"'wire' must be one of: {', '.join(Wire)}") from exc
