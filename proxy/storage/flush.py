"""Passes over all entries: a flush removes them, a census counts them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from proxy.domain.entry import Entry
from proxy.storage.codec import decode
from proxy.storage.keyspace import WIDE_SLICE, Keyspace


@dataclass(frozen=True, slots=True)
class Flushed:
    """How many entries a flush matched, and how many of them it removed."""

    matched: int
    deleted: int


@dataclass(frozen=True, slots=True)
class Census:
    """How many entries there are of each kind; not of all, unless *is_complete*."""

    kinds: Mapping[str, int]
    is_complete: bool


def remove_entries(
    keyspace: Keyspace, tags: str, matches: Callable[[Entry | None], bool] | None
) -> Flushed:
    """Remove the entries that *matches* picks, and all leases and notes.

    *tags* is a pattern for what follows ``e:`` in a key.

    Leases and notes go first, all of them, in a pass of their own: a fetch that began
    before it has then either lost its lease or written where the second pass will find
    it. In a single pass, it could write behind the cursor.
    """
    keyspace.remove(f"[ln]:{tags}", count=WIDE_SLICE)
    return Flushed(
        *keyspace.remove(f"e:{tags}", lambda keys: _matching(keyspace, keys, matches))
    )


def match_entries(
    keyspace: Keyspace, tags: str, matches: Callable[[Entry | None], bool] | None
) -> Flushed:
    """Count the entries that `remove_entries` would remove, and remove none."""
    slices = keyspace.scan(f"e:{tags}")
    return Flushed(sum(len(_matching(keyspace, keys, matches)) for keys in slices), 0)


def count_entries(
    keyspace: Keyspace, tags: str, kind_of: Callable[[Entry | None], str], at_most: int
) -> Census:
    """Count the entries by their *kind_of*, and give up above *at_most* entries."""
    kinds: Counter[str] = Counter()
    counted: set[bytes] = set()  # SCAN may return a key twice.
    for keys in keyspace.scan(f"e:{tags}"):
        new = list(dict.fromkeys(key for key in keys if key not in counted))
        if len(counted) + len(new) > at_most:
            return Census(kinds, is_complete=False)
        counted.update(new)
        for value in keyspace.values(new):
            if value is not None:
                kinds[kind_of(decode(value))] += 1
    return Census(kinds, is_complete=True)


def _matching(
    keyspace: Keyspace,
    keys: list[bytes],
    matches: Callable[[Entry | None], bool] | None,
) -> list[bytes]:
    """The *keys* whose entries *matches* picks; None picks all, unread."""
    if matches is None:
        return keys
    return [
        key
        for key, value in zip(keys, keyspace.values(keys), strict=True)
        if value is not None and matches(decode(value))
    ]
