"""A client for a Redis Cluster: each command goes to the primary that has its keys.

Not redis-py's RedisCluster. That one connects when it is made, asks all nodes for the
layout within the call that has just failed, sleeps in it, loads a script on every
primary or fails, and repeats a pipeline that met a hanging node command by command: one
node can hold a call for minutes. Here a node is treated as a single server is
elsewhere, with the same client, timeouts and retries, and a failure costs the same.

Only `proxy.storage.nodes` knows this class, beside the factory. It is a `redis.Redis`
so that commands and scripts are sent to it as to one server; only `pipeline` raises.
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
"""Seconds between two questions for the layout, unless a node has redirected us."""

ASKING_FOR = 0.3
"""Seconds after which no further node is asked for the layout: one may be hanging."""

_OF_MANY_SLOTS = {"MGET", "DEL", "UNLINK", "EXISTS"}
"""Commands whose keys may be of several slots; each key is then sent by itself."""

Address = tuple[str, int]
Key = TypeVar("Key", str, bytes)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Layout:
    """Which primary has which slots: first, last (both included), and its address."""

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
    a slot is being moved from node to node, its keys cannot be reached.
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
        self._is_outdated = False
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
        """Raise TypeError: a pipeline is one connection. See `spread`."""
        raise TypeError("a Cluster has no pipeline; use that of a node")

    def register_script(self, script: Any) -> Script:
        """A script that is loaded into a node when it first runs there."""
        return _Script(self, script)

    def spread(
        self, keys: Iterable[Key], do: Callable[[redis.Redis, list[Key]], T]
    ) -> list[tuple[list[Key], T]]:
        """Call *do* for each node with the *keys* that it has; pair keys and results.

        All calls are repeated if a key turns out to have moved.
        """
        keys = list(keys)
        try:
            return self._spread(keys, do)
        except MovedError:
            self._expire_layout()
            return self._spread(keys, do)

    def nodes(self) -> list[redis.Redis]:
        """A client for each primary."""
        return [self._client(address) for address in self.layout().primaries]

    def home(self, key: str | bytes) -> Address:
        """The address of the node that has *key*, by the layout last read."""
        return self.layout().home(self._slot(key))

    def tag(self, node: redis.Redis) -> str:
        """A hash tag whose keys are on *node*."""
        layout = self.layout()
        for number in range(2**20):
            if self._client(layout.home(key_slot(b"%d" % number))) is node:
                return f"{{{number}}}"
        raise redis.ConnectionError("a node has no slots any more")

    def layout(self, *, fresh: bool = False) -> Layout:
        """Which node has which slots, as last read; with *fresh*, as it is now.

        After a node has failed, one thread asks the other nodes while all other threads
        go on with the previous layout. Without one, a failure is not repeated at
        once, so that threads that queue here do not wait for one another's timeouts.
        """
        previous = self._layout
        must = fresh or previous is None
        if not must and not (self._is_outdated and time.monotonic() >= self._ask_at):
            return cast(Layout, previous)
        if not self._asking.acquire(blocking=must):
            return cast(Layout, previous)
        try:
            return self._read_layout(previous, fresh)
        finally:
            self._asking.release()

    def close(self) -> None:
        super().close()
        for client in list(getattr(self, "_clients", {}).values()):
            client.close()

    def _read_layout(self, previous: Layout | None, fresh: bool) -> Layout:
        if self._layout is not None and self._layout is not previous and not fresh:
            return self._layout
        if self._layout is None and time.monotonic() < self._ask_at:
            raise redis.ConnectionError("no node of the Cluster answered just now")
        try:
            self._is_outdated = False
            self._layout = self._ask()
        except redis.RedisError:
            self._is_outdated = True
            if fresh or previous is None:
                raise
        finally:
            self._ask_at = time.monotonic() + ASK_AGAIN_AFTER
        return cast(Layout, self._layout)

    def _ask(self) -> Layout:
        """Ask one node after the other, nodes that have failed at the end."""
        primaries = self._layout.primaries if self._layout else []
        addresses = dict.fromkeys([*primaries, *self.seeds])
        deadline = time.monotonic() + ASKING_FOR
        for address in sorted(addresses, key=self._suspects.__contains__):
            try:
                reply = self._at(
                    address, redis.Redis.execute_command, "CLUSTER", "SLOTS"
                )
            except redis.RedisError:
                if time.monotonic() > deadline:
                    break
                continue
            layout = _layout(reply, address)
            self._forget_others(layout)
            return layout
        raise redis.ConnectionError("no node of the Cluster answers")

    def _spread(
        self, keys: list[Key], do: Callable[[redis.Redis, list[Key]], T]
    ) -> list[tuple[list[Key], T]]:
        by_home: dict[Address, list[Key]] = {}
        layout = self.layout()
        try:
            for key in keys:
                by_home.setdefault(layout.home(self._slot(key)), []).append(key)
        except redis.ConnectionError:
            self._is_outdated = True
            raise
        return [
            (node_keys, self._at(address, do, node_keys))
            for address, node_keys in by_home.items()
        ]

    def _one_by_one(self, name: str, keys: list[str | bytes]) -> Any:
        """Send a command for each key, in one trip to each node."""

        def ask(node: redis.Redis, node_keys: list[Any]) -> list[Any]:
            pipe = node.pipeline(transaction=False)
            for key in node_keys:
                pipe.execute_command(name, key)
            return pipe.execute()

        spread = self.spread(cast("list[bytes]", keys), ask)
        if name != "MGET":
            return sum(sum(replies) for _, replies in spread)
        found = {
            key: value
            for node_keys, replies in spread
            for key, [value] in zip(node_keys, replies, strict=True)
        }
        return [found[key] for key in cast("list[bytes]", keys)]

    def _at(self, address: Address, do: Callable[..., T], *args: object) -> T:
        try:
            result = do(self._client(address), *args)
        except (redis.ConnectionError, redis.TimeoutError, ClusterDownError):
            self._suspects.add(address)
            self._is_outdated = True
            raise
        if self._suspects:
            self._suspects.discard(address)
        return result

    def _expire_layout(self) -> None:
        """Make the next call ask for the layout, even if that was done just now."""
        self._is_outdated, self._ask_at = True, 0.0

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
    """A script that is sent in full to a node that has not loaded it yet."""

    def __call__(self, keys: Any = None, args: Any = None, client: Any = None) -> Any:
        client = client or self.registered_client
        keys, args = list(keys or []), list(args or [])
        try:
            return client.evalsha(self.sha, len(keys), *keys, *args)
        except NoScriptError:
            return client.eval(self.script, len(keys), *keys, *args)


def _keys(args: Sequence[Any]) -> list[Any]:
    """The keys of a command, or the first of them."""
    name, *rest = args
    if name in ("EVAL", "EVALSHA"):
        rest = rest[2 : 2 + int(rest[1])]
    elif name not in _OF_MANY_SLOTS:
        rest = rest[:1]
    if not rest:
        raise redis.DataError(f"{name} names no key: ask one of the nodes")
    return rest


def _layout(reply: list[list[Any]], sender: Address) -> Layout:
    """Read the reply to CLUSTER SLOTS of the node at *sender*.

    A node that does not know its own host name sends an empty one, or null.
    Source: https://redis.io/docs/latest/commands/cluster-slots/
    """
    return Layout(
        tuple(
            sorted(
                (first, last, ((host or b"").decode() or sender[0], port))
                for first, last, (host, port, *_), *_ in reply
            )
        )
    )
