"""A person's keys, and the guarded trips to the node that holds them.

A person has up to four keys, in one hash tag so that every script touches one
slot of a Cluster:

    pp:e:{page:igsid}   the entry: an outcome and the moments that bound its use
    pp:l:{page:igsid}   the lease: who may write the entry, and is asking Meta now
    pp:n:{page:igsid}   the note: how the last flight failed, for its followers
    pp:w:{page:igsid}   the marker: the person has written to the business lately

(pp:r:{...} exists for a moment when replicas are waited for, or readyz probes.)
"""

from __future__ import annotations

from typing import cast

from redis.commands.core import Script

from proxy.domain.profile import Igsid
from proxy.storage.fast_reader import tagged
from proxy.storage.flask_cache import ProfileCache
from proxy.storage.store_guard import GuardedCall, StoreGuard

KINDS = ("e", "l", "n", "w")
"""A person's keys: entry, lease, note, and the marker."""


class PersonKeys:
    """The keys of one Page's people."""

    def __init__(self, cache: ProfileCache, guard: StoreGuard, page: str) -> None:
        self.prefix = f"{page}:"
        self._nodes = cache.nodes
        self._keyspace = cache.keyspace
        self._guard = guard

    def tag(self, igsid: Igsid) -> str:
        """The hash tag of a person's keys, which is also the near cache's key."""
        return self.prefix + igsid

    def of(self, igsid: Igsid) -> list[str]:
        """A person's keys, without the common prefix, in the order of KINDS."""
        return [tagged(kind, self.prefix + igsid) for kind in KINDS]

    def node_name(self, igsid: Igsid) -> str:
        """The name of the node that has a person's keys."""
        return self._nodes.node_name(f"{{{self.prefix}{igsid}}}")

    def guarded(self, kind: str, igsid: Igsid) -> GuardedCall:
        """Guard a call to the one node that holds all keys of a person."""
        return self._guard.call(kind, self.node_name(igsid))

    def run(
        self, script: Script, igsid: Igsid, *args: str | bytes | int
    ) -> list[bytes | None]:
        """Run *script* on a person's keys."""
        keys = [self._keyspace.whole_key(key) for key in self.of(igsid)]
        return cast("list[bytes | None]", script(keys=keys, args=args))
