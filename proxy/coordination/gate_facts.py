"""What has closed the gates of several Pages and is not over, read in one trip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from proxy.coordination.gate_keys import GateKeys
from proxy.domain.failures import Cause
from proxy.storage.nodes import Nodes
from proxy.storage.store_guard import StoreGuard


class GateFacts(NamedTuple):
    """The causes that have closed a Page's gate, with no success since.

    They stay when the time of their closure is over, until a call has shown that they
    are; and for an hour at most. *lacks_permission* is that of `GateState`.
    """

    causes: tuple[Cause, ...]
    lacks_permission: bool


def read_facts(
    nodes: Nodes, guard: StoreGuard, gates: Sequence[tuple[GateKeys, str]]
) -> list[GateFacts]:
    """Read the facts of *gates*, each with the digest of its token in use.

    One trip to each node, however many Pages.

    Raises:
        StoreUnavailable: the store cannot be reached.
    """
    by_first = {keys.token: (keys, digest) for keys, digest in gates}

    def read(node: Any, firsts: list[str]) -> list[Any]:
        pipe = node.pipeline(transaction=False)
        for first in firsts:
            keys, digest = by_first[first]
            for cause in keys.causes(digest).values():
                pipe.hget(cause, "level")
            pipe.hget(keys.verdict, "is_refused")
        return list(pipe.execute())

    with guard.call("reads"):
        spread = nodes.spread(list(by_first), read)
    found = {}
    each = len(Cause) + 1
    for firsts, replies in spread:
        for number, first in enumerate(firsts):
            *levels, refused = replies[number * each : (number + 1) * each]
            causes = [c for c, level in zip(Cause, levels, strict=True) if level]
            found[first] = GateFacts(tuple(causes), refused == b"1")
    return [found[keys.token] for keys, _ in gates]
