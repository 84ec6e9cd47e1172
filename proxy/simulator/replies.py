"""Replies before they are sent, and JSON in Meta's format."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

JSON_TYPE = "application/json; charset=UTF-8"


@dataclass(frozen=True, slots=True)
class Reply:
    """A status, headers and a body, before any fault on the wire."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def meta_json(value: object) -> bytes:
    r"""Return *value* in Meta's format: compact, ``\uXXXX`` for non-ASCII, ``\/``."""
    return json.dumps(value, separators=(",", ":")).replace("/", "\\/").encode("ascii")


def plain_text(status: int, text: str) -> Reply:
    """Return a line of text, as the hosts of the pictures answer."""
    return Reply(status, {"content-type": "text/plain"}, text.encode())


def own_json(status: int, value: object, *, indent: int | None = None) -> Reply:
    """Return the simulator's own JSON, not in Meta's format."""
    headers = {"content-type": "application/json", "cache-control": "no-store"}
    return Reply(status, headers, json.dumps(value, indent=indent).encode() + b"\n")
