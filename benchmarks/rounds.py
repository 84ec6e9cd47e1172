"""What every row needs: its rounds, its people, and who takes part.

Rounds alternate between the contenders, so that what else the machine does meets all
of them alike.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import TypeVar

from benchmarks import contenders, quiet
from benchmarks.children import LOAD, Contender, Missing, pinned
from benchmarks.contenders import Meta
from benchmarks.figures import Figure

Turn = TypeVar("Turn")


@dataclass(frozen=True, slots=True)
class Pace:
    """How thoroughly to measure: *seconds* is of one round of hits."""

    rounds: int
    seconds: int
    people: int
    quiet_within: float
    is_brief: bool = False

    def each(self, turns: Sequence[Turn]) -> Iterator[Turn]:
        """*turns*, one after the other, as often as there are rounds, each in quiet."""
        return quiet.rounds(list(turns) * self.rounds, self.quiet_within)


THOROUGH = Pace(rounds=7, seconds=3, people=5000, quiet_within=4.0)
QUICK = Pace(rounds=3, seconds=1, people=1000, quiet_within=0.5, is_brief=True)

_numbers = itertools.count()


def people(count: int) -> list[str]:
    """So many people of whom nobody has asked yet."""
    return [f"1254002{next(_numbers):09d}" for _ in range(count)]


def path(igsid: str) -> str:
    return f"/profiles/{igsid}"


def paths(igsids: Sequence[str]) -> list[str]:
    return [path(igsid) for igsid in igsids]


def page(igsids: Sequence[str]) -> str:
    """All of them in one request."""
    return f"/profiles?ids={','.join(igsids)}"


def start(
    running: ExitStack,
    figures: list[Figure],
    wanted: Mapping[str, AbstractContextManager[Contender]],
) -> list[Contender]:
    """Those that are installed here; *figures* gets a line for each that is not."""
    there = []
    for name, contender in wanted.items():
        try:
            there.append(running.enter_context(contender))
        except Missing as missing:
            figures.append(Figure(what=name, note=str(missing)))
    return there


def alone(running: ExitStack) -> tuple[Meta, Contender]:
    """One process of ours and its store on one core; load and Meta on the other."""
    running.enter_context(pinned(LOAD))
    meta = running.enter_context(contenders.meta())
    store = running.enter_context(contenders.store())
    return meta, running.enter_context(contenders.profile_proxy(meta, store))
