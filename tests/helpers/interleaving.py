"""Callers that take turns: one thread runs at a time, up to its next step outside.

What threads do between such steps nobody else can see. So to choose whose turn it is
is to choose how they interleave, and the same choices give the same run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from enum import Enum, auto
from typing import Any

import redis
from fakeredis import FakeRedis

from proxy.coordination.flight_registry import FlightRegistry, FlightResult
from proxy.coordination.single_flight import Flight

_TURN_ENDS_WITHIN = 20.0


class _Dismissed(BaseException):
    """Nobody wants to know any more how a thread goes on."""


class At(Enum):
    """Where an actor waits for its turn: before what, or after everything."""

    STORE = auto()
    META = auto()
    NAP = auto()
    FLIGHT = auto()
    END = auto()


class Actor:
    """A thread that runs *part* while it has the turn.

    Once it is at its END, ``returned`` or ``raised`` tells how that came about.
    With ``is_unsure``, it may have no lease though it has taken one, or fly without.
    With ``is_forced``, it wants what Meta says from now on.
    """

    def __init__(self, stage: Stage, part: Callable[[], Any]) -> None:
        self.at = At.NAP
        self.waits_for: Future[Any] | None = None
        self.is_unsure = False
        self.is_forced = False
        self.returned: Any = None
        self.raised: Exception | None = None
        self._stage = stage
        self._part = part
        self._is_dismissed = False
        self._turn = threading.Semaphore(0)
        self._over = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._play, daemon=True)
        self._thread.start()

    def step(self) -> None:
        """Let it run up to its next step outside."""
        self._stage.acting, before = self, self._stage.acting
        self._turn.release()
        assert self._over.acquire(timeout=_TURN_ENDS_WITHIN), "it waits for nobody"
        self._stage.acting = before
        if self.at is At.END:
            self._thread.join()

    def dismiss(self) -> None:
        """Let it end where it is."""
        self._is_dismissed = True
        if self.at is not At.END:
            self.step()

    def wait_for_turn(self, at: At) -> None:
        """Give the turn back, to be *at* this step; called by the thread itself."""
        if not self._is_dismissed:
            self.at = at
            self._over.release()
            self._turn.acquire()
        if self._is_dismissed:
            raise _Dismissed

    def _play(self) -> None:
        self._turn.acquire()
        try:
            self.returned = self._part()
        except _Dismissed:
            pass
        except Exception as exc:
            self.raised = exc
        self.at = At.END
        self._over.release()


class Stage:
    """Who acts now; None: the test itself, for which everything happens at once."""

    def __init__(self) -> None:
        self.acting: Actor | None = None

    def pause(self, at: At) -> None:
        """Called before each step outside."""
        if self.acting:
            self.acting.wait_for_turn(at)

    def nap(self, seconds: float) -> None:
        """In place of ``time.sleep``: until the next turn, however long that is."""
        self.pause(At.NAP)


class StagedRedis(FakeRedis):
    """The store, with a pause before each command; it can be away.

    With *loses_replies*, it does as it is told and cannot say so.
    """

    def __init__(self, stage: Stage, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._stage = stage
        self.is_away = False
        self.loses_replies = False

    def execute_command(self, *args: Any, **options: Any) -> Any:
        self._stage.pause(At.STORE)
        reply = None
        if not self.is_away:
            reply = super().execute_command(*args, **options)
        if self.is_away or self.loses_replies:
            if self._stage.acting:
                self._stage.acting.is_unsure = True
            raise redis.ConnectionError()
        return reply


class StagedFlight(Flight):
    """A flight whose followers pause instead of blocking the thread of the test."""

    def __init__(self, stage: Stage, *args: Any, **kwargs: Any) -> None:
        registry = StagedRegistry(stage, kwargs["monotonic"])
        super().__init__(*args, registry=registry, **kwargs)


class StagedRegistry(FlightRegistry):
    def __init__(self, stage: Stage, monotonic: Callable[[], float]) -> None:
        super().__init__()
        self._stage = stage
        self._monotonic = monotonic

    def wait(self, shared: Future[FlightResult], seconds: float) -> FlightResult:
        deadline = self._monotonic() + seconds
        while self._stage.acting and not shared.done() and self._monotonic() < deadline:
            self._stage.acting.waits_for = shared
            self._stage.pause(At.FLIGHT)
        return super().wait(shared, 0.0)
