"""Every setting: its name, default, unit, help, and whether it is a secret."""

from __future__ import annotations

import difflib
import ipaddress
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import SplitResult, urlsplit

from proxy.storage.store_url import StoreUrl

PREFIX = "PROXY_"
SECRET_SHOWN_AS = "***"

_NOT_OURS = re.compile(r"SERVICE_|PORT(_|$)")
"""Kubernetes gives every container ``<SERVICE>_PORT...`` of a service named proxy."""

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(s|m|h|d)?", re.ASCII)
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_HEADER_TEXT = re.compile(r"[!-~]+", re.ASCII)


class SettingsError(Exception):
    """The settings are no good. *mistakes* are all of them, one sentence each."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


Check = Callable[[Any], object]
"""Looks at a setting's value, and raises SettingsError if it is no good."""


class Address(NamedTuple):
    """Where we listen."""

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
    """A secret, or the file that holds it and may come to hold another."""

    value: str = field(repr=False)
    file: Path | None


class Row(NamedTuple):
    """One setting. *default* is text, as it would stand in the environment."""

    name: str
    default: str | None
    read: Callable[[str], Any]
    help: str
    secret: bool = False


def read_duration(text: str) -> float:
    """``90s``, ``15m``, ``1h``, ``2d`` or plain seconds, in seconds."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError("a number of seconds, or one with a unit: 90s, 15m, 1h, 2d")
    return float(match[1]) * _UNITS[match[2] or "s"]


def _duration(low: str, high: str) -> Callable[[str], float]:
    def read(text: str) -> float:
        seconds = read_duration(text)
        if not read_duration(low) <= seconds <= read_duration(high):
            raise ValueError(f"between {low} and {high}")
        return seconds

    return read


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch("[0-9]{1,9}", text) or not low <= int(text) <= high:
            raise ValueError(f"a whole number between {low} and {high}")
        return int(text)

    return read


def _flag(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError("0 or 1")
    return text == "1"


def _one_of(*names: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text.lower() not in names:
            raise ValueError(f"one of {', '.join(names)}")
        return text.lower()

    return read


def _matching(pattern: str, words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if re.fullmatch(pattern, text, re.ASCII) is None:
            raise ValueError(words)
        return text

    return read


def read_secret(text: str) -> str:
    """A token or secret as it can stand in a header: printable ASCII, no spaces."""
    if _HEADER_TEXT.fullmatch(text.strip()) is None:
        raise ValueError("printable ASCII without spaces, and not empty")
    return text.strip()


def read_secrets(text: str) -> str:
    """Secrets by comma, each as `read_secret` takes it."""
    secrets = [secret.strip() for secret in text.split(",")]
    if not all(map(_HEADER_TEXT.fullmatch, secrets)):
        raise ValueError("secrets by comma, printable ASCII, and none of them empty")
    return ",".join(secrets)


def _address(text: str) -> Address:
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


def _split(text: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018 - raises for a port that is none
    except ValueError:
        # Its text quotes a part of the URL, which may be a password.
        raise ValueError("a URL") from None
    return parts


def read_graph_url(text: str) -> str:
    """Where Meta is, without the version."""
    parts = _split(text)
    host = parts.hostname or ""
    bare = not re.search(r"[\s?#@]", text)
    if parts.scheme not in ("http", "https") or not host or not bare:
        raise ValueError("https://host, with no user, query or space")
    if parts.scheme == "http" and re.search(
        r"(^|\.)(facebook|instagram)\.com\.?$", host
    ):
        raise ValueError("https for Meta's own hosts: the token must not go in clear")
    return text.rstrip("/")


def _blocked_codes(text: str) -> frozenset[tuple[int, int | None]]:
    codes = [code.strip() for code in text.split(",") if code.strip()]
    pairs = [re.fullmatch("([0-9]{1,9})(?:/([0-9]{1,9}))?", code) for code in codes]
    if not all(pairs):
        raise ValueError("codes by comma, each a code or code/subcode: 551,100/33")
    return frozenset(
        (int(pair[1]), int(pair[2]) if pair[2] else None) for pair in pairs if pair
    )


def usable_cores() -> int:
    """The cores this process may use: its affinity, and its cgroup's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # No cgroup v2 here, or no quota ("max").
        return cores


ROWS = (
    Row(
        "PAGE_TOKEN",
        None,
        read_secret,
        "Page access token of the default Page",
        secret=True,
    ),
    Row(
        "APP_SECRET",
        "",
        read_secret,
        "the app's secret; adds appsecret_proof to each call",
        secret=True,
    ),
    Row("PAGES_FILE", "", Path, "file of more Pages, each with its own token"),
    Row("GRAPH_URL", "https://graph.facebook.com", read_graph_url, "where Meta is"),
    Row(
        "GRAPH_VERSION",
        "v25.0",
        _matching(r"v[0-9]{1,3}\.[0-9]{1,3}", "a version such as v25.0"),
        "the version of the Graph API that is asked for",
    ),
    Row(
        "GRAPH_TIMEOUT",
        "5s",
        _duration("0.1s", "60s"),
        "the deadline of one fetch, its retries included",
    ),
    Row(
        "GRAPH_CONCURRENCY",
        "100",
        _whole(1, 1000),
        "calls to Meta at once, in each process",
    ),
    Row(
        "STORE_URL",
        "redis://localhost:6379/0",
        StoreUrl.parse,
        "where entries live: redis://, rediss://, unix://, redis+sentinel://,"
        " redis+cluster:// or embedded: (run only)",
    ),
    Row(
        "KEY_PREFIX",
        "pp",
        _matching(r"[A-Za-z0-9_.-]{1,32}", "up to 32 of A-Z a-z 0-9 _ . -"),
        "what every key of ours starts with",
    ),
    Row("LISTEN", "127.0.0.1:8080", _address, "where the service listens"),
    Row("WORKERS", None, _whole(1, 256), "processes; default: the usable cores"),
    Row("THREADS", "512", _whole(96, 4096), "most threads of a process"),
    Row(
        "DRAIN_FOR",
        "5s",
        _duration("0s", "10m"),
        "how long SIGTERM sends callers elsewhere before it stops the service; 0s: not",
    ),
    Row(
        "API_KEYS_FILE",
        "",
        Path,
        "file of API keys: who may call",
    ),
    Row("ALLOW_ANONYMOUS", "0", _flag, "1: anybody may read, without a key"),
    Row(
        "WEBHOOK_VERIFY_TOKEN",
        "",
        read_secret,
        "what Meta says to be let in at /webhooks/instagram; none: no webhooks",
        secret=True,
    ),
    Row(
        "WEBHOOK_SECRETS",
        "",
        read_secrets,
        "with what Meta may sign webhooks, beside APP_SECRET; several by comma",
        secret=True,
    ),
    Row(
        "WEBHOOK_PREFETCH",
        "0",
        _flag,
        "1: fetch the profile of whoever writes",
    ),
    Row(
        "MISSES_PER_MINUTE",
        "3000",
        _whole(0, 1_000_000),
        "calls to Meta that one API key may cause; 0: no limit",
    ),
    Row("PROFILE_TTL", "1h", _duration("1s", "365d"), "how long a profile is fresh"),
    Row(
        "STALE_GRACE",
        "24h",
        _duration("0s", "365d"),
        "how long a profile is kept after that",
    ),
    Row(
        "PICTURE_MARGIN",
        "1h",
        _duration("0s", "7d"),
        "how long before its picture dies a profile is given up",
    ),
    Row(
        "PICTURE_TTL_ASSUMED",
        "24h",
        _duration("1m", "30d"),
        "the life of a picture whose link does not tell",
    ),
    Row(
        "CONSENT_TTL",
        "15m",
        _duration("1s", "365d"),
        "how long consent_required is kept",
    ),
    Row("BLOCKED_TTL", "6h", _duration("1s", "365d"), "how long blocked is kept"),
    Row("NOT_FOUND_TTL", "24h", _duration("1s", "365d"), "how long not_found is kept"),
    Row(
        "UNAVAILABLE_TTL",
        "10m",
        _duration("1s", "365d"),
        "how long unavailable is kept",
    ),
    Row(
        "BLOCKED_CODES",
        "551",
        _blocked_codes,
        "Graph errors that mean blocked, beside 551: code or code/subcode, by comma",
    ),
    Row(
        "USAGE_SOFT",
        "75",
        _whole(1, 1000),
        "percent of Meta's quota above which stale entries are not refreshed",
    ),
    Row(
        "USAGE_HARD",
        "95",
        _whole(1, 1000),
        "percent of Meta's quota above which a process makes one call at a time",
    ),
    Row(
        "TOKEN_RETRY",
        "60s",
        _duration("1s", "1h"),
        "how long Meta is not asked with a token that it has rejected",
    ),
    Row(
        "NEAR_ENTRIES",
        "50000",
        _whole(0, 10_000_000),
        "entries that each process keeps a copy of; 0: none",
    ),
    Row(
        "OUTAGE_GRACE",
        "10m",
        _duration("0s", "1d"),
        "how long those copies are answered while the store is away",
    ),
    Row(
        "LOG_LEVEL",
        "info",
        _one_of("debug", "info", "warning", "error"),
        "least level that is logged",
    ),
    Row("ACCESS_LOG", "0", _flag, "1: one line for each request"),
)
"""The settings, in the order in which ``config`` and docs/settings.md show them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the operator has decided. Durations are in seconds."""

    page_token: Secret | None
    app_secret: Secret | None
    pages_file: Path | None
    graph_url: str
    graph_version: str
    graph_timeout: float
    graph_concurrency: int
    store_url: StoreUrl = field(repr=False)
    key_prefix: str
    listen: Address
    workers: int
    threads: int
    drain_for: float
    api_keys_file: Path | None
    allow_anonymous: bool
    webhook_verify_token: Secret | None
    webhook_secrets: Secret | None
    webhook_prefetch: bool
    misses_per_minute: int
    profile_ttl: float
    stale_grace: float
    picture_margin: float
    picture_ttl_assumed: float
    consent_ttl: float
    blocked_ttl: float
    not_found_ttl: float
    unavailable_ttl: float
    blocked_codes: frozenset[tuple[int, int | None]]
    usage_soft: int
    usage_hard: int
    token_retry: float
    near_entries: int
    outage_grace: float
    log_level: str
    access_log: bool

    @classmethod
    def from_env(
        cls, env: Mapping[str, str], checks: Mapping[str, Check] = {}
    ) -> Settings:
        """Read the settings from environment variables ``PROXY_<NAME>``.

        A secret may stand in a file instead, ``PROXY_<NAME>_FILE``. A variable
        that is set to nothing counts as not set. *checks*, by name, are of those
        who know more of what a value means.

        Raises:
            SettingsError: with every mistake there is, and no value of a secret.
        """
        given = {k: v for k, v in env.items() if k.startswith(PREFIX) and v != ""}
        mistakes = _unknown(given)
        values: dict[str, Any] = {}
        for row in ROWS:
            try:
                value = values[row.name.lower()] = _value(row, given)
                if row.name in checks and value is not None:
                    checks[row.name](value)
            except ValueError as exc:
                mistakes.append(str(exc))
            except SettingsError as exc:
                mistakes += exc.mistakes
        mistakes += _half_configured(values) + _half_webhooks(values)
        if mistakes:
            raise SettingsError(mistakes)
        return cls(**values)

    @property
    def warnings(self) -> list[str]:
        """What is allowed, but should be known."""
        parts = urlsplit(self.graph_url)
        if parts.scheme == "http" and not Address(parts.hostname or "", 0).is_loopback:
            return ["PROXY_GRAPH_URL is http: the token goes over the wire in clear"]
        return []


class Shown(NamedTuple):
    """A setting as ``config`` shows it; a secret's value is masked."""

    name: str
    value: str
    source: str


def show(env: Mapping[str, str]) -> list[Shown]:
    """Every setting, its value as it was written, and where it came from."""
    shown = []
    for row in ROWS:
        name = PREFIX + row.name
        if row.secret and env.get(f"{name}_FILE"):
            where = f"file {env[f'{name}_FILE']}"
            shown.append(Shown(name, SECRET_SHOWN_AS, where))
        elif env.get(name):
            may_hold_one = row.name.endswith("_URL") and re.search("[@?]", env[name])
            hide = row.secret or may_hold_one
            value = SECRET_SHOWN_AS if hide else env[name]
            shown.append(Shown(name, value, "environment"))
        else:
            default = str(usable_cores()) if row.name == "WORKERS" else row.default
            shown.append(Shown(name, default or "", "default"))
    return shown


def _unknown(given: Mapping[str, str]) -> list[str]:
    known = {row.name for row in ROWS}
    known |= {f"{row.name}_FILE" for row in ROWS if row.secret}
    mistakes = []
    for name in sorted({name.removeprefix(PREFIX) for name in given} - known):
        if _NOT_OURS.match(name):
            continue
        nearest = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)
        hint = f"; did you mean {PREFIX}{nearest[0]}?" if nearest else ""
        mistakes.append(f"{PREFIX}{name} is not a setting{hint}")
    return mistakes


def _value(row: Row, given: Mapping[str, str]) -> Any:
    """The value of one setting, or a ValueError that says it all."""
    name = PREFIX + row.name
    if row.secret:
        return _secret(row, given)
    text = given.get(name, row.default)
    if row.name == "WORKERS" and text is None:
        return usable_cores()
    if not text:
        # Only a default can be empty: "none" for a file, and no codes at all.
        return None
    try:
        return row.read(text)
    except ValueError as exc:
        # A value can hold a password, so only the rule is told.
        raise ValueError(f"{name} must be {exc}") from None


def _secret(row: Row, given: Mapping[str, str]) -> Secret | None:
    name = PREFIX + row.name
    file = given.get(f"{name}_FILE")
    if file and name in given:
        raise ValueError(f"{name} and {name}_FILE are both set; keep one")
    if not file and name not in given:
        if row.default is None and f"{PREFIX}PAGES_FILE" not in given:
            raise ValueError(
                f"{name} or {name}_FILE must be set ({row.help}), or"
                f" {PREFIX}PAGES_FILE for several Pages"
            )
        return None
    try:
        text = Path(file).read_text() if file else given[name]
    except OSError as exc:
        raise ValueError(f"{name}_FILE cannot be read: {exc.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{name}_FILE is not text") from None
    try:
        return Secret(row.read(text), Path(file) if file else None)
    except ValueError as exc:
        which = f"What {name}_FILE holds" if file else name
        raise ValueError(f"{which} must be {exc}") from None


def _half_configured(values: Mapping[str, Any]) -> list[str]:
    """Settings that are good each for itself, but not together."""
    keys, anonymous = values.get("api_keys_file"), values.get("allow_anonymous")
    listen = values.get("listen")
    if keys and anonymous:
        return [
            "PROXY_ALLOW_ANONYMOUS=1 and PROXY_API_KEYS_FILE contradict each other:"
            " with keys, nobody is anonymous"
        ]
    soft, hard = values.get("usage_soft"), values.get("usage_hard")
    if soft and hard and soft > hard:
        return ["PROXY_USAGE_SOFT must not be above PROXY_USAGE_HARD"]
    if isinstance(listen, Address) and not (listen.is_loopback or keys or anonymous):
        return [
            f"PROXY_LISTEN={listen} is not a loopback address: set"
            " PROXY_API_KEYS_FILE, or PROXY_ALLOW_ANONYMOUS=1 to let anybody read"
        ]
    return []


def _half_webhooks(values: Mapping[str, Any]) -> list[str]:
    names = "webhook_verify_token", "webhook_secrets", "app_secret", "webhook_prefetch"
    if not values.keys() >= {*names, "pages_file"}:
        return []  # One of them is no good in itself.
    token, secrets, app_secret, prefetch = (values[name] for name in names)
    # Each Page has a secret, or none, that is not known here.
    if token and not (secrets or app_secret or values["pages_file"]):
        return [
            "PROXY_WEBHOOK_VERIFY_TOKEN is set, so PROXY_WEBHOOK_SECRETS or"
            " PROXY_APP_SECRET must be: webhooks are signed with the app's secret"
        ]
    return [
        f"PROXY_{name} is set without PROXY_WEBHOOK_VERIFY_TOKEN, so there are no"
        " webhooks"
        for name, value in (
            ("WEBHOOK_SECRETS", secrets),
            ("WEBHOOK_PREFETCH", prefetch),
        )
        if value and not token
    ]
