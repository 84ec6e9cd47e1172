"""Wait until the machine is idle."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

Round = TypeVar("Round")

BUSY_PERCENT = 10
"""A round is spoiled if other processes use more of the machine's time than this."""

SAMPLE_FOR = 0.25
"""Seconds over which the machine's load is measured."""


def rounds(contenders: Iterable[Round], within: float) -> Iterator[Round]:
    """Yield each in turn, once the machine is idle, or after *within* seconds."""
    for contender in contenders:
        wait(within)
        yield contender


def wait(within: float) -> None:
    """Wait until the machine is idle, at most *within* seconds; report if it is not."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        if _busy_percent() < BUSY_PERCENT:
            return
    print("other processes are busy, which may spoil a round", file=sys.stderr)


def _busy_percent() -> float:
    busy, total = _ticks()
    time.sleep(SAMPLE_FOR)
    busy_now, total_now = _ticks()
    return 100 * (busy_now - busy) / max(1, total_now - total)


def _ticks() -> tuple[int, int]:
    """Return the busy and all ticks of all cores together.

    Source: https://docs.kernel.org/filesystems/proc.html
    """
    first = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    ticks = [int(text) for text in first]
    idle, waiting = ticks[3:5]
    return sum(ticks) - idle - waiting, sum(ticks)
