"""What the parent tells its workers, in memory that they share."""

from __future__ import annotations

import multiprocessing
from enum import IntEnum
from multiprocessing import heap


class Phase(IntEnum):
    """The phases of the service's life, in order; only its parent advances them."""

    SERVING = 0
    DRAINING = 1
    STOPPING = 2


class SharedPhase:
    """The current phase, shared with all workers, those started later included."""

    def __init__(self, folder: str | None = None) -> None:
        """*folder* is one that can be written to, in memory if possible.

        A trick: without it multiprocessing takes /dev/shm, also a read-only one. Its
        price is a private name.
        """
        if folder is not None:
            heap.Arena._dir_candidates = [folder]  # type: ignore[attr-defined]
        self._memory = multiprocessing.RawValue("b", Phase.SERVING)
        self._file_reads = multiprocessing.RawValue("I", 0)

    def __call__(self) -> Phase:
        return Phase(self._memory.value)

    def advance_to(self, phase: Phase) -> None:
        self._memory.value = phase

    def read_files_again(self) -> None:
        """Tell every worker to read its files again now; only the parent calls it."""
        self._file_reads.value += 1

    def file_reads(self) -> int:
        """Return how often the files were to be read again."""
        return int(self._file_reads.value)

    def is_ending(self) -> bool:
        """Return whether clients should go elsewhere: the service drains or stops."""
        return bool(self._memory.value)
