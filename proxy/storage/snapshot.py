"""A person's keys, read at one moment."""

from __future__ import annotations

from typing import NamedTuple

from proxy.domain.entry import Entry
from proxy.domain.profile import Igsid
from proxy.storage.codec import Note, StoredEntry, decode_note, read

__all__ = ["Lease", "Note", "Snapshot", "snapshot_of"]

Lease = str
"""An owner's token, never used twice."""


class Snapshot(NamedTuple):
    """The entry, the lease and the note of a person.

    *has_written*, lately, is set only in the snapshot of a caller that takes the lease.
    """

    stored_entry: StoredEntry | None
    lease: Lease | None
    note: Note | None
    has_written: bool = False

    @property
    def entry(self) -> Entry | None:
        """Built from the stored entry on each access, which a hit does without."""
        return self.stored_entry.entry() if self.stored_entry is not None else None


def snapshot_of(igsid: Igsid, values: list[bytes | None]) -> Snapshot:
    """Decode the values of a person's keys: entry, lease, note and perhaps marker."""
    entry, lease, note = values[:3]
    return Snapshot(
        read(entry, igsid) if entry is not None else None,
        lease.decode("ascii", "replace") if lease is not None else None,
        decode_note(note) if note is not None else None,
        has_written=len(values) > 3 and values[3] is not None,
    )
