"""The store's URL: parsed and checked once, for the settings and for the client."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

EMBEDDED = "embedded:"
"""The store URL that means an engine of our own, which ends with its owner."""

SENTINEL, CLUSTER = "redis+sentinel", "redis+cluster"
SCHEMES = ("redis", "rediss", "unix", SENTINEL, CLUSTER)
SENTINEL_PORT, REDIS_PORT = 26379, 6379

_HOST = r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?"
_USER = r"(?:[^/?#@,\[\]]*@)?"
_PORT = "a URL whose port is a number from 1 to 65535"
_HOSTS = rf"{_USER}{_HOST}(?:,{_HOST})*"


Hosts = tuple[tuple[str, int], ...]
"""Host and port of the server, of the Sentinels or of some nodes of the Cluster."""


class _Rule(NamedTuple):
    """A pattern that an option's value must match, and the same in words."""

    pattern: str
    words: str


_Rules = Mapping[str, _Rule]

_NOT_EMPTY = _Rule(".+", "not empty")
_PATH = _Rule(".+", "a path")
_DATABASE = _Rule("[0-9]{1,9}", "a whole number between 0 and 999999999")

_CLUSTER_OPTIONS = {"username": _NOT_EMPTY, "password": _NOT_EMPTY}
"""The options after ``?`` for a Cluster, which has no other database than 0."""

_SENTINEL_OPTIONS = _CLUSTER_OPTIONS | {
    "db": _DATABASE,
    "sentinel_username": _NOT_EMPTY,
    "sentinel_password": _NOT_EMPTY,
}
"""The same behind Sentinels, which have users of their own."""

_SERVER_OPTIONS = _CLUSTER_OPTIONS | {
    "db": _DATABASE,
    "ssl_ca_certs": _PATH,
    "ssl_certfile": _PATH,
    "ssl_keyfile": _PATH,
    "ssl_cert_reqs": _Rule("none|optional|required", "none, optional or required"),
    "ssl_check_hostname": _Rule("true|false", "true or false"),
}
"""The same for one server. Timeouts and pool sizes are ours to set."""

_OPTIONS: Mapping[str, _Rules] = {
    SENTINEL: _SENTINEL_OPTIONS,
    CLUSTER: _CLUSTER_OPTIONS,
}


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """A valid store URL. Neither its ``repr`` nor `masked` has a password.

    *text* is the URL as it was written, *master_name* the master's name behind
    Sentinels, and *options* are the others after ``?``, such as ``ssl_ca_certs``.
    """

    text: str = field(repr=False)
    scheme: str
    hosts: Hosts = ()
    master_name: str = ""
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    options: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False)

    @classmethod
    def parse(cls, text: str) -> StoreUrl:
        """Read *text*.

        Raises:
            ValueError: with what it must be. Nothing of *text* is quoted, because any
                part of it may be a password.
        """
        if text == EMBEDDED:
            return cls(text, EMBEDDED.rstrip(":"))
        scheme = text.partition("://")[0]
        parts, hosts = _split(text, scheme)
        options = _read_options(parts, _OPTIONS.get(scheme, _SERVER_OPTIONS))
        username, password = (
            options.pop("username", None),
            options.pop("password", None),
        )
        name = unquote(parts.path.strip("/"))
        # Elsewhere the path is a socket's, or the name that Sentinels give a master.
        is_database = scheme in ("redis", "rediss") and name.isdecimal()
        return cls(
            text,
            scheme,
            hosts,
            master_name=name if scheme == SENTINEL else "",
            database=int(options.pop("db", name if is_database else "0")),
            username=unquote(parts.username) if parts.username else username,
            password=unquote(parts.password) if parts.password else password,
            options=options,
        )

    @property
    def is_embedded(self) -> bool:
        return self.text == EMBEDDED

    @property
    def masked(self) -> str:
        """The URL without its password, for people to read."""
        return mask(self.text)


def mask(text: str) -> str:
    """Return the URL *text* without its password, for people to read.

    Also where `urlsplit` would read the URL as another one, because the password in it
    has a slash that should have been quoted.
    """
    scheme, _, rest = text.partition("://")
    user, at, address = rest.rpartition("@")
    if at:
        return f"{scheme}://{user.partition(':')[0]}:***@{address.partition('?')[0]}"
    return text.partition("?")[0] if "password" in unquote(text) else text


def _split(text: str, scheme: str) -> tuple[SplitResult, Hosts]:
    """Split a URL that has the form of its *scheme*, and its hosts."""
    if scheme == SENTINEL:
        form = "redis+sentinel://host:26379,host/name"
        return _split_many(text, "/[^/]+", form, SENTINEL_PORT)
    if scheme == CLUSTER:
        return _split_many(text, "/?", "redis+cluster://host:6379,host", REDIS_PORT)
    # As it is written: redis-py takes no unix:/run/the.sock and no REDIS://.
    if scheme == text or scheme not in SCHEMES:
        raise ValueError(
            f"{EMBEDDED} or a URL of {', '.join(s + '://' for s in SCHEMES)}"
        )
    return _split_one(text, scheme)


def _split_one(text: str, scheme: str) -> tuple[SplitResult, Hosts]:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        # Its text quotes a part of the URL, which may be a password.
        raise ValueError(_PORT if _has_bad_port(text) else "a URL") from None
    host = parts.hostname
    if scheme == "unix":
        is_whole = not host and parts.path.startswith("/")
    else:
        is_whole = bool(host and re.fullmatch("/?[0-9]*", parts.path))
    if port == 0:
        raise ValueError(_PORT)
    if not is_whole or parts.fragment:
        raise ValueError(
            "redis://host:port/0 or unix:///path/of/the.sock, with a password"
            " percent-encoded"
        )
    return parts, ((host, port or REDIS_PORT),) if host else ()


def _has_bad_port(text: str) -> bool:
    """Whether the port is invalid, and not a password that is not percent-encoded."""
    return bool(re.fullmatch(rf"\w+://{_USER}[^/?#@]*:[^/?#@:]*([/?#][^@]*)?", text))


def _split_many(
    text: str, path: str, form: str, default_port: int
) -> tuple[SplitResult, Hosts]:
    """Split a URL that names several hosts; *form* is how it should look.

    `urlsplit` gets all but the list of hosts: since 2025 its releases refuse an IPv6
    address that is not the whole host.
    """
    malformed = ValueError(f"{form}, with a password percent-encoded")
    scheme, _, rest = text.partition("://")
    netloc = re.split("[/?#]", rest, maxsplit=1)[0]
    parts = urlsplit(f"{scheme}://{rest[len(netloc) :]}")._replace(netloc=netloc)
    names = netloc.rpartition("@")[2]
    ports = re.findall(rf"{_HOST}(?=,|$)", names)
    if any(port and not 0 < int(port) < 65536 for port in ports):
        raise ValueError(_PORT)
    if (
        not re.fullmatch(_HOSTS, parts.netloc, re.ASCII)
        or not re.fullmatch(path, parts.path)
        or parts.fragment
    ):
        raise malformed
    try:
        each = [urlsplit(f"//{name}") for name in names.split(",")]
    except ValueError:
        # An address in brackets that is none.
        raise malformed from None
    return parts, tuple((one.hostname or "", one.port or default_port) for one in each)


def _read_options(parts: SplitResult, rules: _Rules) -> dict[str, str]:
    options = parse_qs(parts.query, keep_blank_values=True)
    if options.keys() - rules.keys():
        raise ValueError(f"a URL with no options but {', '.join(sorted(rules))}")
    for name, values in options.items():
        if name.startswith("ssl_") and not parts.scheme.startswith("rediss"):
            raise ValueError(f"a rediss:// URL, if it says {name}")
        if len(values) > 1:
            raise ValueError(f"a URL that says {name} once")
        if not re.fullmatch(rules[name].pattern, values[0], re.ASCII):
            raise ValueError(f"a URL whose {name} is {rules[name].words}")
    return {name: value for name, [value] in options.items()}
