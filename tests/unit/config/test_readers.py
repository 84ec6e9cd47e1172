"""Readers: which forms of text a setting may have, and the rule that is reported."""

from __future__ import annotations

import pytest

from proxy.config.readers import Address, Secret, read_duration
from tests.unit.config.environment import mistakes, settings


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90.0),
        ("15m", 900.0),
        ("1h", 3600.0),
        ("2d", 172800.0),
        ("1.5h", 5400.0),
        ("90", 90.0),
        ("0", 0.0),
        (" 90s ", 90.0),
    ],
)
def test_duration_is_in_seconds_or_has_a_unit(text: str, seconds: float) -> None:
    """Inside the package the second is the only unit."""
    assert read_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "s", "90 s", "1h30m", "-1", "+1", "1e3", ".5", "1.", "inf", "nan", "1w"]
    + ["1H", "1_000", "0x10", "\u0663s", "1,5h"],
)
def test_duration_of_another_form_is_a_mistake(text: str) -> None:
    """The mistake lists the valid forms."""
    with pytest.raises(ValueError, match="90s, 15m, 1h, 2d"):
        read_duration(text)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PROFILE_TTL", "0"),
        ("PROFILE_TTL", "0.9s"),
        ("PROFILE_TTL", "366d"),
        ("PROFILE_TTL", "9" * 400 + "d"),
        ("STALE_GRACE", "366d"),
        ("PICTURE_MARGIN", "8d"),
        ("PICTURE_TTL_ASSUMED", "59s"),
        ("CONSENT_TTL", "0"),
        ("BLOCKED_TTL", "0s"),
        ("NOT_FOUND_TTL", "0"),
        ("UNAVAILABLE_TTL", "0"),
        ("GRAPH_TIMEOUT", "0"),
        ("GRAPH_TIMEOUT", "61s"),
        ("THREADS", "95"),
        ("THREADS", "4097"),
        ("THREADS", "512.0"),
        ("THREADS", "-512"),
        ("THREADS", "9" * 5000),
        ("WORKERS", "0"),
        ("WORKERS", "many"),
        ("ALLOW_ANONYMOUS", "true"),
        ("ACCESS_LOG", "yes"),
        ("LOG_LEVEL", "trace"),
        ("GRAPH_VERSION", "25.0"),
        ("GRAPH_VERSION", "v25"),
        ("GRAPH_VERSION", "v25.0/me"),
        ("KEY_PREFIX", "pp:"),
        ("KEY_PREFIX", "p{p}"),
        ("KEY_PREFIX", "p" * 33),
    ],
)
def test_value_out_of_range_is_a_mistake_that_names_its_setting(
    name: str, value: str
) -> None:
    """Zero would mean "for ever" to one library and an error to another."""
    found = mistakes(**{name: value})

    assert len(found) == 1
    assert found[0].startswith(f"PROXY_{name} must be ")


@pytest.mark.parametrize("name", ["STALE_GRACE", "PICTURE_MARGIN"])
def test_grace_and_margin_may_be_zero(name: str) -> None:
    """Zero turns them off."""
    given = settings(**{name: "0"})

    assert getattr(given, name.lower()) == 0.0


def test_log_level_may_be_in_capitals() -> None:
    """Most other programs expect capitals."""
    assert settings(LOG_LEVEL="DEBUG").log_level == "debug"


@pytest.mark.parametrize(
    ("text", "address", "loopback"),
    [
        ("127.0.0.1:80", Address("127.0.0.1", 80), True),
        ("127.8.8.8:80", Address("127.8.8.8", 80), True),
        ("[::1]:8080", Address("::1", 8080), True),
        ("0.0.0.0:8080", Address("0.0.0.0", 8080), False),
        ("[::]:8080", Address("::", 8080), False),
        ("10.0.0.7:8080", Address("10.0.0.7", 8080), False),
    ],
)
def test_address_is_an_ip_address_and_a_port(
    text: str, address: Address, loopback: bool
) -> None:
    """Its text is the one that was given."""
    given = settings(LISTEN=text, API_KEYS_FILE="/etc/keys").listen

    assert (given, str(given), given.is_loopback) == (address, text, loopback)


@pytest.mark.parametrize(
    "text",
    ["8080", ":8080", "127.0.0.1", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536"]
    + ["127.0.0.1:http", "127.0.0.1:-1", "127.0.0.1:80 ", "[]:80", "[::1]"]
    + ["proxy.internal:8080", "localhost.example.org:80", "127.1:80"],
)
def test_address_without_an_ip_address_or_a_port_is_a_mistake(text: str) -> None:
    """Leaving a part out must not mean "all addresses"."""
    found = mistakes(LISTEN=text)

    assert found == [
        "PROXY_LISTEN must be an IP address and a port, such as 127.0.0.1:8080 or"
        f" [::1]:8080, not {text!r}"
    ]


def test_localhost_is_read_as_127_0_0_1() -> None:
    """Operators type the name, and a server listens on an address."""
    assert settings(LISTEN="localhost:8081").listen == Address("127.0.0.1", 8081)


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("551", {(551, None)}),
        ("551,100/33", {(551, None), (100, 33)}),
        (" 551 , 100/33 ,", {(551, None), (100, 33)}),
        (",", set()),
    ],
)
def test_blocked_codes_may_have_a_subcode(
    text: str, codes: set[tuple[int, int | None]]
) -> None:
    """A comma alone means that no other code is blocked."""
    assert settings(BLOCKED_CODES=text).blocked_codes == codes


@pytest.mark.parametrize(
    "text", ["blocked", "551;100", "551/", "/33", "-551", "100/33/1", "1e3", "\uff15"]
)
def test_blocked_code_of_another_form_is_a_mistake(text: str) -> None:
    """The mistake gives an example."""
    found = mistakes(BLOCKED_CODES=text)

    assert len(found) == 1
    assert found[0].endswith(f"551,200/1545041, not {text!r}")


@pytest.mark.parametrize(
    "url",
    [
        "https://graph.facebook.com",
        "https://graph.instagram.com/",
        "https://gateway.internal:8443/meta",
        "http://127.0.0.1:9100",
        "http://[::1]:9100",
        "http://meta.internal",
        "http://facebook.com.internal",
        "http://notfacebook.com",
    ],
)
def test_graph_url_may_be_https_or_a_stand_in_over_http(url: str) -> None:
    """A slash at the end is removed."""
    assert settings(GRAPH_URL=url).graph_url == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    [
        "http://graph.facebook.com",
        "http://graph.instagram.com/",
        "http://facebook.com",
        "http://instagram.com:80",
        "HTTP://GRAPH.FACEBOOK.COM",
        "http://graph.facebook.com./",
    ],
)
def test_graph_url_of_metas_own_hosts_must_be_https(url: str) -> None:
    """The token would go over the wire in clear. A dot at the end changes nothing."""
    found = mistakes(GRAPH_URL=url)

    assert len(found) == 1
    assert found[0].startswith("PROXY_GRAPH_URL must be https for Meta's own hosts")


@pytest.mark.parametrize(
    "url",
    [
        "graph.facebook.com",
        "ftp://graph.facebook.com",
        "https://",
        "https:///v25.0",
        "https://ada:secret@graph.facebook.com",
        "https://ada@graph.facebook.com",
        "https://graph.facebook.com?access_token=x",
        "https://graph.facebook.com#x",
        "https://graph.facebook.com/v25.0",
        "https://graph.instagram.com/v9.0/",
        "https://gateway.internal/meta/v25.0",
        "https://graph.facebook.com:none",
        "https://graph.facebook.com:65536",
        "https://[graph.facebook.com",
        "https://graph.facebook.com ",
        "https://graph facebook.com",
    ],
)
def test_graph_url_of_another_form_is_a_mistake(url: str) -> None:
    """A space at the end, from a file of variables, would fail every call."""
    found = mistakes(GRAPH_URL=url)

    assert len(found) == 1
    assert found[0].startswith("PROXY_GRAPH_URL must be ")


@pytest.mark.parametrize("text", ["old,new", " old , new \n"])
def test_webhook_secrets_are_separated_by_comma(text: str) -> None:
    """With or without spaces around the comma."""
    given = settings(WEBHOOK_VERIFY_TOKEN="word", WEBHOOK_SECRETS=text)

    assert given.webhook_secrets == Secret("old,new", None)


@pytest.mark.parametrize("text", [",", "old,", "o ld,new", "\u00e9"], ids=ascii)
def test_invalid_webhook_secrets_are_a_mistake_that_does_not_quote_them(
    text: str,
) -> None:
    """Neither the invalid one nor the others."""
    [found] = mistakes(WEBHOOK_VERIFY_TOKEN="word", WEBHOOK_SECRETS=text)

    assert found.startswith("PROXY_WEBHOOK_SECRETS must be secrets by comma")
    assert "old" not in found
