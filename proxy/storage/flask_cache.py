"""The Flask-Caching backend: what we ask of the store, on a server or on several."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cached_property
from typing import Any, TypeVar, cast

import redis
from cachelib.serializers import RedisSerializer
from flask import Flask
from flask_caching.backends.rediscache import RedisCache
from redis.sentinel import SentinelConnectionPool

from proxy.storage.client_factory import StoreClient
from proxy.storage.cluster import Cluster
from proxy.storage.fast_reader import FastReader, Kinds, tagged

REPLICATED_WITHIN = 0.1
"""Seconds that replicas have to take what was written.

A server notices that they are over up to a tenth of a second late, and its answer must
still be one in time.
"""

SLICE = 350
"""Keys looked at in one command of a scan, and then removed in one.

Others are answered between two trips. With more a flush would be over sooner, and the
slowest of the others later.
"""

WIDE_SLICE = 1000
"""Keys looked at in one command where few of them are what is looked for."""

PERSISTS, EVICTS_GATES = "store_persists", "store_evicts_gates"
CLOCK_SKEW = "clock_skew"
"""Reasons why not all is well with the store, though it answers."""

CLOCKS_DIFFER_FROM = 30.0
"""Seconds between the store's clock and ours that are too many."""

GOOD_POLICY = "allkeys-lfu"
"""A full store with another drops what ends soonest, gates first, or takes no more."""

Looked = tuple[list[bytes | None], float]
"""Values, and for how many seconds the first of them lives, if that was asked."""

Scanned = tuple[int, list[bytes]]
"""A cursor, which is 0 at the end, and whole keys."""

T = TypeVar("T")


class NotReplicated(redis.RedisError):
    """Some replica does not have what was written, and could bring the old back."""


class Changed(redis.RedisError):
    """Servers came, went or exchanged keys during a scan: it may have missed some."""


class Bytes(RedisSerializer):
    """Flask-Caching's serializer for values that are bytes already. No pickle."""

    def dumps(self, value: Any, protocol: int = 0) -> bytes:
        if not isinstance(value, bytes):
            raise TypeError(f"only bytes are stored, not {type(value).__name__}")
        return value

    def loads(self, value: bytes | None) -> bytes | None:
        return value


class ProfileCache(RedisCache):
    """Flask-Caching's Redis backend, made safe to share a database with others.

    Values are bytes and stay bytes. Every value has a TTL, which may be a
    fraction of a second. ``add`` is one command, and ``clear`` scans for our
    prefix in slices where the parent runs KEYS, or empties the database.
    """

    serializer = Bytes()

    @classmethod
    def factory(
        cls, app: Flask, config: dict[str, Any], args: list[Any], kwargs: dict[str, Any]
    ) -> ProfileCache:
        """Build from Flask-Caching's *config*; CACHE_OPTIONS has the ``client``."""
        return cls(
            host=config["CACHE_OPTIONS"]["client"],
            default_timeout=config["CACHE_DEFAULT_TIMEOUT"],
            key_prefix=config["CACHE_KEY_PREFIX"],
        )

    @property
    def client(self) -> redis.Redis:
        """The client, for what a cache's interface has no words for: scripts."""
        return cast(redis.Redis, self._write_client)

    # Asked once: redis-py's classes make `isinstance` cost a microsecond.
    @cached_property
    def _cluster(self) -> Cluster | None:
        return self.client if isinstance(self.client, Cluster) else None

    @cached_property
    def _reads(self) -> FastReader | None:
        return self.client.fast_reader if isinstance(self.client, StoreClient) else None

    def whole_key(self, key: str) -> str:
        """*key* as it stands in Redis."""
        return self._get_prefix() + key

    def read(self, kinds: Kinds, tag: str, *, with_life: bool = False) -> Looked:
        """The values of ``kind:{tag}`` for each of *kinds*; one trip of the quick kind.

        And *with_life* for how many seconds the first lives; else 0.0.
        """
        if self._reads is not None:
            prefix = self._get_prefix()
            return _looked(self._reads.read(prefix, kinds, tag, with_life=with_life))
        keys = [tagged(kind, tag) for kind in kinds]
        lives = [self.client.pttl(self.whole_key(keys[0]))] if with_life else []
        return _looked([self.get_many(*keys), *lives])

    def read_many(
        self, kinds: Kinds, tags: Sequence[str], *, with_life: bool = False
    ) -> list[Looked]:
        """`read` for each of *tags*, in one trip to each server."""
        if self._reads is not None:
            prefix = self._get_prefix()
            told = self._reads.read_many(prefix, kinds, tags, with_life=with_life)
            return [_looked(one) for one in told]
        people = [[self.whole_key(tagged(kind, tag)) for kind in kinds] for tag in tags]
        by_first = {keys[0]: keys for keys in people}

        def read(node: redis.Redis, there: list[str]) -> list[Looked]:
            pipe = node.pipeline(transaction=False)
            for first in there:
                pipe.mget(by_first[first])
                if with_life:
                    pipe.pttl(first)
            told, each = pipe.execute(), 1 + with_life
            return [_looked(told[n : n + each]) for n in range(0, len(told), each)]

        found = {
            first: looked
            for there, looks in self._spread(list(by_first), read)
            for first, looked in zip(there, looks, strict=True)
        }
        return [found[keys[0]] for keys in people]

    @property
    def tells_changes(self) -> bool:
        """Whether one connection can be told of all that changes. Not on a Cluster."""
        return self._cluster is None

    def set(
        self, key: str, value: bytes, timeout: float | timedelta | None = None
    ) -> bool:
        """Keep *value* for *timeout* seconds; None means the default timeout."""
        return bool(self._write(self.client, key, value, timeout))

    def add(
        self, key: str, value: bytes, timeout: float | timedelta | None = None
    ) -> bool:
        """As ``set``, unless something is there already; say if it was kept."""
        return bool(self._write(self.client, key, value, timeout, nx=True))

    def set_many(
        self, mapping: dict[str, bytes], timeout: float | timedelta | None = None
    ) -> list[str]:
        """``set`` for each of *mapping* in one trip; the keys that were kept."""

        def write(node: redis.Redis, whole_keys: list[str]) -> list[Any]:
            pipe = node.pipeline(transaction=False)
            for whole_key in whole_keys:
                self._write(pipe, names[whole_key], mapping[names[whole_key]], timeout)
            return pipe.execute()

        names = {self.whole_key(key): key for key in mapping}
        kept = {
            names[whole_key]
            for whole_keys, replies in self._spread(list(names), write)
            for whole_key, ok in zip(whole_keys, replies, strict=True)
            if ok
        }
        return [key for key in mapping if key in kept]

    def inc(self, key: str, delta: int = 1) -> int:
        """Count up; the count lasts for the default timeout after its last change."""

        def count(node: redis.Redis, whole_keys: list[str]) -> int:
            pipe = node.pipeline(transaction=True)
            pipe.incrby(whole_keys[0], delta)
            pipe.pexpire(whole_keys[0], self._lasting(None))
            return int(pipe.execute()[0])

        return self._spread([self.whole_key(key)], count)[0][1]

    def dec(self, key: str, delta: int = 1) -> int:
        """Count down, as ``inc`` counts up."""
        return self.inc(key, -delta)

    def clear(self) -> bool:
        """Remove what is under our prefix, and nothing else; say if there was any."""
        return self.remove("*")[1] > 0

    def scan(self, pattern: str) -> Iterator[list[bytes]]:
        """The whole keys under our prefix that fit *pattern*, in slices, of every node.

        What is there from the first slice to the last is met at least once,
        while nodes do not exchange keys (see `require_stable_topology`).
        Source: https://redis.io/docs/latest/commands/scan/#scan-guarantees
        """
        for node in self.nodes():
            cursor = None
            while cursor != 0:
                cursor, keys = node.scan(
                    cursor or 0, match=self.whole_key(pattern), count=SLICE
                )
                if keys:
                    yield cast("list[bytes]", keys)

    def remove(
        self,
        pattern: str,
        pick: Callable[[list[bytes]], list[bytes]] = lambda keys: keys,
        count: int = SLICE,
    ) -> tuple[int, int]:
        """Remove the keys that fit *pattern*, of each slice those which *pick* takes.

        How many it took, and how many of them were still there. All are met, as by
        `scan`, *count* at once: a slice is removed in the trip that looks for the
        next, which does not meet it again. Memory is freed in the background.
        """
        taken = removed = 0
        for node in self.nodes():
            match = self.whole_key(pattern)
            cursor, keys = cast(Scanned, node.scan(0, match=match, count=count))
            while keys or cursor:
                picked = pick(keys) if keys else []
                # Those of one command must be in one slot, where there are slots.
                each = [picked] if self._cluster is None else [[key] for key in picked]
                pipe = node.pipeline(transaction=False)
                for some in filter(None, each):
                    pipe.unlink(*some)
                if cursor:
                    pipe.scan(cursor, match=match, count=count)
                told = pipe.execute()
                cursor, keys = told.pop() if cursor else (0, [])
                taken += len(picked)
                removed += sum(told)
        return taken, removed

    def nodes(self) -> list[redis.Redis]:
        """A client for each server that keys are written to."""
        return [self.client] if self._cluster is None else self._cluster.nodes()

    def node_name(self, key: str) -> str:
        """Where *key* is: the same word for all that come and go together."""
        if self._cluster is not None:
            with suppress(redis.RedisError):
                return "{}:{}".format(*self._cluster.home(self.whole_key(key)))
        return ""

    def node_names(self) -> Collection[str]:
        """All that `node_name` can say at the moment; none is all of them together."""
        if self._cluster is not None:
            with suppress(redis.RedisError):
                primaries = self._cluster.layout().primaries
                return {"", *("{}:{}".format(*address) for address in primaries)}
        return {""}

    def config_warnings(self, now: Callable[[], float]) -> list[str]:
        """What of the store's own settings may break a promise, as reasons.

        A clock that is not ours, too; *now* is ours, in epoch seconds. Where the
        store does not let us ask for its settings, this is what INFO tells: whether
        there is a log of writes, but not whether of snapshots.
        """
        found = set()
        for node in self.nodes():
            pipe = node.pipeline(transaction=False)
            pipe.info("memory")
            pipe.info("persistence")
            pipe.config_get("save")
            pipe.time()
            asked_at = now()
            *replies, clock = pipe.execute(raise_on_error=False)
            told: dict[str, Any] = {}
            for reply in replies:
                if isinstance(reply, dict):
                    told |= reply
                elif not isinstance(reply, redis.ResponseError):
                    raise reply
            if told.get("aof_enabled") or told.get("save"):
                found.add(PERSISTS)
            if told.get("maxmemory_policy", GOOD_POLICY) != GOOD_POLICY:
                found.add(EVICTS_GATES)
            if _differs(clock, asked_at, now()):
                found.add(CLOCK_SKEW)
        return sorted(found)

    @contextmanager
    def require_stable_topology(self) -> Iterator[None]:
        """See to it that scans in here miss nothing.

        Raises:
            Changed: a server was restarted, failed over, came or went, or keys
                were on their way from one to another.
        """
        self._find_master()
        before = self._standing()
        yield
        if self._standing() != before:
            raise Changed("the store's servers have changed during a scan")

    def run_replicated(
        self,
        script: str,
        groups: Sequence[Sequence[str]],
        args: Sequence[str | bytes | int] = (),
    ) -> list[Any]:
        """Run *script* on each of the *groups* of keys, so that no fail-over undoes it.

        The keys of a group are in one slot, and no key is in two groups. One trip to
        each server that has some of them and no replica. Else all replicas that are
        known to their primary have answered that they have it, too, with another
        trip; and one to a Sentinel, where there is one.

        Raises:
            NotReplicated: not all of them have, in time; the script was run.
        """
        self._find_master()
        groups = [[self.whole_key(key) for key in keys] for keys in groups]
        of = {keys[0]: keys for keys in groups}

        def run(node: redis.Redis, there: list[str]) -> list[Any]:
            pipe = node.pipeline(transaction=False)
            for first in there:
                pipe.eval(script, len(of[first]), *of[first], *args)
            pipe.info("replication")
            *done, told = pipe.execute(raise_on_error=False)
            for reply in done:
                if isinstance(reply, Exception):
                    raise reply
            self._await_replicas(node, _replication(told), _tag(there[0]))
            return done

        done = {
            first: reply
            for there, replies in self._spread(list(of), run)
            for first, reply in zip(there, replies, strict=True)
        }
        return [done[first] for first in of]

    def await_replicas(self) -> None:
        """Wait until all replicas have what any connection has written until now.

        Raises:
            NotReplicated: they have not, in time.
        """
        for node in self.nodes():
            tag = "{}" if self._cluster is None else self._cluster.tag(node)
            self._await_replicas(node, _replication_of(node), tag)

    def _await_replicas(
        self, node: redis.Redis, written: dict[str, Any], tag: str
    ) -> None:
        """Wait for the replicas that *node* spoke of when it had *written*.

        Or for as many as a Sentinel knows, if that is more: one of them may be about
        to lead, and *node* not to know it any more.

        WAIT speaks of the last write of its own connection, which may be any of
        the pool's, and an erase that finds nothing writes nothing. So something
        is written first, under *tag*, that comes after all there was. A server
        of another history is not the one that was written to.
        Source: https://redis.io/docs/latest/commands/wait/
        """
        replicas = int(written.get("connected_slaves", 0))
        pool = self.client.connection_pool
        if isinstance(pool, SentinelConnectionPool):
            known = pool.sentinel_manager.count_replicas(pool.service_name)
            replicas = max(replicas, known)
        if not replicas:
            return
        last_write = self.whole_key(f"r:{tag}")
        pipe = node.pipeline(transaction=False)
        pipe.set(last_write, b"", px=1000)
        pipe.unlink(last_write)
        pipe.wait(replicas, math.floor(REPLICATED_WITHIN * 1000))
        pipe.info("replication")
        *_, answered, told = pipe.execute()
        if answered < replicas or _history(told) != _history(written):
            raise NotReplicated(
                f"{answered} of {replicas} replicas have what was written"
            )

    def _find_master(self) -> None:
        """Have a Sentinel say who leads, and leave whoever led before.

        A master that was cut off, and is back, leads nobody; but for as long as
        it is not told so it does what it is told on a connection from before.
        """
        pool = self.client.connection_pool
        if isinstance(pool, SentinelConnectionPool):
            pool.get_master_address()

    def _standing(self) -> list[tuple[object, ...]]:
        """Who the servers are, and on a Cluster what each says that it has."""
        if self._cluster is None:
            return [_history(_replication_of(self.client))]
        self._cluster.layout(fresh=True)
        return [
            (*_history(_replication_of(node)), *_slots_of(node))
            for node in self._cluster.nodes()
        ]

    def _spread(
        self, whole_keys: list[str], do: Callable[[redis.Redis, list[str]], T]
    ) -> list[tuple[list[str], T]]:
        """What *do* gives for each server, with the keys that are there."""
        if self._cluster is not None:
            return self._cluster.spread(whole_keys, do)
        return [(whole_keys, do(self.client, whole_keys))]

    def _write(
        self,
        client: redis.Redis,
        key: str,
        value: bytes,
        timeout: float | timedelta | None,
        *,
        nx: bool = False,
    ) -> object:
        whole_key, stored = self.whole_key(key), self.serializer.dumps(value)
        return client.set(whole_key, stored, px=self._lasting(timeout), nx=nx)

    def _lasting(self, timeout: float | timedelta | None) -> int:
        """*timeout* in milliseconds. Never "for ever", which the parent has 0 mean."""
        seconds = self.default_timeout if timeout is None else timeout
        if isinstance(seconds, timedelta):
            seconds = seconds.total_seconds()
        milliseconds = math.floor(seconds * 1000)
        if milliseconds < 1:
            raise ValueError(f"a TTL must be positive, not {seconds} s")
        return milliseconds


def _differs(
    clock: tuple[int, int] | redis.RedisError, asked_at: float, answered_at: float
) -> bool:
    """Whether a server's *clock*, its reply to TIME, is wrong by ours.

    It was read somewhere between two moments of ours. One that we may not ask for
    is not said to be wrong.
    Source: https://redis.io/docs/latest/commands/time/
    """
    if isinstance(clock, redis.ResponseError):
        return False
    if isinstance(clock, redis.RedisError):
        raise clock
    seconds, microseconds = clock
    server = seconds + microseconds / 1e6
    return max(server - answered_at, asked_at - server) > CLOCKS_DIFFER_FROM


def _tag(key: str) -> str:
    """The hash tag of *key*; one of its own if it has none."""
    _, brace, rest = key.partition("{")
    return f"{{{rest.partition('}')[0] if brace else key}}}"


def _replication_of(node: redis.Redis) -> dict[str, Any]:
    """What *node* says of its replicas, and of whom it is one."""
    try:
        return node.info("replication")
    except redis.ResponseError as exc:
        return _replication(exc)


def _replication(told: dict[str, Any] | redis.ResponseError) -> dict[str, Any]:
    """*told*, unless it is an error; a stand-in without INFO has no replicas."""
    if isinstance(told, dict):
        return told
    if str(told).startswith("unknown command"):
        return {}
    raise told


def _history(told: dict[str, Any]) -> tuple[object, ...]:
    """What a server has in common with its former self only while no other led.

    Source: https://redis.io/docs/latest/operate/oss_and_stack/management/replication/
    """
    return told.get("role"), told.get("master_replid")


def _slots_of(node: redis.Redis) -> list[bytes]:
    """The name, the epoch and the slots of a Cluster's node, as it says itself.

    Source: https://redis.io/docs/latest/commands/cluster-nodes/
    """
    lines = [
        line.split() for line in node.execute_command("CLUSTER", "NODES").split(b"\n")
    ]
    [mine] = [line for line in lines if len(line) > 7 and b"myself" in line[2]]
    if any(word.startswith(b"[") for word in mine[8:]):
        raise Changed("slots of the Cluster are on their way from node to node")
    return [mine[0], mine[6], *mine[8:]]


def _looked(told: list[Any]) -> Looked:
    """What MGET has *told*, and PTTL if it was asked."""
    return told[0], told[1] / 1000 if len(told) > 1 else 0.0
