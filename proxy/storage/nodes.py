"""One interface to the servers that have our keys: one server, Sentinels or a Cluster.

`nodes_of` chooses the implementation once, by the client.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Protocol, TypeVar

import redis
from redis.sentinel import SentinelConnectionPool

from proxy.storage.client_factory import StoreClient
from proxy.storage.cluster import Cluster
from proxy.storage.fast_reader import Kinds, tagged

T = TypeVar("T")


class Changed(redis.RedisError):
    """Servers came, went or exchanged keys during a scan: it may have missed some."""


class Reader(Protocol):
    """Reads a few keys that share a hash tag.

    Each reply is a list: the values, then, *with_life*, the milliseconds for which the
    key of the first kind lives, as PTTL reports them.
    """

    def read(
        self, prefix: str, kinds: Kinds, tag: str, *, with_life: bool
    ) -> list[Any]:
        """Read the keys of *kinds* with this hash tag."""

    def read_many(
        self, prefix: str, kinds: Kinds, tags: Sequence[str], *, with_life: bool
    ) -> list[list[Any]]:
        """`read` for each of *tags*, in one trip to each server."""


class Nodes(Protocol):
    """The servers that our keys are written to."""

    @property
    def can_track(self) -> bool:
        """Whether one connection can receive the invalidations of all keys."""

    @property
    def reader(self) -> Reader:
        """The quickest way to read that this client has."""

    def clients(self) -> list[redis.Redis]:
        """A client for each server that keys are written to."""

    def node_name(self, key: str) -> str:
        """The name of the node that has *key*: one name for keys that fail together."""

    def node_names(self) -> Collection[str]:
        """All names that `node_name` may return now; "" means all nodes together."""

    def spread(
        self, whole_keys: list[str], do: Callable[[redis.Redis, list[str]], T]
    ) -> list[tuple[list[str], T]]:
        """Call *do* for each node with the keys that it has; pair keys and results."""

    def by_slot(self, whole_keys: list[bytes]) -> list[list[bytes]]:
        """Split the keys of one node into groups that one command may name."""

    def hash_tag(self, node: redis.Redis) -> str:
        """A hash tag whose keys are on *node*."""

    def find_master(self) -> None:
        """Ask a Sentinel for the current master, and leave the previous one.

        A master that was cut off and is back has no replicas any more; but until it
        learns that, it obeys commands on a connection from before.
        """

    def count_replicas(self) -> int:
        """How many replicas a Sentinel counts, where there is one; otherwise 0."""

    def topology(self) -> list[tuple[object, ...]]:
        """The identity of each server and, on a Cluster, the slots that each reports.

        Raises:
            Changed: slots of a Cluster are being moved.
        """


def nodes_of(client: redis.Redis, prefix: str) -> Nodes:
    """The nodes behind *client*; our keys begin with *prefix*."""
    if isinstance(client, Cluster):
        return ClusterNodes(client, prefix)
    return SingleServer(client)


class SingleServer:
    """One server; it may be the master that Sentinels name."""

    can_track = True

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        pool = client.connection_pool
        self._sentinel_pool = pool if isinstance(pool, SentinelConnectionPool) else None
        self.reader: Reader = (
            client.fast_reader
            if isinstance(client, StoreClient)
            else PipelinedReader(client, self.spread)
        )

    def clients(self) -> list[redis.Redis]:
        return [self._client]

    def node_name(self, key: str) -> str:
        return ""

    def node_names(self) -> Collection[str]:
        return {""}

    def spread(
        self, whole_keys: list[str], do: Callable[[redis.Redis, list[str]], T]
    ) -> list[tuple[list[str], T]]:
        return [(whole_keys, do(self._client, whole_keys))]

    def by_slot(self, whole_keys: list[bytes]) -> list[list[bytes]]:
        return [whole_keys] if whole_keys else []

    def hash_tag(self, node: redis.Redis) -> str:
        return "{}"

    def find_master(self) -> None:
        if self._sentinel_pool is not None:
            self._sentinel_pool.get_master_address()

    def count_replicas(self) -> int:
        pool = self._sentinel_pool
        if pool is None:
            return 0
        return int(pool.sentinel_manager.count_replicas(pool.service_name))

    def topology(self) -> list[tuple[object, ...]]:
        return [history(replication_info(self._client))]


class ClusterNodes:
    """The primaries of a Cluster."""

    can_track = False  # Each node sends the invalidations of its own keys only.

    def __init__(self, cluster: Cluster, prefix: str) -> None:
        self._cluster = cluster
        self._prefix = prefix
        self.reader: Reader = PipelinedReader(cluster, self.spread)

    def clients(self) -> list[redis.Redis]:
        return self._cluster.nodes()

    def node_name(self, key: str) -> str:
        with suppress(redis.RedisError):
            return "{}:{}".format(*self._cluster.home(self._prefix + key))
        return ""

    def node_names(self) -> Collection[str]:
        with suppress(redis.RedisError):
            primaries = self._cluster.layout().primaries
            return {"", *("{}:{}".format(*address) for address in primaries)}
        return {""}

    def spread(
        self, whole_keys: list[str], do: Callable[[redis.Redis, list[str]], T]
    ) -> list[tuple[list[str], T]]:
        return self._cluster.spread(whole_keys, do)

    def by_slot(self, whole_keys: list[bytes]) -> list[list[bytes]]:
        return [[key] for key in whole_keys]

    def hash_tag(self, node: redis.Redis) -> str:
        return self._cluster.tag(node)

    def find_master(self) -> None:
        """Do nothing: replicas of a Cluster are promoted by its nodes."""

    def count_replicas(self) -> int:
        return 0

    def topology(self) -> list[tuple[object, ...]]:
        self._cluster.layout(fresh=True)
        return [
            (*history(replication_info(node)), *_slots_of(node))
            for node in self._cluster.nodes()
        ]


class PipelinedReader:
    """Reads with redis-py's own commands, where there is no `FastReader`."""

    def __init__(
        self,
        client: redis.Redis,
        spread: Callable[
            [list[str], Callable[[redis.Redis, list[str]], list[list[Any]]]],
            list[tuple[list[str], list[list[Any]]]],
        ],
    ) -> None:
        """*spread* calls a function for each node with the keys that it has."""
        self._client = client
        self._spread = spread

    def read(
        self, prefix: str, kinds: Kinds, tag: str, *, with_life: bool
    ) -> list[Any]:
        keys = _keys(prefix, kinds, tag)
        lives = [self._client.pttl(keys[0])] if with_life else []
        return [self._client.mget(keys), *lives]

    def read_many(
        self, prefix: str, kinds: Kinds, tags: Sequence[str], *, with_life: bool
    ) -> list[list[Any]]:
        people = [_keys(prefix, kinds, tag) for tag in tags]
        by_first = {keys[0]: keys for keys in people}

        def read(node: redis.Redis, node_keys: list[str]) -> list[list[Any]]:
            pipe = node.pipeline(transaction=False)
            for first in node_keys:
                pipe.mget(by_first[first])
                if with_life:
                    pipe.pttl(first)
            replies, each = pipe.execute(), 1 + with_life
            return [replies[n : n + each] for n in range(0, len(replies), each)]

        found = {
            first: reply
            for node_keys, replies in self._spread(list(by_first), read)
            for first, reply in zip(node_keys, replies, strict=True)
        }
        return [found[keys[0]] for keys in people]


@contextmanager
def require_stable_topology(nodes: Nodes) -> Iterator[None]:
    """Check that no server changed meanwhile, so that scans in this block miss nothing.

    Raises:
        Changed: a server was restarted, failed over, came or went, or keys
            were being moved from one to another.
    """
    nodes.find_master()
    before = nodes.topology()
    yield
    if nodes.topology() != before:
        raise Changed("the store's servers have changed during a scan")


def replication_info(node: redis.Redis) -> dict[str, Any]:
    """INFO replication of *node*: its role, its replicas, its history."""
    try:
        return node.info("replication")
    except redis.ResponseError as exc:
        return without_info(exc)


def without_info(reply: dict[str, Any] | redis.ResponseError) -> dict[str, Any]:
    """*reply*, unless it is an error; a stand-in without INFO has no replicas."""
    if isinstance(reply, dict):
        return reply
    if str(reply).startswith("unknown command"):
        return {}
    raise reply


def history(info: dict[str, Any]) -> tuple[object, ...]:
    """The part of INFO that a server keeps only while no other took over.

    Source: https://redis.io/docs/latest/operate/oss_and_stack/management/replication/
    """
    return info.get("role"), info.get("master_replid")


def _slots_of(node: redis.Redis) -> list[bytes]:
    """The name, the epoch and the slots of a Cluster's node, as it reports them itself.

    Source: https://redis.io/docs/latest/commands/cluster-nodes/
    """
    lines = [
        line.split() for line in node.execute_command("CLUSTER", "NODES").split(b"\n")
    ]
    [mine] = [line for line in lines if len(line) > 7 and b"myself" in line[2]]
    if any(word.startswith(b"[") for word in mine[8:]):
        raise Changed("slots of the Cluster are being moved from node to node")
    return [mine[0], mine[6], *mine[8:]]


def _keys(prefix: str, kinds: Kinds, tag: str) -> list[str]:
    return [prefix + tagged(kind, tag) for kind in kinds]
