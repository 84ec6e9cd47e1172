"""Every setting: defaults, units, mistakes, and secrets that stay secret."""

import traceback
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import pytest

from proxy.config.readers import Address, Secret, read_duration
from proxy.config.settings import (
    ROWS,
    SECRET_SHOWN_AS,
    Row,
    Settings,
    SettingsError,
    show,
    usable_cores,
)
from proxy.storage.store_url import StoreUrl

TOKEN = "EAATESTTOKEN"
ENOUGH = {"PROXY_PAGE_TOKEN": TOKEN}

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


def settings(**env: str) -> Settings:
    """The settings of an environment with a token and *env*, without ``PROXY_``."""
    return Settings.from_env(ENOUGH | prefixed(env))


def prefixed(env: Mapping[str, str]) -> dict[str, str]:
    return {f"PROXY_{name}": value for name, value in env.items()}


def error(env: Mapping[str, str]) -> SettingsError:
    with pytest.raises(SettingsError) as raised:
        Settings.from_env(env)
    return raised.value


def mistakes(**env: str) -> list[str]:
    return error(ENOUGH | prefixed(env)).mistakes


def all_that_shows(exc: SettingsError) -> str:
    return "".join(traceback.format_exception(exc)) + repr(exc) + repr(exc.mistakes)


# Defaults.


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("page_token", Secret(TOKEN, None)),
        ("app_secret", None),
        ("graph_url", "https://graph.facebook.com"),
        ("graph_version", "v25.0"),
        ("graph_timeout", 5.0),
        ("store_url", StoreUrl.parse("redis://localhost:6379/0")),
        ("key_prefix", "pp"),
        ("listen", Address("127.0.0.1", 8080)),
        ("workers", usable_cores()),
        ("threads", 512),
        ("api_keys_file", None),
        ("allow_anonymous", False),
        ("profile_ttl", HOUR),
        ("stale_grace", DAY),
        ("picture_margin", HOUR),
        ("picture_ttl_assumed", DAY),
        ("consent_ttl", 15 * MINUTE),
        ("blocked_ttl", 6 * HOUR),
        ("not_found_ttl", DAY),
        ("unavailable_ttl", 10 * MINUTE),
        ("blocked_codes", frozenset({(551, None)})),
        ("log_level", "info"),
        ("access_log", False),
    ],
)
def test_the_defaults_are_as_promised(name: str, default: object) -> None:
    """A token is all that one has to give."""
    assert getattr(settings(), name) == default


def test_every_row_is_a_setting_and_every_setting_has_a_row() -> None:
    """Under the same name, in the same order."""
    rows = [row.name.lower() for row in ROWS]

    assert rows == [field.name for field in fields(Settings)]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_setting_says_what_it_is_for(row: Row) -> None:
    """In one line."""
    assert row.help.strip()
    assert "\n" not in row.help


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row.default], ids=lambda row: row.name
)
def test_every_default_is_one_that_could_be_given(row: Row) -> None:
    """It is read like any other text."""
    assert row.default is not None

    given = settings(**{row.name: row.default})

    assert given == settings()


def test_only_the_token_has_to_be_given() -> None:
    """It can come from a file too, and the text says so."""
    told = error({}).mistakes

    assert len(told) == 1
    assert told[0].startswith("PROXY_PAGE_TOKEN or PROXY_PAGE_TOKEN_FILE must be set")


def test_an_empty_variable_counts_as_not_set() -> None:
    """That is how a compose file says "none"."""
    empty = {row.name: "" for row in ROWS if not row.secret} | {"APP_SECRET": ""}

    assert settings(**empty, PAGE_TOKEN_FILE="") == settings()


# Units and forms.


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
def test_a_duration_is_seconds_or_has_a_unit(text: str, seconds: float) -> None:
    """Inside there is no other unit than the second."""
    assert read_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "s", "90 s", "1h30m", "-1", "+1", "1e3", ".5", "1.", "inf", "nan", "1w"]
    + ["1H", "1_000", "0x10", "\u0663s", "1,5h"],
)
def test_a_duration_of_another_form_is_a_mistake(text: str) -> None:
    """The text says which forms there are."""
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
def test_a_value_out_of_range_is_a_mistake_that_names_its_setting(
    name: str, value: str
) -> None:
    """Zero would mean "for ever" to one library and an error to another."""
    told = mistakes(**{name: value})

    assert len(told) == 1
    assert told[0].startswith(f"PROXY_{name} must be ")


@pytest.mark.parametrize("name", ["STALE_GRACE", "PICTURE_MARGIN"])
def test_a_grace_and_a_margin_may_be_none_at_all(name: str) -> None:
    """Zero turns these two off."""
    given = settings(**{name: "0"})

    assert getattr(given, name.lower()) == 0.0


def test_a_level_may_be_written_in_capitals() -> None:
    """As most other programs want it."""
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
def test_an_address_to_listen_on_is_a_host_and_a_port(
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
def test_an_address_without_a_host_or_a_port_is_a_mistake(text: str) -> None:
    """ "All addresses" is nothing one should get by leaving something out."""
    told = mistakes(LISTEN=text)

    assert told == [
        "PROXY_LISTEN must be an IP address and a port, such as 127.0.0.1:8080 or"
        " [::1]:8080"
    ]


def test_localhost_is_the_address_that_it_means() -> None:
    """People type it, and a server listens on addresses."""
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
def test_blocked_codes_are_codes_with_or_without_a_subcode(
    text: str, codes: set[tuple[int, int | None]]
) -> None:
    """A comma alone says that no other code means blocked."""
    assert settings(BLOCKED_CODES=text).blocked_codes == codes


@pytest.mark.parametrize(
    "text", ["blocked", "551;100", "551/", "/33", "-551", "100/33/1", "1e3", "\uff15"]
)
def test_a_blocked_code_of_another_form_is_a_mistake(text: str) -> None:
    """The text gives an example."""
    told = mistakes(BLOCKED_CODES=text)

    assert len(told) == 1
    assert told[0].endswith("551,100/33")


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
def test_meta_may_be_asked_over_https_and_a_stand_in_over_http(url: str) -> None:
    """A slash at the end is one too many, and does no harm."""
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
def test_metas_own_hosts_are_never_asked_over_http(url: str) -> None:
    """The token would go over the wire in clear. A dot at the end is no way round."""
    told = mistakes(GRAPH_URL=url)

    assert len(told) == 1
    assert told[0].startswith("PROXY_GRAPH_URL must be https for Meta's own hosts")


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
        "https://graph.facebook.com:none",
        "https://graph.facebook.com:65536",
        "https://[graph.facebook.com",
        "https://graph.facebook.com ",
        "https://graph facebook.com",
    ],
)
def test_a_graph_url_of_another_form_is_a_mistake(url: str) -> None:
    """A space at the end, from a file of variables, would fail every call."""
    told = mistakes(GRAPH_URL=url)

    assert len(told) == 1
    assert told[0].startswith("PROXY_GRAPH_URL must be ")


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("https://graph.facebook.com", False),
        ("http://127.0.0.1:9100", False),
        ("http://localhost:9100", False),
        ("http://[::1]:9100", False),
        ("http://meta.internal", True),
    ],
)
def test_http_to_another_machine_is_warned_of(url: str, warned: bool) -> None:
    """It is allowed, for a gateway that speaks TLS itself."""
    assert bool(settings(GRAPH_URL=url).warnings) is warned


@pytest.mark.parametrize(
    "url",
    [
        "embedded:",
        "redis://localhost:6379/0",
        "redis://cache",
        "rediss://user:p%40ss@cache:6380/2?ssl_ca_certs=/etc/ca.pem",
        "rediss://cache/0?ssl_cert_reqs=none&ssl_check_hostname=false",
        "rediss://cache?ssl_certfile=/etc/me.pem&ssl_keyfile=/etc/me.key",
        "redis://cache/0?db=3",
        "redis://cache/0?username=me&password=p%40ss",
        "unix:///run/redis.sock?db=1",
        "redis+sentinel://one,two:26380,[::1]:26381/people",
        "redis+sentinel://user:p%40s%2Fs@one/people?db=3&sentinel_password=other",
        "redis+cluster://one:7000,two,10.0.0.3:7002",
        "redis+cluster://user:p%40ss@one/",
    ],
)
def test_a_store_may_be_anywhere_that_redis_can_be(url: str) -> None:
    """Or an engine of our own."""
    assert settings(STORE_URL=url).store_url.text == url


@pytest.mark.parametrize(
    "url",
    [
        "localhost:6379",
        "http://localhost:6379",
        "embedded",
        "redis://",
        "redis:///0",
        "unix://",
        "unix://run/redis.sock",
        "unix:/run/redis.sock",
        "UNIX:///run/redis.sock",
        "REDIS://localhost:6379/0",
        "redis:/localhost",
        "redis",
        "redis://cache:0",
        "redis://cache:port",
        "redis://cache/0?socket_timeout=10",
        "redis://cache/0?max_connections=",
        "redis://cache?db=abc",
        "redis://cache?db=-1",
        "redis://cache?db=",
        "redis://cache?db=1&db=2",
        "redis://cache?username=",
        "redis://cache?ssl_cert_reqs=none",
        "unix:///run/redis.sock?ssl_ca_certs=/etc/ca.pem",
        "rediss://cache?ssl_ca_certs=",
        "rediss://cache?ssl_cert_reqs=bogus",
        "rediss://cache?ssl_cert_reqs=NONE",
        "rediss://cache?ssl_check_hostname=perhaps",
        "redis+sentinel://one,two",
        "redis+sentinel://one,two/",
        "redis+sentinel://one,two/people/0",
        "redis+sentinel:///people",
        "redis+sentinel://one,,two/people",
        "redis+sentinel://one:0/people",
        "redis+sentinel://one:99999,two/people",
        "redis+sentinel://one,two:99999/people",
        "redis+sentinel://one:port/people",
        "redis+sentinel://one/people?db=first",
        "redis+sentinel://one/people?socket_timeout=10",
        "redis+sentinel://one/people#0",
        "redis+cluster://",
        "redis+cluster://one,two/0",
        "redis+cluster://one;two",
        "redis+cluster://one?db=1",
        "rediss+sentinel://one/people",
    ],
)
def test_a_store_url_of_another_form_is_a_mistake(url: str) -> None:
    """Timeouts and pools are ours to set."""
    told = mistakes(STORE_URL=url)

    assert len(told) == 1
    assert told[0].startswith("PROXY_STORE_URL must be ")


# Names we do not know.


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
def test_an_unknown_name_is_a_mistake_and_gets_the_nearest(
    name: str, nearest: str
) -> None:
    """A typo must not silently leave the default."""
    told = mistakes(**{name: "1h"})

    assert told == [f"PROXY_{name} is not a setting; did you mean {nearest}?"]


@pytest.mark.parametrize("name", ["ZZZZZZZZZZZZZZZZ", "BANANA", "FOO"])
def test_an_unknown_name_that_is_near_to_none_gets_no_hint(name: str) -> None:
    """A wrong hint is worse, and what all names begin with makes none nearer."""
    assert mistakes(**{name: "1"}) == [f"PROXY_{name} is not a setting"]


def test_the_value_of_an_unknown_name_is_not_told() -> None:
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
def test_names_that_are_not_ours_are_let_be(name: str) -> None:
    """Kubernetes gives every container those of a service named proxy."""
    given = Settings.from_env(ENOUGH | {name: "tcp://10.0.0.7:8080"})

    assert given == settings()


@pytest.mark.parametrize("name", ["PORTS", "GRAPH_PORT", "META_SERVICE_HOST"])
def test_a_name_that_only_looks_like_kubernetes_own_is_a_mistake(name: str) -> None:
    """``PROXY_PORTS`` is somebody's guess at a setting."""
    told = mistakes(**{name: "8080"})

    assert len(told) == 1
    assert told[0].startswith(f"PROXY_{name} is not a setting")


# Mistakes.


def test_all_mistakes_are_told_at_once() -> None:
    """One restart should be enough."""
    told = error(
        {
            "PROXY_PROFILE_TTL": "soon",
            "PROXY_THREADS": "1",
            "PROXY_NONSENSE": "1",
            "PROXY_LISTEN": "0.0.0.0:8080",
        }
    )

    named = [mistake.split()[0].split("=")[0] for mistake in told.mistakes]
    assert sorted(named) == [
        "PROXY_LISTEN",
        "PROXY_NONSENSE",
        "PROXY_PAGE_TOKEN",
        "PROXY_PROFILE_TTL",
        "PROXY_THREADS",
    ]
    assert str(told).splitlines() == told.mistakes


# Secrets.

BAD_SECRETS = [
    "EAA TESTTOKEN",
    "EAA\nTESTTOKEN",
    "EAA\r\nTESTTOKEN: 1",
    "EAA\tTESTTOKEN",
    "EAA\x00TESTTOKEN",
    "EAATESTTOKEN\u00e9",
    "\u201cEAATESTTOKEN\u201d",
    "EAA\x7fTESTTOKEN",
]


@pytest.mark.parametrize("name", ["PAGE_TOKEN", "APP_SECRET"])
@pytest.mark.parametrize("value", BAD_SECRETS, ids=ascii)
def test_a_secret_that_cannot_stand_in_a_header_is_a_mistake_not_told(
    name: str, value: str
) -> None:
    """Neither the text nor the traceback has any part of it."""
    raised = error(ENOUGH | {f"PROXY_{name}": value})

    rule = "must be printable ASCII without spaces, and not empty"
    assert raised.mistakes == [f"PROXY_{name} {rule}"]
    assert "TESTTOKEN" not in all_that_shows(raised)


@pytest.mark.parametrize("value", BAD_SECRETS, ids=ascii)
def test_a_file_with_a_secret_that_is_none_is_a_mistake_not_told(
    value: str, tmp_path: Path
) -> None:
    """The text says that it is the file's content that is wrong."""
    file = tmp_path / "token"
    file.write_bytes(value.encode())

    raised = error({"PROXY_PAGE_TOKEN_FILE": str(file)})

    assert len(raised.mistakes) == 1
    assert raised.mistakes[0].startswith("PROXY_PAGE_TOKEN_FILE must hold ")
    assert "TESTTOKEN" not in all_that_shows(raised)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hunter2@cache:port/0",
        "redis://:hunter2@cache:99999/0",
        "redis://:hunter2@cache:0/0",
        "redis://:hun#hunter2@cache:6379/0",
        "redis://:hun/hunter2@cache:6379/0",
        "redis://:hun?hunter2@cache:6379/0",
        "redis://[:hunter2@cache:6379/0",
        "redis://:hunter2\uff0f@cache:6379/0",
        "http://:hunter2@cache:6379/0",
        "hunter2",
        "redis://cache/0?pasword=hunter2",
        "redis://cache/0?hunter2",
        "redis://cache/0?password=hunter2&password=hunter2",
        "redis://cache/0?db=hunter2",
        "redis+sentinel://:hunter2@one,two",
        "redis+sentinel://:hun/hunter2@one,two/people",
        "redis+sentinel://:hun,hunter2@one,two/people",
        "redis+sentinel://:hunter2@one:port,two/people",
        "redis+sentinel://[:hunter2@one/people",
        "redis+cluster://:hun@hunter2@one:7000,two",
        "redis+cluster://:hunter2@one/3",
        "redis+cluster://one?pasword=hunter2",
    ],
)
def test_a_stores_password_is_not_told_with_a_mistake(url: str) -> None:
    """Python's own words about a bad URL quote a part of it."""
    raised = error(ENOUGH | {"PROXY_STORE_URL": url})

    assert "hunter2" not in all_that_shows(raised)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_no_mistake_quotes_a_value(row: Row) -> None:
    """A secret can stand in the wrong variable."""
    given = {f"PROXY_{row.name}": "\u00e9 EAAMISPLACED"}

    try:
        Settings.from_env(ENOUGH | given)
    except SettingsError as exc:
        assert "EAAMISPLACED" not in all_that_shows(exc)


def test_the_repr_of_settings_shows_no_secret() -> None:
    """Nor the URL of the store, which can hold a password."""
    given = settings(APP_SECRET="0123456789abcdef", STORE_URL="redis://:hunter2@cache")

    shown = repr(given)

    assert not any(part in shown for part in (TOKEN, "0123456789abcdef", "hunter2"))


def test_a_secret_is_read_without_the_space_around_it() -> None:
    """An editor puts a newline at the end of a file, a person a space."""
    assert settings(APP_SECRET=" abc\n").app_secret == Secret("abc", None)


# Secrets in files.


def test_a_secret_may_stand_in_a_file(tmp_path: Path) -> None:
    """Which one is kept, because it may come to hold another."""
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")

    given = Settings.from_env({"PROXY_PAGE_TOKEN_FILE": str(file)})

    assert given.page_token == Secret(TOKEN, file)


def test_a_secret_given_in_both_ways_is_a_mistake(tmp_path: Path) -> None:
    """Nobody could tell which one holds."""
    file = tmp_path / "token"
    file.write_text(TOKEN)

    told = mistakes(PAGE_TOKEN_FILE=str(file))

    assert told == ["PROXY_PAGE_TOKEN and PROXY_PAGE_TOKEN_FILE are both set; keep one"]


def test_a_file_that_is_missing_is_a_mistake(tmp_path: Path) -> None:
    """With the words of the system."""
    told = mistakes(APP_SECRET_FILE=str(tmp_path / "none"))

    assert told == ["PROXY_APP_SECRET_FILE cannot be read: No such file or directory"]


def test_a_file_that_cannot_be_read_is_a_mistake(tmp_path: Path) -> None:
    """A folder cannot, whoever asks."""
    told = mistakes(APP_SECRET_FILE=str(tmp_path))

    assert told == ["PROXY_APP_SECRET_FILE cannot be read: Is a directory"]


def test_a_file_that_is_no_text_is_a_mistake(tmp_path: Path) -> None:
    """And nothing of it is told."""
    file = tmp_path / "secret"
    file.write_bytes(b"hunter2\xff")

    raised = error(ENOUGH | {"PROXY_APP_SECRET_FILE": str(file)})

    assert raised.mistakes == ["PROXY_APP_SECRET_FILE is not text"]
    assert "hunter2" not in all_that_shows(raised)


def test_an_empty_file_is_a_mistake(tmp_path: Path) -> None:
    """An empty variable is not set; an empty file was meant to hold something."""
    file = tmp_path / "secret"
    file.write_text("\n")

    told = mistakes(APP_SECRET_FILE=str(file))

    assert len(told) == 1
    assert told[0].startswith("PROXY_APP_SECRET_FILE must hold ")


@pytest.mark.parametrize("name", ["PROFILE_TTL_FILE", "STORE_URL_FILE"])
def test_what_is_no_secret_has_no_file(name: str) -> None:
    """Such a variable is unknown, like any other."""
    told = mistakes(**{name: "/run/secrets/x"})

    assert told[0].startswith(f"PROXY_{name} is not a setting")


# Half a configuration.


@pytest.mark.parametrize("listen", ["0.0.0.0:8080", "[::]:8080", "10.0.0.7:80"])
def test_strangers_are_not_let_in_by_forgetting_the_keys(listen: str) -> None:
    """The text says both ways out."""
    told = mistakes(LISTEN=listen)

    assert len(told) == 1
    assert told[0].startswith(f"PROXY_LISTEN={listen} is not a loopback address")
    assert "PROXY_API_KEYS_FILE" in told[0] and "PROXY_ALLOW_ANONYMOUS=1" in told[0]


@pytest.mark.parametrize(
    "way", [{"API_KEYS_FILE": "/etc/keys"}, {"ALLOW_ANONYMOUS": "1"}]
)
def test_with_keys_or_on_purpose_any_address_may_be_listened_on(
    way: dict[str, str],
) -> None:
    """Either of the two is enough."""
    given = settings(LISTEN="0.0.0.0:8080", **way)

    assert given.listen == Address("0.0.0.0", 8080)


def test_keys_and_no_keys_contradict_each_other() -> None:
    """With keys, nobody is anonymous."""
    told = mistakes(API_KEYS_FILE="/etc/keys", ALLOW_ANONYMOUS="1")

    assert len(told) == 1
    assert "contradict" in told[0]


def test_contradictions_are_all_reported_at_once() -> None:
    """One restart should be enough for these, too."""
    given = mistakes(USAGE_SOFT="96", LISTEN="0.0.0.0:8080")

    assert len(given) == 2
    assert given[0] == "PROXY_USAGE_SOFT must not be above PROXY_USAGE_HARD"
    assert given[1].startswith("PROXY_LISTEN=0.0.0.0:8080 is not a loopback address")


# As the operator sees them.


def shown(env: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    return {row.name: (row.value, row.source) for row in show(env)}


def test_every_setting_is_shown_in_order() -> None:
    """Also where the environment is full of mistakes."""
    names = [row.name for row in show({"PROXY_THREADS": "none", "PROXY_X": "1"})]

    assert names == [f"PROXY_{row.name}" for row in ROWS]


def test_a_setting_is_shown_as_it_was_written_and_where() -> None:
    """The default of a number of cores is the number."""
    seen = shown({"PROXY_PROFILE_TTL": "90m"})

    assert seen["PROXY_PROFILE_TTL"] == ("90m", "environment")
    assert seen["PROXY_STALE_GRACE"] == ("24h", "default")
    assert seen["PROXY_WORKERS"] == (str(usable_cores()), "default")
    assert seen["PROXY_APP_SECRET"] == ("", "default")


@pytest.mark.parametrize(
    ("env", "name", "source"),
    [
        ({"PROXY_PAGE_TOKEN": "hunter2"}, "PROXY_PAGE_TOKEN", "environment"),
        ({"PROXY_APP_SECRET": "hunter2"}, "PROXY_APP_SECRET", "environment"),
        ({"PROXY_APP_SECRET_FILE": "/x"}, "PROXY_APP_SECRET", "file /x"),
        ({"PROXY_STORE_URL": "redis://:hunter2@c"}, "PROXY_STORE_URL", "environment"),
        (
            {"PROXY_STORE_URL": "redis://c/0?password=hunter2"},
            "PROXY_STORE_URL",
            "environment",
        ),
        (
            {"PROXY_STORE_URL": "redis://c/0?p%61ssword=hunter2"},
            "PROXY_STORE_URL",
            "environment",
        ),
        ({"PROXY_GRAPH_URL": "http://u:hunter2@c"}, "PROXY_GRAPH_URL", "environment"),
    ],
)
def test_what_is_secret_is_shown_masked(
    env: dict[str, str], name: str, source: str
) -> None:
    """A URL is masked where it may hold a password."""
    seen = shown(env)

    assert seen[name] == (SECRET_SHOWN_AS, source)


def test_a_url_without_a_password_is_shown() -> None:
    """It is what one wants to see most."""
    seen = shown({"PROXY_STORE_URL": "redis://cache:6379/1"})

    assert seen["PROXY_STORE_URL"] == ("redis://cache:6379/1", "environment")


def test_cores_are_at_least_one() -> None:
    """Whatever the machine says of itself."""
    assert usable_cores() >= 1


# Webhooks.


@pytest.mark.parametrize("secret", ["WEBHOOK_SECRETS", "APP_SECRET"])
def test_webhooks_need_a_token_and_a_secret(secret: str) -> None:
    """Any secret will do; without the token there are none."""
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
def test_half_of_what_webhooks_need_is_a_mistake(
    env: dict[str, str], named: str
) -> None:
    """It would be silently off, or open to anybody."""
    [told] = mistakes(**env)

    assert named in told
    assert "hunter2" not in told


def test_a_bad_secret_is_the_only_mistake_that_is_told() -> None:
    """Nobody need be told that it is missing, too."""
    told = mistakes(WEBHOOK_VERIFY_TOKEN="word", WEBHOOK_SECRETS="a,,b")

    rule = "must be secrets by comma, printable ASCII, and none of them empty"
    assert told == [f"PROXY_WEBHOOK_SECRETS {rule}"]


@pytest.mark.parametrize("text", ["old,new", " old , new \n"])
def test_several_secrets_stand_in_a_row(text: str) -> None:
    """With or without spaces around the comma."""
    given = settings(WEBHOOK_VERIFY_TOKEN="word", WEBHOOK_SECRETS=text)

    assert given.webhook_secrets == Secret("old,new", None)


@pytest.mark.parametrize("text", [",", "old,", "o ld,new", "\u00e9"], ids=ascii)
def test_other_secrets_are_a_mistake_not_told(text: str) -> None:
    """Neither which, nor how."""
    [told] = mistakes(WEBHOOK_VERIFY_TOKEN="word", WEBHOOK_SECRETS=text)

    assert told.startswith("PROXY_WEBHOOK_SECRETS must be secrets by comma")
    assert "old" not in told
