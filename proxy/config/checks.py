"""Checks of all settings together: unknown names and contradictions, as mistakes."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from proxy.config.readers import Address, token_reader

_FROM_KUBERNETES = re.compile(r"SERVICE_|PORT(_|$)")
"""Kubernetes gives every container ``<SERVICE>_PORT...`` of a service named proxy."""

Values = Mapping[str, Any]
"""The settings that could be read, by the name of their field."""


def did_you_mean(name: str, names: Iterable[str], prefix: str = "") -> str:
    """The hint that completes "*name* is not a setting"; empty when none is near."""
    nearest = difflib.get_close_matches(name, sorted(names), n=1, cutoff=0.6)
    return f"; did you mean {prefix}{nearest[0]}?" if nearest else ""


def unknown_names(given: Iterable[str], names: set[str], prefix: str) -> list[str]:
    """A mistake for each name of *given* that is not one of *names*.

    All of them without their *prefix*, which would make every two names similar.
    """
    return [
        f"{prefix}{name} is not a setting{did_you_mean(name, names, prefix)}"
        for name in sorted(set(given) - names)
        if not _FROM_KUBERNETES.match(name)
    ]


def contradictions(values: Values) -> list[str]:
    """The mistakes of settings that are valid each for itself, but not together."""
    return [
        *_keys_or_anonymous(values),
        *_usage_limits(values),
        *_open_to_strangers(values),
        *_token_of_another_host(values),
        *_webhooks(values),
    ]


def _keys_or_anonymous(values: Values) -> list[str]:
    if values.get("api_keys_file") and values.get("allow_anonymous"):
        return [
            "PROXY_ALLOW_ANONYMOUS=1 and PROXY_API_KEYS_FILE contradict each other:"
            " with keys, no caller is anonymous"
        ]
    return []


def _usage_limits(values: Values) -> list[str]:
    soft, hard = values.get("usage_soft"), values.get("usage_hard")
    if soft and hard and soft > hard:
        return ["PROXY_USAGE_SOFT must not be above PROXY_USAGE_HARD"]
    return []


def _open_to_strangers(values: Values) -> list[str]:
    listen = values.get("listen")
    has_rule = values.get("api_keys_file") or values.get("allow_anonymous")
    if isinstance(listen, Address) and not (listen.is_loopback or has_rule):
        return [
            f"PROXY_LISTEN={listen} is not a loopback address: set"
            " PROXY_API_KEYS_FILE, or PROXY_ALLOW_ANONYMOUS=1 to let every caller read"
        ]
    return []


def _token_of_another_host(values: Values) -> list[str]:
    token, url = values.get("page_token"), values.get("graph_url")
    if not (token and url):
        return []
    try:
        token_reader(url)(token.value)
    except ValueError as exc:
        return [f"PROXY_PAGE_TOKEN must be {exc}: set PROXY_GRAPH_URL to that"]
    return []


def _webhooks(values: Values) -> list[str]:
    names = "webhook_verify_token", "webhook_secrets", "app_secret", "webhook_prefetch"
    if not values.keys() >= {*names, "pages_file"}:
        return []  # One of them is invalid in itself, which is a mistake already.
    token, secrets, app_secret, prefetch = (values[name] for name in names)
    # Each Page of the file may have a secret of its own, which is not read here.
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
