"""Authentication and authorization: API keys, scopes, and access without keys."""

from __future__ import annotations

import hashlib
import ipaddress
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from proxy.watched_file import BadFile
from proxy.web.problems import Problem

_LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})
_FORWARDED = ("HTTP_FORWARDED", "HTTP_X_FORWARDED_FOR", "HTTP_VIA")
Environ = Mapping[str, Any]
"""A request's WSGI environ (PEP 3333)."""

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


class Scope(StrEnum):
    """What a key may do. ``admin`` does not imply ``read``."""

    READ = "read"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Client:
    """A caller: the name of its key, or of callers without one, and its scopes."""

    name: str
    scopes: frozenset[Scope]


ANONYMOUS_CLIENT = Client("(anonymous)", frozenset({Scope.READ}))
LOCAL_CLIENT = Client("(local)", frozenset(Scope))
"""Callers without a key. No key has a name in parentheses."""

LINK_CLIENT = Client("picture-links", frozenset({Scope.READ}))
"""The caller of every picture link: an allowance of its own pays for their misses. No
key may have its name."""

Keys = Mapping[str, Client]
"""Clients by the SHA-256 of their key, in hex. The keys themselves are only in
requests, and for a quarter of a second in the fast path, which remembers them."""


def read_keys(text: str) -> Keys:
    """Read lines of ``name scopes sha256-of-key``; ignore blank ones and ``#``.

    A name may occur twice, with two keys, for rotation.

    Raises:
        BadFile: a line is invalid, or there is none: a file that is being
            rewritten must not lock out all callers. The message has the line's
            number, not its content.
    """
    keys: dict[str, Client] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        digest, client = _read_line(line, number)
        if digest in keys:
            raise BadFile(f"line {number}: the same key as in a line above")
        keys[digest] = client
    if not keys:
        raise BadFile(
            "holds no key: put in a line that `profile-proxy key new NAME` prints"
        )
    return keys


def _read_line(line: str, number: int) -> tuple[str, Client]:
    parts = line.split()
    if len(parts) != 3:
        raise BadFile(f"line {number}: not 'name scopes sha256-of-key'")
    name, scopes, digest = parts
    if mistake := _mistake_in_name(name):
        raise BadFile(f"line {number}: {mistake}")
    if not _DIGEST.fullmatch(digest):
        raise BadFile(f"line {number}: a SHA-256 is 64 hex digits in lower case")
    try:
        return digest, Client(name, frozenset(map(Scope, scopes.split(","))))
    except ValueError:
        raise BadFile(f"line {number}: scopes are read, admin or read,admin") from None


def _mistake_in_name(name: str) -> str | None:
    """Return the rule that the *name* of a key breaks; None if it is allowed."""
    if not _NAME.fullmatch(name):
        return "a name is up to 64 of A-Z a-z 0-9 . _ -"
    if name == LINK_CLIENT.name:
        return f"{name} is the name of the signed picture links; give the key another"
    return None


def new_key(name: str, scopes: frozenset[Scope]) -> tuple[str, str]:
    """Return a new random key, and its line for the file of keys.

    Raises:
        ValueError: *name* is not allowed in a line.
    """
    if mistake := _mistake_in_name(name):
        raise ValueError(mistake)
    key = f"pp_{secrets.token_urlsafe(32)}"
    ordered = ",".join(scope.value for scope in Scope if scope in scopes)
    return key, f"{name} {ordered} {digest_of(key)}"


def digest_of(key: str) -> str:
    """Return the digest of a key, which the file of keys holds instead of it."""
    return hashlib.sha256(key.encode()).hexdigest()


class Authenticator:
    """Identifies the client of a request, and checks its scopes."""

    def __init__(
        self, keys: Callable[[], Keys] | None, *, allow_anonymous: bool
    ) -> None:
        """*keys* returns the keys that are valid now; None: there is no file of keys.

        Without keys, *allow_anonymous* lets every caller read. Otherwise only
        requests that come directly from this machine are allowed, for all scopes.
        """
        self._keys = keys
        self._allow_anonymous = allow_anonymous

    @property
    def asks_for_keys(self) -> bool:
        """Whether the key alone decides which client a request is from."""
        return self._keys is not None

    def key_names(self) -> list[str]:
        """Return the names in the file of keys, in its order."""
        if self._keys is None:
            return []
        return list(dict.fromkeys(client.name for client in self._keys().values()))

    def authorize(self, environ: Environ, scope: Scope) -> Client:
        """Return the client of a request, if it has *scope*.

        Raises:
            Problem: ``unknown_key``, ``scope_missing`` or ``not_local``.
        """
        client = self._client(environ)
        if scope not in client.scopes:
            raise Problem(
                "scope_missing",
                f"This request needs the scope {scope.value}. Use a key that has it.",
                key=client.name,
            )
        return client

    def _client(self, environ: Environ) -> Client:
        if self._keys is not None:
            return _client_of_key(environ.get("HTTP_AUTHORIZATION"), self._keys())
        if self._allow_anonymous:
            return ANONYMOUS_CLIENT
        if not _is_local(environ):
            raise Problem(
                "not_local",
                "No API keys are configured, so only direct requests from this machine"
                " to localhost are allowed. Set PROXY_API_KEYS_FILE to allow others.",
            )
        return LOCAL_CLIENT


def _client_of_key(authorization: str | None, keys: Keys) -> Client:
    """Return the client with the key in *authorization*.

    The search is by digest, so that its time reveals nothing about other keys.
    """
    scheme, _, key = (authorization or "").partition(" ")
    client = keys.get(digest_of(key.strip())) if scheme.lower() == "bearer" else None
    if client is None:
        raise Problem(
            "unknown_key",
            "The API key is missing or unknown. Send 'Authorization: Bearer <key>'.",
            headers={"WWW-Authenticate": 'Bearer realm="profile-proxy"'},
        )
    return client


def _is_local(environ: Environ) -> bool:
    """Guard against DNS rebinding and a forgotten reverse proxy.

    The service listens on loopback, but a web page can make a browser send its
    requests there, under the page's own host name, and a reverse proxy on this
    machine passes on requests from elsewhere.
    """
    host = re.sub(r":[0-9]+$", "", environ.get("HTTP_HOST", ""))
    forwarded = any(name in environ for name in _FORWARDED)
    return (
        host.lower() in _LOCAL_HOSTS
        and not forwarded
        and _is_loopback(environ.get("REMOTE_ADDR"))
    )


def _is_loopback(address: str | None) -> bool:
    """Return whether the peer is this machine; a server may listen elsewhere too."""
    try:
        return ipaddress.ip_address(address or "").is_loopback
    except ValueError:
        return False
