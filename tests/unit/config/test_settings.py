"""Every setting: defaults, units, mistakes, and secrets that stay secret."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import pytest

from proxy.config.readers import Address, Secret
from proxy.config.rows import ROWS, Row, usable_cores
from proxy.config.settings import SECRET_SHOWN_AS, Settings, SettingsError, show
from proxy.storage.store_url import StoreUrl
from tests.unit.config.environment import (
    ENOUGH,
    TOKEN,
    all_that_shows,
    error,
    mistakes,
    settings,
)

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


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
def test_defaults_are_as_documented(name: str, default: object) -> None:
    """Only a token has no default."""
    assert getattr(settings(), name) == default


def test_rows_and_fields_of_settings_match() -> None:
    """Under the same name, in the same order."""
    rows = [row.name.lower() for row in ROWS]

    assert rows == [field.name for field in fields(Settings)]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_setting_has_a_help_text(row: Row) -> None:
    """In one line."""
    assert row.help.strip()
    assert "\n" not in row.help


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row.default], ids=lambda row: row.name
)
def test_every_default_is_a_valid_value(row: Row) -> None:
    """It is read like any other text."""
    assert row.default is not None

    given = settings(**{row.name: row.default})

    assert given == settings()


def test_only_the_token_is_required() -> None:
    """It can be in a file too, and the mistake says so."""
    found = error({}).mistakes

    assert len(found) == 1
    assert found[0].startswith("PROXY_PAGE_TOKEN or PROXY_PAGE_TOKEN_FILE must be set")


def test_empty_variable_counts_as_not_set() -> None:
    """A compose file leaves a variable out this way."""
    empty = {row.name: "" for row in ROWS if not row.secret} | {"APP_SECRET": ""}

    assert settings(**empty, PAGE_TOKEN_FILE="") == settings()


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
def test_http_to_another_machine_gives_a_warning(url: str, warned: bool) -> None:
    """It is allowed, for a gateway that speaks TLS itself."""
    assert bool(settings(GRAPH_URL=url).warnings) is warned


@pytest.mark.parametrize(
    "secret",
    [
        *("short", "x" * 15, " " + "x" * 15, "0123456789 abcdef"),
        *("${PICTURE_LINK_SECRET}", "{{ picture_link_secret }}", "<the link secret>"),
        *("undefined-undefined", '"0123456789abcdef"'),
    ],
)
def test_secret_of_picture_links_must_be_long(secret: str, tmp_path: Path) -> None:
    """A short one could be guessed from a link, by trying, and so could a placeholder.

    With it a stranger would sign links to every person's picture.
    """
    file = tmp_path / "secret"
    file.write_text(secret)

    for given in (
        {"PICTURE_LINK_SECRET": secret},
        {"PICTURE_LINK_SECRET_FILE": str(file)},
    ):
        [mistake] = mistakes(**given)
        assert "PROXY_PICTURE_LINK_SECRET" in mistake
        assert "at least 16 characters" in mistake
        assert secret.strip() not in mistake
    assert settings(PICTURE_LINK_SECRET="x" * 16).picture_link_secret


@pytest.mark.parametrize(
    ("ttl", "margin", "warned"),
    [("1h", "1h", False), ("3601s", "1h", True), ("1s", "0s", True)],
)
def test_profile_ttl_above_the_picture_margin_gives_a_warning(
    ttl: str, margin: str, warned: bool
) -> None:
    """A client's cache that ignores Age may keep a profile for its TTL once more."""
    warnings = settings(PROFILE_TTL=ttl, PICTURE_MARGIN=margin).warnings

    assert ["PROXY_PICTURE_MARGIN" in warning for warning in warnings] == warned * [
        True
    ]


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
def test_store_url_of_another_form_is_a_mistake(url: str) -> None:
    """Timeouts and pools are ours to set."""
    found = mistakes(STORE_URL=url)

    assert len(found) == 1
    assert found[0].startswith("PROXY_STORE_URL must be ")


def test_all_mistakes_are_reported_at_once() -> None:
    """One restart should be enough."""
    found = error(
        {
            "PROXY_PROFILE_TTL": "soon",
            "PROXY_THREADS": "1",
            "PROXY_NONSENSE": "1",
            "PROXY_LISTEN": "0.0.0.0:8080",
        }
    )

    named = [mistake.split()[0].split("=")[0] for mistake in found.mistakes]
    assert sorted(named) == [
        "PROXY_LISTEN",
        "PROXY_NONSENSE",
        "PROXY_PAGE_TOKEN",
        "PROXY_PROFILE_TTL",
        "PROXY_THREADS",
    ]
    assert str(found).splitlines() == found.mistakes


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
def test_invalid_secret_is_a_mistake_that_does_not_quote_it(
    name: str, value: str
) -> None:
    """It could not stand in a header. Neither text nor traceback has any part of it."""
    raised = error(ENOUGH | {f"PROXY_{name}": value})

    [mistake] = raised.mistakes
    assert mistake.startswith(f"PROXY_{name} must be ")
    assert "TESTTOKEN" not in all_that_shows(raised)


@pytest.mark.parametrize("value", BAD_SECRETS, ids=ascii)
def test_file_with_an_invalid_secret_is_a_mistake_that_does_not_quote_it(
    value: str, tmp_path: Path
) -> None:
    """The mistake names the setting of the file."""
    file = tmp_path / "token"
    file.write_bytes(value.encode())

    raised = error({"PROXY_PAGE_TOKEN_FILE": str(file)})

    assert len(raised.mistakes) == 1
    assert raised.mistakes[0].startswith(f"PROXY_PAGE_TOKEN_FILE={file} must hold ")
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
def test_mistake_in_a_store_url_does_not_quote_its_password(url: str) -> None:
    """Python's own message about an invalid URL quotes a part of it."""
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


def test_repr_of_settings_shows_no_secret() -> None:
    """Nor the URL of the store, which can hold a password."""
    given = settings(APP_SECRET="0123456789abcdef", STORE_URL="redis://:hunter2@cache")

    shown = repr(given)

    assert not any(part in shown for part in (TOKEN, "0123456789abcdef", "hunter2"))


def test_secret_is_stripped_of_spaces_around_it() -> None:
    """An editor puts a newline at the end of a file, a person a space."""
    assert settings(APP_SECRET=" abc\n").app_secret == Secret("abc", None)


def test_secret_may_be_in_a_file(tmp_path: Path) -> None:
    """Its path is kept, because its content may change."""
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")

    given = Settings.from_env({"PROXY_PAGE_TOKEN_FILE": str(file)})

    assert given.page_token == Secret(TOKEN, file)


def test_secret_in_a_variable_and_in_a_file_is_a_mistake(tmp_path: Path) -> None:
    """It would not be clear which one counts."""
    file = tmp_path / "token"
    file.write_text(TOKEN)

    found = mistakes(PAGE_TOKEN_FILE=str(file))

    assert found == [
        "PROXY_PAGE_TOKEN and PROXY_PAGE_TOKEN_FILE are both set; keep one"
    ]


def test_missing_file_of_a_secret_is_a_mistake(tmp_path: Path) -> None:
    """With its path, which a container can have changed, and the system's message."""
    found = mistakes(APP_SECRET_FILE=str(tmp_path / "none"))

    path = f"{tmp_path}/none"
    assert found == [
        f"PROXY_APP_SECRET_FILE={path} cannot be read: No such file or directory"
    ]


@pytest.mark.parametrize(
    "secret", [f"{TOKEN}XYZ", "0123456789abcdef" * 2, "redis://:hunter2@cache"]
)
def test_secret_in_the_variable_of_its_file_is_not_quoted(secret: str) -> None:
    """It is taken for a path, which mistakes show."""
    raised = error({"PROXY_PAGE_TOKEN_FILE": secret})

    assert secret not in all_that_shows(raised)
    assert "PROXY_PAGE_TOKEN_FILE (not shown" in raised.mistakes[0]


def test_unreadable_file_of_a_secret_is_a_mistake(tmp_path: Path) -> None:
    """A folder is unreadable even for root."""
    found = mistakes(APP_SECRET_FILE=str(tmp_path))

    assert found == [f"PROXY_APP_SECRET_FILE={tmp_path} cannot be read: Is a directory"]


def test_binary_file_of_a_secret_is_a_mistake(tmp_path: Path) -> None:
    """The mistake quotes nothing of it."""
    file = tmp_path / "secret"
    file.write_bytes(b"hunter2\xff")

    raised = error(ENOUGH | {"PROXY_APP_SECRET_FILE": str(file)})

    assert raised.mistakes == [f"PROXY_APP_SECRET_FILE={file} is not text"]
    assert "hunter2" not in all_that_shows(raised)


def test_empty_file_of_a_secret_is_a_mistake(tmp_path: Path) -> None:
    """An empty variable is not set; an empty file was meant to hold something."""
    file = tmp_path / "secret"
    file.write_text("\n")

    found = mistakes(APP_SECRET_FILE=str(file))

    assert len(found) == 1
    assert found[0].startswith(f"PROXY_APP_SECRET_FILE={file} must hold ")


def test_setting_that_is_not_secret_cannot_be_in_a_file() -> None:
    """Such a variable is an unknown name."""
    found = mistakes(PROFILE_TTL_FILE="/run/secrets/x")

    assert found[0].startswith("PROXY_PROFILE_TTL_FILE is not a setting")


def test_url_of_the_store_may_be_in_a_file(tmp_path: Path) -> None:
    """It can have a password, which the environment would show."""
    file = tmp_path / "store_url"
    file.write_text("redis://:hunter2@cache:6379/1\n")

    given = settings(STORE_URL_FILE=str(file))
    seen = shown({"PROXY_STORE_URL_FILE": str(file)})

    assert given.store_url == StoreUrl.parse("redis://:hunter2@cache:6379/1")
    assert seen["PROXY_STORE_URL"] == (SECRET_SHOWN_AS, f"file {file}")


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        ("redis://:hunter2@cache:x", "must hold a URL whose port"),
        ("", "must hold embedded:"),
        (None, "cannot be read"),
    ],
)
def test_mistake_in_the_file_of_the_store_names_the_file(
    tmp_path: Path, content: str | None, rule: str
) -> None:
    """And quotes nothing of the URL."""
    file = tmp_path / "store_url"
    if content is not None:
        file.write_text(content)

    raised = error(ENOUGH | {"PROXY_STORE_URL_FILE": str(file)})

    assert raised.mistakes[0].startswith(f"PROXY_STORE_URL_FILE={file} {rule}")
    assert "hunter2" not in all_that_shows(raised)


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("redis://h:99999", "a URL whose port is a number from 1 to 65535"),
        ("redis://:hunter2@h:99999/0", "a URL whose port is"),
        ("redis://h:port", "a URL whose port is"),
        ("redis://h:0/0", "a URL whose port is"),
        ("redis+sentinel://one,two:99999/people", "a URL whose port is"),
        ("redis+cluster://one:99999", "a URL whose port is"),
        ("redis://:hun/hunter2@h:6379/0", "a URL"),
    ],
)
def test_invalid_port_of_the_store_is_named(url: str, rule: str) -> None:
    """And a password that is not percent-encoded is not taken for a port."""
    [found] = mistakes(STORE_URL=url)

    assert found.startswith(f"PROXY_STORE_URL must be {rule}")
    assert ("port is" in found) is ("port" in rule)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PROFILE_TTL", "soon"),
        ("LISTEN", "8080"),
        ("LISTEN", "127.0.0.1:80 "),
        ("GRAPH_URL", "https://graph.facebook.com/v25.0"),
        ("STORE_URL", "redis://h:99999"),
        ("LOG_LEVEL", "trace"),
    ],
)
def test_mistake_ends_with_the_value(name: str, value: str) -> None:
    """In a container, the operator does not see what a variable became."""
    [found] = mistakes(**{name: value})

    assert found.endswith(f", not {value!r}")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GRAPH_URL", "https://ada:hunter2@graph.facebook.com"),
        ("GRAPH_URL", "https://graph.facebook.com?access_token=hunter2"),
        ("LISTEN", "0123456789abcdef" * 2 + "hunter2"),
        ("PROFILE_TTL", "EAAhunter2"),
        ("PROFILE_TTL", "pp_hunter2"),
        ("STORE_URL", "redis://db:6379#hunter2"),
    ],
)
def test_value_that_may_be_a_secret_is_not_shown(name: str, value: str) -> None:
    """Also where it stands in the wrong variable; `config` does not show it either."""
    env = ENOUGH | {f"PROXY_{name}": value}

    raised = error(env)

    assert "hunter2" not in all_that_shows(raised) + str(show(env))
    assert raised.mistakes[0].endswith("because it may be a secret")


@pytest.mark.parametrize(
    ("token", "rule"),
    [
        ('"EAATESTTOKEN"', "a secret without quotes around it"),
        ("'EAATESTTOKEN'", "a secret without quotes around it"),
        ('"EAATESTTOKEN', "a secret without quotes around it"),
        ("EAA TESTTOKEN", "a secret without blanks, and there is one in it"),
        ("EAA\nTESTTOKEN", "a secret in one line, and there is a line break in it"),
        ("undefined", "a secret, and not undefined, null or none"),
        ("undefined___TESTTOKEN", "a secret, and not undefined, null or none"),
        ("null", "a secret, and not undefined, null or none"),
        ("None", "a secret, and not undefined, null or none"),
        ("${PAGE_TESTTOKEN}", "a secret, and not a placeholder"),
        ("IGAATESTTOKEN", "a token for graph.facebook.com, and one that begins with"),
    ],
)
def test_mistake_in_a_token_is_told_without_the_token(token: str, rule: str) -> None:
    """In the variable and in a file alike, at the start."""
    raised = error({"PROXY_PAGE_TOKEN": token})

    assert raised.mistakes[0].startswith(f"PROXY_PAGE_TOKEN must be {rule}")
    assert "TESTTOKEN" not in all_that_shows(raised)


@pytest.mark.parametrize("secret", ["nullable", "undefinedness", "a'b", "none5"])
def test_secret_that_only_resembles_a_mistake_is_valid(secret: str) -> None:
    """Words of an operator's own are valid secrets."""
    assert settings(APP_SECRET=secret).app_secret == Secret(secret, None)


@pytest.mark.parametrize(
    "url", ["https://graph.instagram.com", "http://127.0.0.1:9100", "https://gw/meta"]
)
def test_token_of_an_instagram_login_is_valid_at_other_hosts(url: str) -> None:
    """Only graph.facebook.com is known to reject it."""
    given = settings(PAGE_TOKEN="IGAATESTTOKEN", GRAPH_URL=url)

    assert given.page_token == Secret("IGAATESTTOKEN", None)


def shown(env: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    return {row.name: (row.value, row.source) for row in show(env)}


def test_show_lists_every_setting_in_order() -> None:
    """Even if the environment has mistakes."""
    names = [row.name for row in show({"PROXY_THREADS": "none", "PROXY_X": "1"})]

    assert names == [f"PROXY_{row.name}" for row in ROWS]


def test_show_has_each_value_as_written_and_its_source() -> None:
    """The default of WORKERS is shown as a number."""
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
        ({"PROXY_PAGE_TOKEN_FILE": f"{TOKEN}XYZ"}, "PROXY_PAGE_TOKEN", "file ***"),
        ({"PROXY_API_KEYS_FILE": TOKEN}, "PROXY_API_KEYS_FILE", "environment"),
        (
            {"PROXY_STORE_URL_FILE": "redis://:hunter2@c"},
            "PROXY_STORE_URL",
            "file ***",
        ),
    ],
)
def test_show_masks_secrets(env: dict[str, str], name: str, source: str) -> None:
    """Also a URL that may hold a password, and a secret in the variable of a path."""
    seen = shown(env)

    assert seen[name] == (SECRET_SHOWN_AS, source)


def test_show_has_a_url_without_a_password() -> None:
    """It is the value that operators check most."""
    seen = shown({"PROXY_STORE_URL": "redis://cache:6379/1"})

    assert seen["PROXY_STORE_URL"] == ("redis://cache:6379/1", "environment")


def test_usable_cores_are_at_least_one() -> None:
    """Whatever affinity and quota the machine reports."""
    assert usable_cores() >= 1
