"""Flask-Caching's interface, kept by our backend on every kind of store."""

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
import redis

from proxy.storage.flask_cache import ProfileCache
from tests.helpers.redis_servers import REAL_STORES
from tests.helpers.store_clients import new_client

DEFAULT_TTL = 3600
THREADS = 32
MANY = 5000

BYTES = [
    pytest.param(b"", id="nothing"),
    pytest.param(b"\x00\xff\r\n$5\r\n", id="binary"),
    pytest.param(b"42", id="a-number"),
    pytest.param(b"!\x80\x04N.", id="like-a-pickle-of-cachelib"),
    pytest.param('{"v":1,"name":"Zoë 🏳️‍🌈"}'.encode(), id="json"),
    pytest.param(bytes(range(256)) * 4096, id="a-megabyte"),
]

NO_TIMEOUT = [0, -1, 0.0, 0.0004, -0.5, timedelta(0), timedelta(seconds=-1)]

FOREIGN = ("pp2:x", "pp", "ppp:x", "other:pp:x", "session:1")
"""Keys of others in the same database, as near to our prefix as can be."""


def milliseconds_left(raw: redis.Redis, key: str) -> int:
    left: int = raw.pttl(f"pp:{key}")
    return left


def plant(raw: redis.Redis, *keys: str) -> None:
    for key in keys:
        raw.set(key, b"theirs", px=60_000)


@pytest.mark.parametrize("store_url", REAL_STORES, indirect=True)
def test_every_new_connection_can_be_used_at_once(store_url: str) -> None:
    """Over TLS too, where the server has sent tickets before we ask anything.

    redis-py takes a connection with something to read for one left in disorder.
    """
    for _ in range(20):
        with new_client(store_url, connections=1) as client:
            assert client.ping()


class Bomb:
    """Something that does harm when it is unpickled."""

    went_off = False

    def __reduce__(self) -> tuple[Any, ...]:
        return setattr, (Bomb, "went_off", True)


@pytest.mark.parametrize("value", BYTES)
def test_bytes_come_back_as_they_went_in(
    cache: ProfileCache, raw: redis.Redis, value: bytes
) -> None:
    """Nothing is wrapped around them: the store holds exactly the same bytes."""
    cache.set("k", value)

    assert cache.get("k") == value
    assert raw.get("pp:k") == value


@pytest.mark.parametrize("write", ["set", "add", "set_many"])
@pytest.mark.parametrize("value", ["text", 5, None], ids=repr)
def test_what_is_not_bytes_is_refused(
    cache: ProfileCache, raw: redis.Redis, write: str, value: object
) -> None:
    """It would come back as something else, so it is not even sent."""
    with pytest.raises(TypeError):
        if write == "set_many":
            cache.set_many({"k": value})  # type: ignore[dict-item]
        else:
            getattr(cache, write)("k", value)

    assert raw.dbsize() == 0


def test_a_foreign_pickle_is_never_unpickled(
    cache: ProfileCache, raw: redis.Redis
) -> None:
    """Whoever can write to the store must not be able to run code in the proxy."""
    bomb = pickle.dumps(Bomb())
    raw.set("pp:k", b"!" + bomb, px=60_000)
    raw.set("pp:l", bomb, px=60_000)

    assert cache.get("k") == b"!" + bomb
    assert cache.get_many("k", "l") == [b"!" + bomb, bomb]
    assert cache.get_dict("l") == {"l": bomb}
    assert not Bomb.went_off


def test_what_is_not_there_is_none(cache: ProfileCache) -> None:
    """None is the only miss there is."""
    assert cache.get("k") is None
    assert not cache.has("k")
    assert cache.delete("k") is False
    assert cache.delete_many() == []


def test_a_second_set_overwrites_value_and_time(
    cache: ProfileCache, raw: redis.Redis
) -> None:
    """The old time does not stay with the new value."""
    cache.set("k", b"old", timeout=1000)

    assert cache.set("k", b"new", timeout=10) is True

    assert cache.get("k") == b"new"
    assert milliseconds_left(raw, "k") <= 10_000


def test_what_is_deleted_is_gone(cache: ProfileCache) -> None:
    """And says so, once."""
    cache.set("k", b"x")

    assert cache.has("k")
    assert cache.delete("k") is True
    assert not cache.has("k")
    assert cache.delete("k") is False


def test_many_are_set_read_and_deleted_together(
    cache: ProfileCache, raw: redis.Redis
) -> None:
    """In the order asked for, with None for what is not there."""
    kept = cache.set_many({"a": b"1", "b": b"2", "c": b"3"}, timeout=10)

    assert kept == ["a", "b", "c"]
    assert cache.get_many("c", "nobody", "a") == [b"3", None, b"1"]
    assert cache.get_dict("b", "nobody") == {"b": b"2", "nobody": None}
    assert all(0 < milliseconds_left(raw, key) <= 10_000 for key in "abc")
    assert cache.delete_many("a", "nobody", "b") == ["a", "nobody", "b"]
    assert cache.get_many("a", "b", "c") == [None, None, b"3"]


def test_setting_nothing_at_all_is_no_error(cache: ProfileCache) -> None:
    """A page of ids can be empty."""
    assert cache.set_many({}) == []


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
@pytest.mark.parametrize("write", ["set", "add", "set_many"])
def test_a_timeout_is_kept_to_the_millisecond(
    cache: ProfileCache,
    raw: redis.Redis,
    write: str,
    timeout: float | timedelta | None,
    milliseconds: int,
) -> None:
    """Never rounded up to whole seconds; None means the default."""
    if write == "set_many":
        cache.set_many({"k": b"x"}, timeout)
    else:
        getattr(cache, write)("k", b"x", timeout)

    assert milliseconds - 200 < milliseconds_left(raw, "k") <= milliseconds


def test_what_has_had_its_time_is_gone(cache: ProfileCache, raw: redis.Redis) -> None:
    """A fraction of a second is a time like any other."""
    cache.set("k", b"x", timeout=0.02)

    expires_at = raw.pexpiretime("pp:k")
    while (now := _server_milliseconds(raw)) <= expires_at:
        assert expires_at - now <= 20

    assert cache.get("k") is None


def _server_milliseconds(raw: redis.Redis) -> int:
    seconds, microseconds = raw.time()
    return int(seconds * 1000 + microseconds // 1000)


@pytest.mark.parametrize("timeout", NO_TIMEOUT, ids=str)
@pytest.mark.parametrize("write", ["set", "add", "set_many"])
def test_no_time_is_an_error_and_never_for_ever(
    cache: ProfileCache, raw: redis.Redis, write: str, timeout: float | timedelta
) -> None:
    """Flask-Caching reads zero as "for ever"; we keep nothing for ever."""
    with pytest.raises(ValueError):
        if write == "set_many":
            cache.set_many({"k": b"x"}, timeout)
        else:
            getattr(cache, write)("k", b"x", timeout)

    assert raw.dbsize() == 0


def test_add_leaves_alone_what_is_there(cache: ProfileCache, raw: redis.Redis) -> None:
    """Neither its value nor its time changes."""
    cache.set("k", b"first", timeout=10)

    assert cache.add("k", b"second", timeout=1000) is False

    assert cache.get("k") == b"first"
    assert milliseconds_left(raw, "k") <= 10_000


def test_add_has_one_winner_among_many_threads(
    cache: ProfileCache, raw: redis.Redis
) -> None:
    """Looking, setting and expiring are one command, so nobody comes between."""
    line = threading.Barrier(THREADS)

    def race(runner: int) -> bool:
        line.wait()
        return cache.add("k", str(runner).encode(), timeout=10)

    with ThreadPoolExecutor(THREADS) as pool:
        won = list(pool.map(race, range(THREADS)))

    assert won.count(True) == 1
    assert cache.get("k") == str(won.index(True)).encode()
    assert 0 < milliseconds_left(raw, "k") <= 10_000


def test_counts_go_up_and_down(cache: ProfileCache) -> None:
    """From nothing, or from what is there."""
    cache.set("there", b"40")

    assert cache.inc("new") == 1
    assert cache.inc("new", 4) == 5
    assert cache.dec("new", 2) == 3
    assert cache.dec("down") == -1
    assert cache.inc("there", 2) == 42
    assert cache.get("there") == b"42"


def test_a_count_is_exact_under_many_threads(cache: ProfileCache) -> None:
    """No count is lost between two who count at once."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: cache.inc("k"), range(200)))

    assert cache.get("k") == b"200"


@pytest.mark.parametrize("count", ["inc", "dec"])
def test_a_count_lasts_for_the_default_time(
    cache: ProfileCache, raw: redis.Redis, count: str
) -> None:
    """Redis's own INCR would make a key that lasts for ever."""
    getattr(cache, count)("k")

    assert 0 < milliseconds_left(raw, "k") <= DEFAULT_TTL * 1000


def test_nothing_is_kept_for_ever(cache: ProfileCache, raw: redis.Redis) -> None:
    """Whatever was called, in whatever order, every key has a time to go."""
    cache.set("a", b"1")
    cache.add("b", b"1")
    cache.add("b", b"2")
    cache.set_many({"a": b"2", "c": b"1"})
    cache.inc("d")
    cache.dec("a")
    cache.set("d", b"9")

    left = {key: raw.pttl(key) for key in raw.scan_iter()}

    assert len(left) == 4
    assert all(milliseconds > 0 for milliseconds in left.values())


def test_clear_removes_ours_and_nobody_elses(
    cache: ProfileCache, raw: redis.Redis
) -> None:
    """A neighbour whose prefix begins like ours is somebody else too."""
    plant(raw, *FOREIGN)
    cache.set_many({"a": b"1", "e:{default:12345}": b"2", "pp2:x": b"3"})

    assert cache.clear() is True

    assert {key.decode() for key in raw.scan_iter()} == set(FOREIGN)
    assert cache.clear() is False


def test_clear_finds_thousands_among_thousands(
    cache: ProfileCache, raw: redis.Redis
) -> None:
    """Slice by slice, to the end of the database."""
    cache.set_many({f"ours{number}": b"x" for number in range(MANY)})
    pipe = raw.pipeline(transaction=False)
    for number in range(MANY):
        pipe.set(f"theirs{number}", b"x", px=60_000)
    pipe.execute()

    assert cache.clear() is True

    assert list(cache.scan("*")) == []
    assert raw.dbsize() == MANY


@pytest.mark.parametrize("store_url", REAL_STORES, indirect=True)
def test_clear_never_stops_the_whole_server(
    cache: ProfileCache, raw: redis.Redis
) -> None:
    """KEYS and DEL of many keys would; FLUSHDB would take everybody's."""
    cache.set_many({f"ours{number}": b"x" for number in range(3000)})
    raw.config_resetstat()

    cache.clear()

    ran = {command.removeprefix("cmdstat_") for command in raw.info("commandstats")}
    assert ran & {"keys", "flushdb", "flushall", "del"} == set()
    assert {"scan", "unlink"} <= ran


def test_a_scan_meets_every_key_in_slices(cache: ProfileCache) -> None:
    """Whole keys, at least once, and only those that fit the pattern."""
    cache.set_many({f"e:{number}": b"x" for number in range(MANY)})
    cache.set_many({f"l:{number}": b"x" for number in range(MANY)})

    slices = list(cache.scan("e:*"))

    assert len(slices) > 1
    assert all(slices)
    assert max(map(len, slices)) <= 500, "others wait meanwhile"
    assert {key for keys in slices for key in keys} == {
        f"pp:e:{number}".encode() for number in range(MANY)
    }


def test_all_that_fit_a_pattern_are_removed_and_counted_once(
    cache: ProfileCache,
) -> None:
    """Though a scan names keys again while their table shrinks."""
    cache.set_many({f"e:{number}": b"x" for number in range(20_000)})
    cache.set("l:1", b"x")

    assert cache.remove("e:*") == (20_000, 20_000)
    assert cache.remove("e:*") == (0, 0)
    assert cache.has("l:1")


def test_of_each_slice_that_is_removed_which_is_picked(cache: ProfileCache) -> None:
    """What has gone meanwhile was picked, but not removed."""
    cache.set_many({f"e:{number}": b"x" for number in range(MANY)})

    def pick(keys: list[bytes]) -> list[bytes]:
        if b"pp:e:7" in keys:
            cache.delete("e:7")
        return [key for key in keys if key.endswith(b"7")]

    sevens = len([number for number in range(MANY) if number % 10 == 7])
    assert cache.remove("e:*", pick) == (sevens, sevens - 1)
    rest = MANY - sevens
    assert cache.remove("e:*") == (rest, rest)
