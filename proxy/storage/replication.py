"""Writes that every replica has confirmed, so that no fail-over undoes them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import redis

from proxy.storage.nodes import Nodes, history, replication_info, without_info

REPLICATED_WITHIN = 0.1
"""Seconds that replicas have to confirm what was written.

A server notices up to a tenth of a second late that they are over, and its answer must
still come in time.
"""


class NotReplicated(redis.RedisError):
    """Some replica does not have what was written, and could bring the old back."""


class Replication:
    """The replicas of all nodes."""

    def __init__(self, nodes: Nodes, prefix: str) -> None:
        """The keys that are written begin with *prefix*."""
        self._nodes = nodes
        self._prefix = prefix

    def run_replicated(
        self,
        script: str,
        groups: Sequence[Sequence[str]],
        args: Sequence[str | bytes | int] = (),
    ) -> list[Any]:
        """Run *script* on each of the *groups* of keys, so that no fail-over undoes it.

        The keys of a group are in one slot, and no key is in two groups. One trip to
        each server that has some of them and no replica. Otherwise all replicas that
        their primary knows have confirmed it too, with another trip; and one to a
        Sentinel, where there is one.

        Raises:
            NotReplicated: not all of them have, in time; the script was run.
        """
        self._nodes.find_master()
        groups = [[self._prefix + key for key in keys] for keys in groups]
        by_first = {keys[0]: keys for keys in groups}

        def run(node: redis.Redis, node_keys: list[str]) -> list[Any]:
            pipe = node.pipeline(transaction=False)
            for first in node_keys:
                pipe.eval(script, len(by_first[first]), *by_first[first], *args)
            pipe.info("replication")
            *replies, info = pipe.execute(raise_on_error=False)
            for reply in replies:
                if isinstance(reply, Exception):
                    raise reply
            self._await_replicas(node, without_info(info), _tag(node_keys[0]))
            return replies

        found = {
            first: reply
            for node_keys, replies in self._nodes.spread(list(by_first), run)
            for first, reply in zip(node_keys, replies, strict=True)
        }
        return [found[first] for first in by_first]

    def await_replicas(self) -> None:
        """Wait until all replicas have what any connection has written until now.

        Raises:
            NotReplicated: they have not, in time.
        """
        for node in self._nodes.clients():
            tag = self._nodes.hash_tag(node)
            self._await_replicas(node, replication_info(node), tag)

    def _await_replicas(
        self, node: redis.Redis, written: dict[str, Any], tag: str
    ) -> None:
        """Wait for the replicas that *node* reported when it had *written*.

        Or for as many as a Sentinel counts, if that is more: one of them may be about
        to lead, and *node* may have lost it.

        WAIT is about the last write of its own connection, which may be any of
        the pool's, and an erase that finds nothing writes nothing. So a key is
        written first, under *tag*, after all that was written before. A server
        of another history is not the one that was written to.
        Source: https://redis.io/docs/latest/commands/wait/
        """
        replicas = int(written.get("connected_slaves", 0))
        replicas = max(replicas, self._nodes.count_replicas())
        if not replicas:
            return
        last_write = f"{self._prefix}r:{tag}"
        pipe = node.pipeline(transaction=False)
        pipe.set(last_write, b"", px=1000)
        pipe.unlink(last_write)
        pipe.wait(replicas, math.floor(REPLICATED_WITHIN * 1000))
        pipe.info("replication")
        *_, confirmed, info = pipe.execute()
        if confirmed < replicas or history(info) != history(written):
            raise NotReplicated(
                f"{confirmed} of {replicas} replicas have what was written"
            )


def _tag(key: str) -> str:
    """The hash tag of *key*; a tag of its own if it has none."""
    _, brace, rest = key.partition("{")
    return f"{{{rest.partition('}')[0] if brace else key}}}"
