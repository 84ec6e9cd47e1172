"""A Page's gate as an operator sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from proxy.domain.failures import Cause


@dataclass(frozen=True, slots=True)
class CauseState:
    """One cause as an operator sees it; *closed_for* is in seconds, 0.0 when open."""

    cause: Cause
    closed_for: float
    failures: int
    is_probed: bool


class RefreshCounter(StrEnum):
    """The background refreshes that are counted, over all processes, for operators."""

    REFRESHED = "refreshed"
    REFRESH_FAILED = "refresh_failed"


@dataclass(frozen=True, slots=True)
class GateState:
    """A Page's gate at one moment.

    *doubted* counts different people in a row that Meta does not show (100/33), and
    *refused* those with a code about the app or the Page. *lacks_permission* says that
    there have been many of the latter with no success between, or some for a while
    without any, whatever the *witnesses* get, of whom there are so many.
    """

    causes: tuple[CauseState, ...]
    usage_percent: float | None
    doubted: int
    refused: int
    lacks_permission: bool
    witnesses: int
    refreshes: Mapping[RefreshCounter, int]


class Opened(NamedTuple):
    """A cause that an operator has removed: how long it would have closed the gate.

    *closed_for* is in seconds, 0.0 if it was open; *failures* are those in a row.
    """

    closed_for: float
    failures: int


def read_causes(rows: Sequence[tuple[int, int, int]]) -> tuple[CauseState, ...]:
    """Read a script's row for each cause: failures, milliseconds left, 1 if probed."""
    return tuple(
        CauseState(cause, left / 1000, failures, bool(probed))
        for cause, (failures, left, probed) in zip(Cause, rows, strict=True)
    )


def read_refreshes(counts: Sequence[bytes | None]) -> Mapping[RefreshCounter, int]:
    """Read a script's counts of refreshes, in the order of ``RefreshCounter``."""
    return {
        counter: int(count or 0)
        for counter, count in zip(RefreshCounter, counts, strict=True)
    }


def read_percent(stored: bytes) -> float | None:
    """Read a stored usage; None if there is none."""
    try:
        return float(stored)
    except ValueError:
        return None
