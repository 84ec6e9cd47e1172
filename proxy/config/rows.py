"""The rows of all settings: name, default, unit, help, and whether it is secret."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from proxy.config.readers import (
    duration,
    matching,
    one_of,
    read_address,
    read_blocked_codes,
    read_flag,
    read_graph_url,
    read_secret,
    read_secrets,
    read_signing_secret,
    whole_number,
)
from proxy.storage.store_url import StoreUrl


class Row(NamedTuple):
    """One setting. *default* is text, as the environment would have it."""

    name: str
    default: str | None
    read: Callable[[str], Any]
    help: str
    secret: bool = False
    has_password: bool = False

    @property
    def may_be_in_file(self) -> bool:
        """Whether ``<NAME>_FILE`` may name a file with the value instead."""
        return self.secret or self.has_password


def usable_cores() -> int:
    """How many cores this process may use, by its affinity and its cgroup's quota."""
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
    Row(
        "GRAPH_URL",
        "https://graph.facebook.com",
        read_graph_url,
        "the address of the Graph API",
    ),
    Row(
        "GRAPH_VERSION",
        "v25.0",
        matching(r"v[0-9]{1,3}\.[0-9]{1,3}", "a version such as v25.0"),
        "the Graph API version of each call",
    ),
    Row(
        "GRAPH_TIMEOUT",
        "5s",
        duration("0.1s", "60s"),
        "the deadline of one fetch, retries included",
    ),
    Row(
        "GRAPH_CONCURRENCY",
        "100",
        whole_number(1, 1000),
        "concurrent calls to Meta, in each process",
    ),
    Row(
        "STORE_URL",
        "redis://localhost:6379/0",
        StoreUrl.parse,
        "where entries live: redis://, rediss://, unix://, redis+sentinel://,"
        " redis+cluster:// or embedded: (run only)",
        has_password=True,
    ),
    Row(
        "KEY_PREFIX",
        "pp",
        matching(r"[A-Za-z0-9_.-]{1,32}", "up to 32 of A-Z a-z 0-9 _ . -"),
        "the prefix of every key of the service",
    ),
    Row("LISTEN", "127.0.0.1:8080", read_address, "where the service listens"),
    Row("WORKERS", None, whole_number(1, 256), "processes; default: the usable cores"),
    Row(
        "THREADS",
        "512",
        whole_number(96, 4096),
        "the largest number of threads in a process",
    ),
    Row(
        "DRAIN_FOR",
        "5s",
        duration("0s", "10m"),
        "how long the service drains after SIGTERM; 0s: it does not",
    ),
    Row(
        "API_KEYS_FILE",
        "",
        Path,
        "file of API keys",
    ),
    Row("ALLOW_ANONYMOUS", "0", read_flag, "1: every caller may read, without a key"),
    Row(
        "WEBHOOK_VERIFY_TOKEN",
        "",
        read_secret,
        "the token of Meta's handshake at /webhooks/instagram; none: no webhooks",
        secret=True,
    ),
    Row(
        "WEBHOOK_SECRETS",
        "",
        read_secrets,
        "secrets that sign webhooks, beside APP_SECRET; several by comma",
        secret=True,
    ),
    Row(
        "WEBHOOK_PREFETCH",
        "0",
        read_flag,
        "1: fetch the profile of each sender",
    ),
    Row(
        "PICTURE_LINK_SECRET",
        "",
        read_signing_secret,
        "signs picture links for browsers, which send no key; none: no links",
        secret=True,
    ),
    Row(
        "MISSES_PER_MINUTE",
        "3000",
        whole_number(0, 1_000_000),
        "calls to Meta that one API key may cause; 0: no limit",
    ),
    Row("PROFILE_TTL", "1h", duration("1s", "365d"), "how long a profile is fresh"),
    Row(
        "STALE_GRACE",
        "24h",
        duration("0s", "365d"),
        "how long a stale profile is kept",
    ),
    Row(
        "PICTURE_MARGIN",
        "1h",
        duration("0s", "7d"),
        "how long before its picture's expiry a profile ends",
    ),
    Row(
        "PICTURE_TTL_ASSUMED",
        "24h",
        duration("1m", "30d"),
        "the life of a picture without a readable expiry",
    ),
    Row(
        "CONSENT_TTL",
        "15m",
        duration("1s", "365d"),
        "how long consent_required is kept",
    ),
    Row("BLOCKED_TTL", "6h", duration("1s", "365d"), "how long blocked is kept"),
    Row("NOT_FOUND_TTL", "24h", duration("1s", "365d"), "how long not_found is kept"),
    Row(
        "UNAVAILABLE_TTL",
        "10m",
        duration("1s", "365d"),
        "how long unavailable is kept",
    ),
    Row(
        "BLOCKED_CODES",
        "551",
        read_blocked_codes,
        "Graph errors that mean blocked, beside 551: code or code/subcode, by comma",
    ),
    Row(
        "USAGE_SOFT",
        "75",
        whole_number(1, 1000),
        "percent of Meta's quota above which stale entries are not refreshed",
    ),
    Row(
        "USAGE_HARD",
        "95",
        whole_number(1, 1000),
        "percent of Meta's quota above which a process makes one call at a time",
    ),
    Row(
        "TOKEN_RETRY",
        "60s",
        duration("1s", "1h"),
        "how long a rejected token is not used",
    ),
    Row(
        "NEAR_ENTRIES",
        "50000",
        whole_number(0, 10_000_000),
        "entries in the near cache of each process; 0: no near cache",
    ),
    Row(
        "OUTAGE_GRACE",
        "10m",
        duration("0s", "1d"),
        "how long the near cache is served while the store is away",
    ),
    Row(
        "LOG_LEVEL",
        "info",
        one_of("debug", "info", "warning", "error"),
        "the lowest level that is logged",
    ),
    Row("ACCESS_LOG", "0", read_flag, "1: log one line for each request"),
)
"""The settings, in the order in which ``config`` and docs/settings.md show them."""
