"""The store's URL: its parts, and how it is shown. Its mistakes: test_settings.py."""

import pytest

from proxy.storage.store_url import EMBEDDED, StoreUrl, mask


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("redis://cache", {"hosts": (("cache", 6379),), "database": 0}),
        ("rediss://[::1]:6380/2", {"hosts": (("::1", 6380),), "database": 2}),
        ("redis://cache/2?db=3", {"database": 3}),
        ("unix:///run/redis.sock?db=1", {"hosts": (), "database": 1}),
        ("redis://ada:p%40ss@h", {"username": "ada", "password": "p@ss"}),
        ("redis://h?username=ada&password=p%40ss", {"username": "ada"}),
        ("redis://:pw@h?password=other", {"username": None, "password": "pw"}),
        ("rediss://h?ssl_cert_reqs=none", {"options": {"ssl_cert_reqs": "none"}}),
        (
            "redis+sentinel://one:7000,[::1]/the%20people?db=3&sentinel_password=pw",
            {
                "hosts": (("one", 7000), ("::1", 26379)),
                "master_name": "the people",
                "database": 3,
                "options": {"sentinel_password": "pw"},
            },
        ),
        ("redis+sentinel://one/7", {"master_name": "7", "database": 0}),
        ("unix:///7", {"database": 0}),
        (
            "redis+cluster://ada:pw@one,two:7001/",
            {"hosts": (("one", 6379), ("two", 7001)), "username": "ada"},
        ),
    ],
)
def test_store_url_has_the_parts_of_its_text(
    text: str, expected: dict[str, object]
) -> None:
    """Decoded, and with the port that is the default of its kind."""
    url = StoreUrl.parse(text)

    assert {name: getattr(url, name) for name in expected} == expected
    assert (url.text, url.scheme) == (text, text.partition("://")[0])


def test_store_url_of_our_own_engine_is_embedded() -> None:
    assert StoreUrl.parse(EMBEDDED).is_embedded
    assert not StoreUrl.parse("redis://embedded").is_embedded


@pytest.mark.parametrize(
    "text",
    [
        "redis://ada:s3cret@h/0",
        "redis://h/0?password=s3cret",
        "redis+sentinel://one/people?sentinel_password=s3cret",
    ],
)
def test_store_url_shows_its_password_nowhere_but_in_its_parts(text: str) -> None:
    """Settings and tracebacks have its repr, and log lines its masked form."""
    url = StoreUrl.parse(text)

    assert "s3cret" not in repr(url) + str(url) + url.masked


def test_store_url_with_a_malformed_address_after_another_is_a_mistake() -> None:
    """urlsplit checks the first of them only, and its error quotes the URL."""
    with pytest.raises(ValueError, match="with a password percent-encoded") as caught:
        StoreUrl.parse("redis+sentinel://[::1],[1:2]/people")

    assert "1:2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:s3cret@h:6379/0", "redis://:***@h:6379/0"),
        ("redis://ada:s3cret@h/0", "redis://ada:***@h/0"),
        ("rediss://ada:s3cret@[::1]:6379/0", "rediss://ada:***@[::1]:6379/0"),
        ("redis://ada:s3@cret@h/0", "redis://ada:***@h/0"),
        ("redis://ada:s3%2Fcret@h/0", "redis://ada:***@h/0"),
        ("unix://ada:s3cret@/run/s.sock?db=1", "unix://ada:***@/run/s.sock"),
        (
            "redis+sentinel://ada:s3cret@h1:26379,h2/people?db=1",
            "redis+sentinel://ada:***@h1:26379,h2/people",
        ),
        ("redis+cluster://:s3cret@h1:6379,h2", "redis+cluster://:***@h1:6379,h2"),
    ],
)
def test_mask_shows_a_password_as_stars(url: str, shown: str) -> None:
    """An operator still recognises the store."""
    assert mask(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "redis://h/0?password=s3cret",
        "redis://h/0?db=1&username=ada&password=s3cret",
        "unix:///run/s.sock?password=s3cret",
        "rediss://h/0?ssl_password=s3cret",
        "rediss://ada:s3cret@h/0?password=s3cret",
        "redis://h/0?passw%6Frd=s3cret",
        "redis+sentinel://h1,h2/people?sentinel_password=s3cret",
    ],
)
def test_mask_removes_a_password_in_the_query(url: str) -> None:
    """However its name is encoded: redis-py decodes that, too."""
    assert "s3cret" not in mask(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:12/s3cret@h:6379/0",
        "redis://ada:12/s3cret@h:6379/0",
        "redis://:/s3cret@h:6379/0",
        "redis://ada:12#s3cret@h:6379/0",
        "redis://ada:12?s3cret@h:6379/0",
        "unix://ada:12/s3cret@/run/s.sock",
    ],
)
def test_mask_removes_a_password_that_should_have_been_quoted(url: str) -> None:
    """Generated passwords often have a slash, and urlsplit reads another URL then."""
    assert "s3cret" not in mask(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost:6379/0",
        "rediss://h:6380/0?ssl_ca_certs=/etc/ca.pem",
        "unix:///run/s.sock?db=1",
    ],
)
def test_mask_keeps_a_url_without_a_password(url: str) -> None:
    assert mask(url) == url
