"""Flask-Caching's interface, as our backend offers it, on every kind of store."""

import pickle
from datetime import timedelta
from typing import Any

import pytest
import redis
from flask_caching.backends.rediscache import RedisCache

from proxy.storage.flask_cache import ProfileCache
from tests.helpers.redis_servers import REAL_STORES
from tests.helpers.store_clients import new_client

DEFAULT_TTL = 3600

BYTES = [
    pytest.param(b"", id="nothing"),
    pytest.param(b"\x00\xff\r\n$5\r\n", id="binary"),
    pytest.param(b"42", id="a-number"),
    pytest.param(b"!\x80\x04N.", id="like-a-pickle-of-cachelib"),
    pytest.param('{"v":1,"name":"Zoë 🏳️‍🌈"}'.encode(), id="json"),
    pytest.param(bytes(range(256)) * 4096, id="a-megabyte"),
]

INVALID_TIMEOUTS = [0, -1, 0.0, 0.0004, -0.5, timedelta(0), timedelta(seconds=-1)]

UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "add": ("k", b"x"),
    "set_many": ({"k": b"x"},),
    "inc": ("k",),
    "dec": ("k",),
    "get_many": ("k",),
    "get_dict": ("k",),
    "has": ("k",),
    "delete": ("k",),
    "delete_many": ("k",),
    "unlink": ("k",),
    "clear": (),
}
"""Inherited methods that our backend refuses, with arguments that the parent takes."""


def milliseconds_left(raw: redis.Redis, key: str) -> int:
    left: int = raw.pttl(f"pp:{key}")
    return left


@pytest.mark.parametrize("store_url", REAL_STORES, indirect=True)
def test_new_connection_can_be_used_at_once(store_url: str) -> None:
    """Over TLS too, where the server has sent tickets before we ask anything.

    redis-py takes a connection with unread bytes for one left in disorder.
    """
    for _ in range(20):
        with new_client(store_url, connections=1) as client:
            assert client.ping()


class Bomb:
    """An object that does harm when it is unpickled."""

    went_off = False

    def __reduce__(self) -> tuple[Any, ...]:
        return setattr, (Bomb, "went_off", True)


@pytest.mark.parametrize("value", BYTES)
def test_get_returns_the_bytes_that_were_set(
    cache: ProfileCache, raw: redis.Redis, value: bytes
) -> None:
    """Nothing is wrapped around them: the store holds exactly the same bytes."""
    cache.set("k", value)

    assert cache.get("k") == value
    assert raw.get("pp:k") == value


@pytest.mark.parametrize("value", ["text", 5, None], ids=repr)
def test_set_refuses_a_value_that_is_not_bytes(
    cache: ProfileCache, raw: redis.Redis, value: object
) -> None:
    """It would be read back as something else, so it is not even sent."""
    with pytest.raises(TypeError):
        cache.set("k", value)  # type: ignore[arg-type]

    assert raw.dbsize() == 0


def test_foreign_pickle_is_never_unpickled(
    cache: ProfileCache, raw: redis.Redis
) -> None:
    """Write access to the store must not be a way to run code in the proxy."""
    bomb = pickle.dumps(Bomb())
    raw.set("pp:k", b"!" + bomb, px=60_000)
    raw.set("pp:l", bomb, px=60_000)

    assert cache.get("k") == b"!" + bomb
    assert cache.get("l") == bomb
    assert not Bomb.went_off


def test_get_of_a_missing_key_is_none(cache: ProfileCache) -> None:
    """None is the only miss there is."""
    assert cache.get("k") is None


def test_second_set_overwrites_value_and_ttl(
    cache: ProfileCache, raw: redis.Redis
) -> None:
    """The old TTL does not stay with the new value."""
    cache.set("k", b"old", timeout=1000)

    assert cache.set("k", b"new", timeout=10) is True

    assert cache.get("k") == b"new"
    assert milliseconds_left(raw, "k") <= 10_000


@pytest.mark.parametrize(
    ("timeout", "milliseconds"),
    [
        (0.25, 250),
        (1.5, 1500),
        (2, 2000),
        (timedelta(milliseconds=700), 700),
        (timedelta(hours=1), 3_600_000),
        (None, DEFAULT_TTL * 1000),
    ],
    ids=str,
)
def test_timeout_is_kept_to_the_millisecond(
    cache: ProfileCache,
    raw: redis.Redis,
    timeout: float | timedelta | None,
    milliseconds: int,
) -> None:
    """Never rounded up to whole seconds; None means the default."""
    cache.set("k", b"x", timeout)

    assert milliseconds - 200 < milliseconds_left(raw, "k") <= milliseconds


def test_value_is_gone_once_its_timeout_is_over(
    cache: ProfileCache, raw: redis.Redis
) -> None:
    """A fraction of a second is a timeout like any other."""
    cache.set("k", b"x", timeout=0.02)

    expires_at = raw.pexpiretime("pp:k")
    while (now := _server_milliseconds(raw)) <= expires_at:
        assert expires_at - now <= 20

    assert cache.get("k") is None


def _server_milliseconds(raw: redis.Redis) -> int:
    seconds, microseconds = raw.time()
    return int(seconds * 1000 + microseconds // 1000)


@pytest.mark.parametrize("timeout", INVALID_TIMEOUTS, ids=str)
def test_timeout_below_a_millisecond_is_an_error_and_never_for_ever(
    cache: ProfileCache, raw: redis.Redis, timeout: float | timedelta
) -> None:
    """Flask-Caching reads zero as "for ever"; we keep nothing for ever."""
    with pytest.raises(ValueError):
        cache.set("k", b"x", timeout)

    assert raw.dbsize() == 0


@pytest.mark.parametrize("store_url", ["fakeredis"], indirect=True)
@pytest.mark.parametrize("name", UNSUPPORTED)
def test_unsafe_inherited_method_raises_and_changes_nothing(
    cache: ProfileCache, raw: redis.Redis, name: str
) -> None:
    """Some keep values for ever, ``clear`` runs KEYS; the error names the method."""
    cache.set("k", b"1")

    with pytest.raises(NotImplementedError, match=rf"{name}\(\) is not supported"):
        getattr(cache, name)(*UNSUPPORTED[name])

    assert [raw.get(key) for key in raw.scan_iter()] == [b"1"]
    assert raw.pttl("pp:k") > 0


def test_no_method_of_the_parent_is_inherited_unexamined() -> None:
    """A newer Flask-Caching or cachelib may add one."""
    public = {
        name
        for name in dir(RedisCache)
        if not name.startswith("_") and callable(getattr(RedisCache, name))
    }

    assert public - {"serializer"} == {"get", "set", "factory", *UNSUPPORTED}
