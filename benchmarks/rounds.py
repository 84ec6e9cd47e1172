"""The parts of every row: its rounds, its people and its contenders.

Rounds alternate between the contenders, so that other work of the machine affects all
of them alike.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import TypeVar

from benchmarks import contenders, idle
from benchmarks.children import LOAD, Contender, Missing, pinned
from benchmarks.contenders import Meta
from benchmarks.figures import Figure

Turn = TypeVar("Turn")


@dataclass(frozen=True, slots=True)
class Pace:
    """How much to measure. *seconds* is the length of one round of hits."""

    rounds: int
    seconds: int
    people: int
    idle_within: float
    is_brief: bool = False

    def each(self, turns: Sequence[Turn]) -> Iterator[Turn]:
        """Yield all *turns* once a round, each after the machine has become idle."""
        return idle.rounds(list(turns) * self.rounds, self.idle_within)


THOROUGH = Pace(rounds=7, seconds=3, people=5000, idle_within=4.0)
QUICK = Pace(rounds=3, seconds=1, people=1000, idle_within=0.5, is_brief=True)

_numbers = itertools.count()


def people(count: int) -> list[str]:
    """Return *count* people who have not been requested before."""
    return [f"1254002{next(_numbers):09d}" for _ in range(count)]


def path(igsid: str) -> str:
    return f"/profiles/{igsid}"


def paths(igsids: Sequence[str]) -> list[str]:
    return [path(igsid) for igsid in igsids]


def batch(igsids: Sequence[str]) -> str:
    """Return the path of one request for all of them."""
    return f"/profiles?ids={','.join(igsids)}"


def start(
    running: ExitStack,
    figures: list[Figure],
    wanted: Mapping[str, AbstractContextManager[Contender]],
) -> list[Contender]:
    """Start the installed contenders; add a line to *figures* for each missing one."""
    installed = []
    for name, contender in wanted.items():
        try:
            installed.append(running.enter_context(contender))
        except Missing as missing:
            figures.append(Figure(what=name, note=str(missing)))
    return installed


def alone(running: ExitStack) -> tuple[Meta, Contender]:
    """Start our service and its store on one core; load and Meta have the other."""
    running.enter_context(pinned(LOAD))
    meta = running.enter_context(contenders.meta())
    store = running.enter_context(contenders.store())
    return meta, running.enter_context(contenders.profile_proxy(meta, store))
