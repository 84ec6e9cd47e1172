"""Entries written directly into a store, encoded as this service does.

For rows that need more people than could be fetched in their time. The profiles are
those of the simulator's crowd.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import redis

from proxy.domain.entry import Entry
from proxy.domain.profile import DEFAULT_PAGE, FIELDS, Igsid, Profile
from proxy.simulator import people
from proxy.simulator.pictures import signed_url
from proxy.storage.codec import encode

FRESH_FOR, USABLE_FOR = 3600.0, 86400.0
AT_ONCE = 2000

PICTURES_AT = "https://scontent.cdninstagram.com"
"""With this host the links are as long as real ones."""


def key(igsid: str) -> str:
    """Return an entry's key: see "One writer per entry" in docs/architecture.md."""
    return f"pp:e:{{{DEFAULT_PAGE}:{igsid}}}"


def entries(igsids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield the key and the encoded entry of each, fresh for an hour from now."""
    now = time.time()
    return ((key(igsid), _encoded(igsid, now)) for igsid in igsids)


def alike(igsids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield the same faster: all have the name and the picture of the first."""
    first = igsids[0]
    value = _encoded(first, time.time())
    for igsid in igsids:
        yield key(igsid), value.replace(first.encode(), igsid.encode())


def _encoded(igsid: str, now: float) -> bytes:
    expires_at = now + people.PICTURE_LIFE
    fields: dict[str, Any] = {**dict.fromkeys(FIELDS), **people.generate(igsid).profile}
    fields["profile_pic"] = signed_url(PICTURES_AT, igsid, int(expires_at))
    profile = Profile(Igsid(igsid), **fields, picture_expires_at=float(int(expires_at)))
    return encode(Entry(profile, now, now + FRESH_FOR, now + USABLE_FOR))


def fill(store_url: str, pairs: Iterable[tuple[str, bytes]]) -> None:
    """Write all *pairs* of key and value with a TTL, as the service does."""
    milliseconds = int(USABLE_FOR * 1000)
    with redis.Redis.from_url(store_url) as client:
        rest = iter(pairs)
        while some := list(islice(rest, AT_ONCE)):
            pipe = client.pipeline(transaction=False)
            for name, value in some:
                pipe.set(name, value, px=milliseconds)
            pipe.execute()


def used_bytes(store_url: str) -> int:
    """Return the memory that the engine reports: ``used_memory``.

    Source: https://redis.io/docs/latest/commands/info/
    """
    with redis.Redis.from_url(store_url) as client:
        return int(client.info("memory")["used_memory"])
