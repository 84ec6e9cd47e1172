"""The phase of the service's life, in memory that parent and workers share."""

from __future__ import annotations

import multiprocessing
from enum import IntEnum


class Phase(IntEnum):
    """The phases of the service's life, in order; only its parent advances them."""

    SERVING = 0
    DRAINING = 1
    STOPPING = 2


class SharedPhase:
    """The current phase, shared with all workers, those started later included."""

    def __init__(self) -> None:
        self._memory = multiprocessing.RawValue("b", Phase.SERVING)

    def __call__(self) -> Phase:
        return Phase(self._memory.value)

    def advance_to(self, phase: Phase) -> None:
        self._memory.value = phase

    def is_ending(self) -> bool:
        """Return whether clients should go elsewhere: the service drains or stops."""
        return bool(self._memory.value)
