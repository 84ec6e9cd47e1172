"""Readers: from the text of a setting to its value, or a ValueError with the rule.

The text of an error completes "PROXY_<NAME> must be ...". It quotes no value:
`proxy.config.shown` decides what may be shown of one.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit

SHORTEST_KEY = 16
"""Characters of a secret that signs, at least."""

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(s|m|h|d)?", re.ASCII)
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_HEADER_TEXT = re.compile(r"[!-~]+", re.ASCII)
_METAS_HOST = re.compile(r"(^|\.)(facebook|instagram)\.com\.?$")
_VERSION = re.compile(r"v[0-9]+\.[0-9]+")

_QUOTES = "\"'`\u2018\u2019\u201c\u201d"
_NO_VALUE = re.compile(r"undefined(?![a-z0-9]).*|null|none|nil", re.IGNORECASE)
"""What programs and scripts write for a value that they do not have."""

_PLACEHOLDER = re.compile(r"\$\{.*\}|\{\{.*\}\}|<.*>")

INSTAGRAM_LOGIN = "IGAA"
"""How the tokens of an Instagram login begin, which graph.facebook.com rejects."""


class Address(NamedTuple):
    """The IP address and port that the service listens on."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret, and the file that it was read from, whose content may change."""

    value: str = field(repr=False)
    file: Path | None


def read_duration(text: str) -> float:
    """``90s``, ``15m``, ``1h``, ``2d`` or plain seconds, in seconds."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError("a number of seconds, or one with a unit: 90s, 15m, 1h, 2d")
    return float(match[1]) * _UNITS[match[2] or "s"]


def duration(low: str, high: str) -> Callable[[str], float]:
    """A reader of durations between *low* and *high*, both included."""

    def read(text: str) -> float:
        seconds = read_duration(text)
        if not read_duration(low) <= seconds <= read_duration(high):
            raise ValueError(f"between {low} and {high}")
        return seconds

    return read


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """A reader of whole numbers between *low* and *high*, both included."""

    def read(text: str) -> int:
        if not re.fullmatch("[0-9]{1,9}", text) or not low <= int(text) <= high:
            raise ValueError(f"a whole number between {low} and {high}")
        return int(text)

    return read


def read_flag(text: str) -> bool:
    """``1`` or ``0``, for on and off."""
    if text not in ("0", "1"):
        raise ValueError("0 or 1")
    return text == "1"


def one_of(*names: str) -> Callable[[str], str]:
    """A reader of one of these lower-case *names*, in capitals too."""

    def read(text: str) -> str:
        if text.lower() not in names:
            raise ValueError(f"one of {', '.join(names)}")
        return text.lower()

    return read


def matching(pattern: str, rule: str) -> Callable[[str], str]:
    """A reader of text that matches *pattern*; *rule* states it for the operator."""

    def read(text: str) -> str:
        if re.fullmatch(pattern, text, re.ASCII) is None:
            raise ValueError(rule)
        return text

    return read


def read_secret(text: str) -> str:
    """A token or secret that a header can hold: printable ASCII, no spaces.

    Nothing that is plainly no secret: quoted, in several lines, or a word for nothing.
    """
    secret = text.strip()
    if secret and (secret[0] in _QUOTES or secret[-1] in _QUOTES):
        raise ValueError("a secret without quotes around it")
    if re.search(r"[\r\n]", secret):
        raise ValueError("a secret in one line, and there is a line break in it")
    if re.search(r"\s", secret):
        raise ValueError("a secret without blanks, and there is one in it")
    if _NO_VALUE.fullmatch(secret):
        raise ValueError(
            "a secret, and not undefined, null or none, which programs write for a"
            " value that they do not have"
        )
    if _PLACEHOLDER.fullmatch(secret):
        raise ValueError("a secret, and not a placeholder that was not filled in")
    if _HEADER_TEXT.fullmatch(secret) is None:
        raise ValueError("printable ASCII without spaces, and not empty")
    return secret


def read_signing_secret(text: str) -> str:
    """A secret that signs what anyone can see, and so must not be guessed from it."""
    how = f"at least {SHORTEST_KEY} characters: openssl rand -hex 32 makes one"
    try:
        secret = read_secret(text)
    except ValueError as exc:
        raise ValueError(f"{exc}; it needs {how}") from None
    if len(secret) < SHORTEST_KEY:
        raise ValueError(how)
    return secret


def read_secrets(text: str) -> str:
    """Secrets by comma, each as `read_secret` reads it."""
    try:
        return ",".join(map(read_secret, text.split(",")))
    except ValueError as exc:
        raise ValueError(f"secrets by comma, and each of them {exc}") from None


def token_reader(graph_url: str) -> Callable[[str], str]:
    """A reader of Page tokens for the host of *graph_url*.

    Source: https://developers.facebook.com/docs/instagram-platform/instagram-api-with-instagram-login
    """
    host = urlsplit(graph_url).hostname or ""
    is_facebook = bool(re.search(r"(^|\.)facebook\.com\.?$", host))

    def read(text: str) -> str:
        token = read_secret(text)
        if is_facebook and token.startswith(INSTAGRAM_LOGIN):
            raise ValueError(
                f"a token for {host}, and one that begins with {INSTAGRAM_LOGIN} is of"
                " an Instagram login, which works at https://graph.instagram.com only"
            )
        return token

    return read


def secret_in_file(path: str, read: Callable[[str], str] = read_secret) -> Secret:
    """Read a secret from the file at *path*: the default Page's, or a named one's.

    Raises:
        ValueError: its text completes "<setting that names the file> ...", and quotes
            nothing of the content.
    """
    try:
        # Some editors write a byte order mark.
        return Secret(read(Path(path).read_text("utf-8-sig")), Path(path))
    except OSError as exc:
        raise ValueError(f"cannot be read: {exc.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError("is not text") from None
    except ValueError as exc:
        raise ValueError(f"must hold {exc}") from None


def read_address(text: str) -> Address:
    """An IP address and a port; ``localhost`` is 127.0.0.1."""
    host, _, port = text.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    host = "127.0.0.1" if host == "localhost" else host
    try:
        ipaddress.ip_address(host)
        if not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 65536:
            raise ValueError
    except ValueError:
        # A name may mean several addresses, and the server listens on one.
        raise ValueError(
            "an IP address and a port, such as 127.0.0.1:8080 or [::1]:8080"
        ) from None
    return Address(host, int(port))


def read_graph_url(text: str) -> str:
    """The base URL of the Graph API, without the version."""
    parts = _split_url(text)
    host = parts.hostname or ""
    is_bare = not re.search(r"[\s?#@]", text)
    if parts.scheme not in ("http", "https") or not host or not is_bare:
        raise ValueError("https://host, with no user, query or space")
    if parts.scheme == "http" and _METAS_HOST.search(host):
        raise ValueError("https for Meta's own hosts: no token may be sent unencrypted")
    if any(map(_VERSION.fullmatch, parts.path.split("/"))):
        raise ValueError("without a version (PROXY_GRAPH_VERSION has it)")
    return text.rstrip("/")


def is_in_clear(url: str) -> bool:
    """Whether requests to *url* leave this machine without TLS."""
    parts = urlsplit(url)
    return parts.scheme == "http" and not Address(parts.hostname or "", 0).is_loopback


def read_blocked_codes(text: str) -> frozenset[tuple[int, int | None]]:
    """Graph errors by comma, each a code or ``code/subcode``."""
    codes = [code.strip() for code in text.split(",") if code.strip()]
    pairs = [re.fullmatch("([0-9]{1,9})(?:/([0-9]{1,9}))?", code) for code in codes]
    if not all(pairs):
        raise ValueError("codes by comma, each a code or code/subcode: 551,200/1545041")
    return frozenset(
        (int(pair[1]), int(pair[2]) if pair[2] else None) for pair in pairs if pair
    )


def _split_url(text: str) -> SplitResult:
    # The library's messages quote a part of the URL, which may be a password.
    try:
        parts = urlsplit(text)
    except ValueError:
        raise ValueError("a URL") from None
    try:
        parts.port  # noqa: B018 - raises for an invalid port
    except ValueError:
        raise ValueError("a URL whose port is a number from 1 to 65535") from None
    return parts
