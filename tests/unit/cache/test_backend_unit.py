"""The client behind a URL, and URLs as people may see them; no server is needed."""

import ssl
import warnings

import pytest
import redis

from proxy.cache.backend import REDIS_TIMEOUT, ProfileCache, masked, new_client

URLS = ["redis://store.invalid/3", "rediss://store.invalid/3", "unix:///no.sock?db=3"]

each_url = pytest.mark.parametrize("url", URLS)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:s3cret@h:6379/0", "redis://:***@h:6379/0"),
        ("redis://ada:s3cret@h/0", "redis://ada:***@h/0"),
        ("rediss://ada:s3cret@[::1]:6379/0", "rediss://ada:***@[::1]:6379/0"),
        ("redis://ada:s3@cret@h/0", "redis://ada:***@h/0"),
        ("redis://ada:s3%2Fcret@h/0", "redis://ada:***@h/0"),
        ("unix://ada:s3cret@/run/s.sock?db=1", "unix://ada:***@/run/s.sock"),
    ],
)
def test_a_password_is_shown_as_stars(url: str, shown: str) -> None:
    """What is left tells an operator which store it is."""
    assert masked(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "redis://h/0?password=s3cret",
        "redis://h/0?db=1&username=ada&password=s3cret",
        "unix:///run/s.sock?password=s3cret",
        "rediss://h/0?ssl_password=s3cret",
        "rediss://ada:s3cret@h/0?password=s3cret",
        "redis://h/0?passw%6Frd=s3cret",
    ],
)
def test_a_password_in_the_query_is_not_shown(url: str) -> None:
    """However its name is written: redis-py decodes that, too."""
    assert "s3cret" not in masked(url)


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
def test_a_password_that_should_have_been_quoted_is_not_shown(url: str) -> None:
    """Made passwords often have a slash, and such a URL is still read, as another."""
    assert "s3cret" not in masked(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost:6379/0",
        "rediss://h:6380/0?ssl_ca_certs=/etc/ca.pem",
        "unix:///run/s.sock?db=1",
    ],
)
def test_a_url_without_a_password_is_shown_as_it_is(url: str) -> None:
    """There is nothing to hide."""
    assert masked(url) == url


@each_url
def test_a_client_waits_a_quarter_of_a_second(url: str) -> None:
    """For a connection, and for an answer."""
    kept = new_client(url, 7).connection_pool.connection_kwargs

    assert kept["socket_timeout"] == REDIS_TIMEOUT == 0.25
    assert kept["socket_connect_timeout"] == REDIS_TIMEOUT
    assert kept["db"] == 3


@each_url
def test_a_client_opens_no_more_connections_than_told(url: str) -> None:
    """And none at all before it is used, so that a store may come later."""
    assert new_client(url, 7).connection_pool.max_connections == 7


@each_url
@pytest.mark.parametrize(
    ("error", "tries"),
    [(redis.ConnectionError, 2), (redis.TimeoutError, 1), (redis.ResponseError, 1)],
)
def test_a_dead_connection_is_tried_once_more_and_a_slow_one_is_not(
    url: str, error: type[redis.RedisError], tries: int
) -> None:
    """A store that hangs hangs the second time."""
    tried: list[None] = []

    def ask() -> None:
        tried.append(None)
        raise error("away")

    with pytest.raises(error):
        new_client(url, 7).get_retry().call_with_retry(ask, lambda failure: None)

    assert len(tried) == tries


def test_tls_is_verified() -> None:
    """The certificate, and that it is for this host."""
    connection = new_client("rediss://store.invalid/0", 7).connection_pool

    made = connection.make_connection()

    assert made.cert_reqs == ssl.CERT_REQUIRED
    assert made.check_hostname is True


def test_a_backend_is_built_without_a_warning() -> None:
    """A warning of today is an error of tomorrow's cachelib."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ProfileCache(
            host=new_client("redis://store.invalid/0", 7),
            default_timeout=3600,
            key_prefix="pp:",
        )
