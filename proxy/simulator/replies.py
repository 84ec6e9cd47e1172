"""Replies on their way out: what is sent, and how Meta writes JSON."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

JSON_TYPE = "application/json; charset=UTF-8"


@dataclass(frozen=True, slots=True)
class Reply:
    """A status, headers and a body, before anything goes wrong on the wire."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def escaped(value: object) -> bytes:
    r"""*value* as Meta writes it: compact, ``\uXXXX`` beyond ASCII, and ``\/``."""
    return json.dumps(value, separators=(",", ":")).replace("/", "\\/").encode("ascii")


def plain(status: int, text: str) -> Reply:
    """A line of text, as the hosts of the pictures answer."""
    return Reply(status, {"content-type": "text/plain"}, text.encode())


def own(status: int, value: object) -> Reply:
    """JSON of the simulator's own, not Meta's."""
    headers = {"content-type": "application/json", "cache-control": "no-store"}
    return Reply(status, headers, json.dumps(value).encode() + b"\n")
