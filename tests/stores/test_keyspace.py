"""Scans and removals under our prefix, on every kind of store."""

from collections.abc import Iterable

import pytest
import redis

from proxy.storage.flask_cache import ProfileCache
from proxy.storage.keyspace import Keyspace
from tests.helpers.redis_servers import REAL_STORES

MANY = 5000

FOREIGN = ("pp2:x", "pp", "ppp:x", "other:pp:x", "session:1")
"""Keys of others in the same database, as near to our prefix as can be."""


@pytest.fixture
def keyspace(cache: ProfileCache) -> Keyspace:
    return cache.keyspace


def plant(raw: redis.Redis, keys: Iterable[str]) -> None:
    """Store all of these whole keys."""
    pipe = raw.pipeline(transaction=False)
    for key in keys:
        pipe.set(key, b"x", px=60_000)
    pipe.execute()


def test_remove_leaves_the_keys_of_other_applications(
    keyspace: Keyspace, raw: redis.Redis
) -> None:
    """Even if their prefix begins like ours."""
    plant(raw, [*FOREIGN, "pp:a", "pp:e:{default:12345}", "pp:pp2:x"])

    assert keyspace.remove("*") == (3, 3)

    assert {key.decode() for key in raw.scan_iter()} == set(FOREIGN)
    assert keyspace.remove("*") == (0, 0)


def test_remove_finds_thousands_among_thousands(
    keyspace: Keyspace, raw: redis.Redis
) -> None:
    """Slice by slice, to the end of the database."""
    plant(raw, (f"pp:ours{number}" for number in range(MANY)))
    plant(raw, (f"theirs{number}" for number in range(MANY)))

    assert keyspace.remove("*") == (MANY, MANY)

    assert list(keyspace.scan("*")) == []
    assert raw.dbsize() == MANY


@pytest.mark.parametrize("store_url", REAL_STORES, indirect=True)
def test_remove_never_blocks_the_whole_server(
    keyspace: Keyspace, raw: redis.Redis
) -> None:
    """KEYS and DEL of many keys would; FLUSHDB would remove others' keys too."""
    plant(raw, (f"pp:ours{number}" for number in range(3000)))
    raw.config_resetstat()

    keyspace.remove("*")

    ran = {command.removeprefix("cmdstat_") for command in raw.info("commandstats")}
    assert ran & {"keys", "flushdb", "flushall", "del"} == set()
    assert {"scan", "unlink"} <= ran


def test_scan_finds_every_key_in_slices(keyspace: Keyspace, raw: redis.Redis) -> None:
    """Whole keys, at least once, and only those that fit the pattern."""
    plant(raw, (f"pp:e:{number}" for number in range(MANY)))
    plant(raw, (f"pp:l:{number}" for number in range(MANY)))

    slices = list(keyspace.scan("e:*"))

    assert len(slices) > 1
    assert all(slices)
    assert max(map(len, slices)) <= 500, "others wait meanwhile"
    assert {key for keys in slices for key in keys} == {
        f"pp:e:{number}".encode() for number in range(MANY)
    }


def test_remove_counts_each_key_of_a_pattern_once(
    keyspace: Keyspace, raw: redis.Redis
) -> None:
    """Though a scan returns keys again while their table shrinks."""
    plant(raw, (f"pp:e:{number}" for number in range(20_000)))
    plant(raw, ["pp:l:1"])

    assert keyspace.remove("e:*") == (20_000, 20_000)
    assert keyspace.remove("e:*") == (0, 0)
    assert raw.exists("pp:l:1")


def test_remove_takes_of_each_slice_the_picked_keys(
    keyspace: Keyspace, raw: redis.Redis
) -> None:
    """A key that is gone meanwhile counts as picked, but not as removed."""
    plant(raw, (f"pp:e:{number}" for number in range(MANY)))

    def pick(keys: list[bytes]) -> list[bytes]:
        if b"pp:e:7" in keys:
            raw.delete("pp:e:7")
        return [key for key in keys if key.endswith(b"7")]

    sevens = len([number for number in range(MANY) if number % 10 == 7])
    assert keyspace.remove("e:*", pick) == (sevens, sevens - 1)
    rest = MANY - sevens
    assert keyspace.remove("e:*") == (rest, rest)
