"""A client for a Redis Cluster: each command goes to the primary that has its keys.

Not redis-py's RedisCluster. That one connects when it is made, asks all nodes for the
layout within whichever call has just failed, sleeps in it, loads a script on every
primary or fails, and repeats a pipeline that met a hanging node command by command: one
node can hold a call for minutes. Here a node is what a single server is elsewhere, with
the same client, timeouts and retries, and what fails has cost what it costs there.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import redis
from redis.commands.core import Script
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import ClusterDownError, MovedError, NoScriptError

ASK_AGAIN_AFTER = 0.5
"""Seconds between two questions for the layout, unless a node has told us to look."""

ASKING_FOR = 0.3
"""Seconds after which no further node is asked for the layout: one may have hung."""

_OF_MANY_SLOTS = {"MGET", "DEL", "UNLINK", "EXISTS"}
"""Commands whose keys may be of several slots; a server then takes them one by one."""

Address = tuple[str, int]
Key = TypeVar("Key", str, bytes)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Layout:
    """Which primary has which slots: from, to (both included), and where it is."""

    ranges: tuple[tuple[int, int, Address], ...]

    @property
    def primaries(self) -> list[Address]:
        return sorted({address for _, _, address in self.ranges})

    def home(self, slot: int) -> Address:
        nearest = bisect_right(self.ranges, (slot, REDIS_CLUSTER_HASH_SLOTS)) - 1
        if nearest >= 0 and slot <= self.ranges[nearest][1]:
            return self.ranges[nearest][2]
        raise redis.ConnectionError(f"no node of the Cluster has slot {slot}")


class Cluster(redis.Redis):
    """Every primary behind one client; connects to nothing before it is used.

    A command without a key is for one of `nodes`; ``PING`` asks all of them. While
    a slot is on its way from node to node, what is in it cannot be reached.
    """

    def __init__(
        self, seeds: Sequence[Address], node: Callable[[str, int], redis.Redis]
    ) -> None:
        """*seeds* are some of the nodes; *node* makes the client of one."""
        super().__init__(protocol=2)  # its own pool stays empty
        self.seeds = list(seeds)
        self.node = node
        self._clients: dict[Address, redis.Redis] = {}
        self._layout: Layout | None = None
        self._in_doubt = False
        self._ask_at = 0.0
        self._suspects: set[Address] = set()
        self._asking = threading.Lock()
        self._lock = threading.Lock()

    def execute_command(self, *args: Any, **options: Any) -> Any:
        name = args[0]
        if name == "PING":
            return all([self._at(a, redis.Redis.ping) for a in self.layout().primaries])
        keys = _keys(args)
        if name in _OF_MANY_SLOTS and len(set(map(self._slot, keys))) > 1:
            return self._one_by_one(name, keys)
        [(_, reply)] = self.spread(
            keys[:1], lambda node, _: node.execute_command(*args, **options)
        )
        return reply

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Any:
        """There is none: a pipeline is one connection. See `spread`."""
        raise TypeError("a Cluster has no pipeline; take that of a node")

    def register_script(self, script: Any) -> Script:
        """A script that a node learns when it is first asked to run it."""
        return _Script(self, script)

    def spread(
        self, keys: Iterable[Key], do: Callable[[redis.Redis, list[Key]], T]
    ) -> list[tuple[list[Key], T]]:
        """What *do* gives for each node, with the *keys* that are there.

        All of it is done twice if a key turns out to have moved.
        """
        keys = list(keys)
        try:
            return self._spread(keys, do)
        except MovedError:
            self._doubt()
            return self._spread(keys, do)

    def nodes(self) -> list[redis.Redis]:
        """A client for each primary."""
        return [self._client(address) for address in self.layout().primaries]

    def home(self, key: str | bytes) -> Address:
        """Where *key* is, as far as is known."""
        return self.layout().home(self._slot(key))

    def tag(self, node: redis.Redis) -> str:
        """A hash tag whose keys are on *node*."""
        layout = self.layout()
        for number in range(2**20):
            if self._client(layout.home(key_slot(b"%d" % number))) is node:
                return f"{{{number}}}"
        raise redis.ConnectionError("a node has no slots any more")

    def layout(self, *, fresh: bool = False) -> Layout:
        """Who has which slots, as far as is known; with *fresh*, as it is now.

        After a node has failed, one thread asks the others while the rest go on
        with what they know. Where nothing is known, a failure is not repeated at
        once, so that those who queue here do not wait for one another's timeouts.
        """
        known = self._layout
        must = fresh or known is None
        if not must and not (self._in_doubt and time.monotonic() >= self._ask_at):
            return cast(Layout, known)
        if not self._asking.acquire(blocking=must):
            return cast(Layout, known)
        try:
            return self._asked(known, fresh)
        finally:
            self._asking.release()

    def close(self) -> None:
        super().close()
        for client in list(getattr(self, "_clients", {}).values()):
            client.close()

    def _asked(self, known: Layout | None, fresh: bool) -> Layout:
        if self._layout is not None and self._layout is not known and not fresh:
            return self._layout
        if self._layout is None and time.monotonic() < self._ask_at:
            raise redis.ConnectionError("no node of the Cluster answered just now")
        try:
            self._in_doubt = False
            self._layout = self._ask()
        except redis.RedisError:
            self._in_doubt = True
            if fresh or known is None:
                raise
        finally:
            self._ask_at = time.monotonic() + ASK_AGAIN_AFTER
        return cast(Layout, self._layout)

    def _ask(self) -> Layout:
        """Ask one node after the other, those that have failed last."""
        known = self._layout.primaries if self._layout else []
        places = dict.fromkeys([*known, *self.seeds])
        deadline = time.monotonic() + ASKING_FOR
        for address in sorted(places, key=self._suspects.__contains__):
            try:
                told = self._at(
                    address, redis.Redis.execute_command, "CLUSTER", "SLOTS"
                )
            except redis.RedisError:
                if time.monotonic() > deadline:
                    break
                continue
            layout = _layout(told, address)
            self._forget_others(layout)
            return layout
        raise redis.ConnectionError("no node of the Cluster answers")

    def _spread(
        self, keys: list[Key], do: Callable[[redis.Redis, list[Key]], T]
    ) -> list[tuple[list[Key], T]]:
        homes: dict[Address, list[Key]] = {}
        layout = self.layout()
        try:
            for key in keys:
                homes.setdefault(layout.home(self._slot(key)), []).append(key)
        except redis.ConnectionError:
            self._in_doubt = True
            raise
        return [
            (there, self._at(address, do, there)) for address, there in homes.items()
        ]

    def _one_by_one(self, name: str, keys: list[str | bytes]) -> Any:
        """One trip to each node, with a command for each key."""

        def ask(node: redis.Redis, there: list[Any]) -> list[Any]:
            pipe = node.pipeline(transaction=False)
            for key in there:
                pipe.execute_command(name, key)
            return pipe.execute()

        spread = self.spread(cast("list[bytes]", keys), ask)
        if name != "MGET":
            return sum(sum(replies) for _, replies in spread)
        found = {
            key: value
            for there, replies in spread
            for key, [value] in zip(there, replies, strict=True)
        }
        return [found[key] for key in cast("list[bytes]", keys)]

    def _at(self, address: Address, do: Callable[..., T], *args: object) -> T:
        try:
            done = do(self._client(address), *args)
        except (redis.ConnectionError, redis.TimeoutError, ClusterDownError):
            self._suspects.add(address)
            self._in_doubt = True
            raise
        if self._suspects:
            self._suspects.discard(address)
        return done

    def _doubt(self) -> None:
        """Have the next one ask for the layout, however lately it was asked for."""
        self._in_doubt, self._ask_at = True, 0.0

    def _client(self, address: Address) -> redis.Redis:
        client = self._clients.get(address)
        if client is None:
            with self._lock:
                client = self._clients.get(address) or self.node(*address)
                self._clients[address] = client
        return client

    def _forget_others(self, layout: Layout) -> None:
        with self._lock:
            kept = {*layout.primaries, *self.seeds}
            gone = [self._clients.pop(a) for a in self._clients.keys() - kept]
            self._suspects &= kept
        for client in gone:
            client.close()

    def _slot(self, key: str | bytes) -> int:
        return key_slot(self.get_encoder().encode(key))


class _Script(Script):
    """A script that is sent along to a node that does not know it yet."""

    def __call__(self, keys: Any = None, args: Any = None, client: Any = None) -> Any:
        client = client or self.registered_client
        keys, args = list(keys or []), list(args or [])
        try:
            return client.evalsha(self.sha, len(keys), *keys, *args)
        except NoScriptError:
            return client.eval(self.script, len(keys), *keys, *args)


def _keys(args: Sequence[Any]) -> list[Any]:
    """The keys that a command names, or the first of them."""
    name, *rest = args
    if name in ("EVAL", "EVALSHA"):
        rest = rest[2 : 2 + int(rest[1])]
    elif name not in _OF_MANY_SLOTS:
        rest = rest[:1]
    if not rest:
        raise redis.DataError(f"{name} names no key: ask one of the nodes")
    return rest


def _layout(told: list[list[Any]], teller: Address) -> Layout:
    """Read the reply to CLUSTER SLOTS of the node at *teller*.

    A node that does not know its own name says nothing, or null.
    Source: https://redis.io/docs/latest/commands/cluster-slots/
    """
    return Layout(
        tuple(
            sorted(
                (first, last, ((host or b"").decode() or teller[0], port))
                for first, last, (host, port, *_), *_ in told
            )
        )
    )
