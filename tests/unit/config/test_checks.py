"""Checks of all settings together: unknown names, and settings that contradict."""

from __future__ import annotations

import pytest

from proxy.config.readers import Address, Secret
from proxy.config.settings import Settings
from tests.unit.config.environment import (
    ENOUGH,
    TOKEN,
    all_that_shows,
    error,
    mistakes,
    settings,
)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("PROFILE_TTTL", "PROXY_PROFILE_TTL"),
        ("PROFILETTL", "PROXY_PROFILE_TTL"),
        ("PAGE_TOKENS", "PROXY_PAGE_TOKEN"),
        ("APP_SECRET_FILES", "PROXY_APP_SECRET_FILE"),
        ("LOGLEVEL", "PROXY_LOG_LEVEL"),
    ],
)
def test_unknown_name_is_a_mistake_that_gives_the_nearest(
    name: str, nearest: str
) -> None:
    """A typo must not silently leave the default."""
    found = mistakes(**{name: "1h"})

    assert found == [f"PROXY_{name} is not a setting; did you mean {nearest}?"]


@pytest.mark.parametrize("name", ["ZZZZZZZZZZZZZZZZ", "BANANA", "FOO"])
def test_unknown_name_without_a_near_one_gets_no_hint(name: str) -> None:
    """A wrong hint is worse; the common prefix does not make names similar."""
    assert mistakes(**{name: "1"}) == [f"PROXY_{name} is not a setting"]


def test_mistake_about_an_unknown_name_does_not_quote_its_value() -> None:
    """It may be the token, under a name with a typo."""
    shown = all_that_shows(error({"PROXY_PAGE_TOKN": TOKEN}))

    assert TOKEN not in shown


@pytest.mark.parametrize(
    "name",
    [
        "PROXY_SERVICE_HOST",
        "PROXY_SERVICE_PORT",
        "PROXY_SERVICE_PORT_HTTP",
        "PROXY_PORT",
        "PROXY_PORT_8080_TCP",
        "PROXY_PORT_8080_TCP_ADDR",
        "HTTP_PROXY",
        "PROXYCHAINS_CONF_FILE",
        "proxy_profile_ttl",
    ],
)
def test_names_of_kubernetes_and_other_programs_are_ignored(name: str) -> None:
    """Kubernetes gives every container those of a service named proxy."""
    given = Settings.from_env(ENOUGH | {name: "tcp://10.0.0.7:8080"})

    assert given == settings()


@pytest.mark.parametrize("name", ["PORTS", "GRAPH_PORT", "META_SERVICE_HOST"])
def test_name_that_only_resembles_kubernetes_own_is_a_mistake(name: str) -> None:
    """``PROXY_PORTS`` is an operator's guess at a setting."""
    found = mistakes(**{name: "8080"})

    assert len(found) == 1
    assert found[0].startswith(f"PROXY_{name} is not a setting")


@pytest.mark.parametrize("listen", ["0.0.0.0:8080", "[::]:8080", "10.0.0.7:80"])
def test_open_address_without_keys_is_a_mistake(listen: str) -> None:
    """The mistake names both remedies."""
    found = mistakes(LISTEN=listen)

    assert len(found) == 1
    assert found[0].startswith(f"PROXY_LISTEN={listen} is not a loopback address")
    assert "PROXY_API_KEYS_FILE" in found[0] and "PROXY_ALLOW_ANONYMOUS=1" in found[0]


@pytest.mark.parametrize(
    "way", [{"API_KEYS_FILE": "/etc/keys"}, {"ALLOW_ANONYMOUS": "1"}]
)
def test_open_address_is_allowed_with_keys_or_anonymous_access(
    way: dict[str, str],
) -> None:
    """Either of the two is enough."""
    given = settings(LISTEN="0.0.0.0:8080", **way)

    assert given.listen == Address("0.0.0.0", 8080)


def test_keys_and_anonymous_access_contradict_each_other() -> None:
    """With keys, no caller is anonymous."""
    found = mistakes(API_KEYS_FILE="/etc/keys", ALLOW_ANONYMOUS="1")

    assert len(found) == 1
    assert "contradict" in found[0]


def test_contradictions_are_all_reported_at_once() -> None:
    """One restart should be enough for these, too."""
    given = mistakes(USAGE_SOFT="96", LISTEN="0.0.0.0:8080")

    assert len(given) == 2
    assert given[0] == "PROXY_USAGE_SOFT must not be above PROXY_USAGE_HARD"
    assert given[1].startswith("PROXY_LISTEN=0.0.0.0:8080 is not a loopback address")


@pytest.mark.parametrize("secret", ["WEBHOOK_SECRETS", "APP_SECRET"])
def test_webhooks_need_a_verify_token_and_a_secret(secret: str) -> None:
    """Either secret is enough; without the token there are no webhooks."""
    given = settings(WEBHOOK_VERIFY_TOKEN="word", **{secret: "hunter2"})

    assert given.webhook_verify_token == Secret("word", None)
    assert settings(APP_SECRET="hunter2").webhook_verify_token is None


@pytest.mark.parametrize(
    ("env", "named"),
    [
        ({"WEBHOOK_VERIFY_TOKEN": "word"}, "PROXY_WEBHOOK_SECRETS or"),
        ({"WEBHOOK_SECRETS": "hunter2"}, "PROXY_WEBHOOK_SECRETS is set without"),
        ({"WEBHOOK_PREFETCH": "1"}, "PROXY_WEBHOOK_PREFETCH is set without"),
        (
            {"WEBHOOK_PREFETCH": "1", "APP_SECRET": "hunter2"},
            "PROXY_WEBHOOK_PREFETCH is set without",
        ),
    ],
    ids=str,
)
def test_half_a_configuration_of_webhooks_is_a_mistake(
    env: dict[str, str], named: str
) -> None:
    """Webhooks would be silently off, or open to all senders."""
    [found] = mistakes(**env)

    assert named in found
    assert "hunter2" not in found


def test_invalid_secret_is_not_reported_as_missing_too() -> None:
    """One mistake is enough."""
    found = mistakes(WEBHOOK_VERIFY_TOKEN="word", WEBHOOK_SECRETS="a,,b")

    rule = "must be secrets by comma, and each of them printable ASCII"
    assert len(found) == 1
    assert found[0].startswith(f"PROXY_WEBHOOK_SECRETS {rule}")
