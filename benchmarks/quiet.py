"""Waiting until the machine has nothing else to do."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

Round = TypeVar("Round")

BUSY_PERCENT = 10
"""More of the machine's time than this in other hands spoils a round."""

LOOK_FOR = 0.25


def rounds(contenders: Iterable[Round], within: float) -> Iterator[Round]:
    """Each of them in turn, once it is quiet or has not become so *within* seconds."""
    for contender in contenders:
        wait(within)
        yield contender


def wait(within: float) -> None:
    """Let what went before die away, for so many seconds, and say if it has not."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        if _busy_percent() < BUSY_PERCENT:
            return
    print("others are busy, which may spoil a round", file=sys.stderr)


def _busy_percent() -> float:
    busy, total = _ticks()
    time.sleep(LOOK_FOR)
    busy_now, total_now = _ticks()
    return 100 * (busy_now - busy) / max(1, total_now - total)


def _ticks() -> tuple[int, int]:
    """Source: https://docs.kernel.org/filesystems/proc.html, of all cores together."""
    first = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    ticks = [int(text) for text in first]
    idle, waiting = ticks[3:5]
    return sum(ticks) - idle - waiting, sum(ticks)
