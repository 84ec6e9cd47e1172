"""Run threads in turns: one at a time, up to its next step outside the process.

Other threads cannot see what a thread does between two such steps. So the choice of
the next thread decides how they interleave, and the same choices give the same run.
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
from proxy.coordination.single_flight import SingleFlight

_TURN_ENDS_WITHIN = 20.0


class _Dismissed(BaseException):
    """Ends a thread that the test no longer needs."""


class At(Enum):
    """The step before which an actor waits for its turn; END: it has finished."""

    STORE = auto()
    META = auto()
    NAP = auto()
    FLIGHT = auto()
    END = auto()


class Actor:
    """A thread that runs *part* while it has the turn.

    At its END, ``returned`` or ``raised`` is its result.
    With ``is_unsure``, it may have lost a lease that it took, or fetch without one.
    With ``is_forced``, it accepts only what Meta says from now on.
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
        self._turn_ended = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._play, daemon=True)
        self._thread.start()

    def step(self) -> None:
        """Run it up to its next step outside."""
        self._stage.acting, before = self, self._stage.acting
        self._turn.release()
        assert self._turn_ended.acquire(timeout=_TURN_ENDS_WITHIN), "no turn wanted"
        self._stage.acting = before
        if self.at is At.END:
            self._thread.join()

    def dismiss(self) -> None:
        """End it where it is."""
        self._is_dismissed = True
        if self.at is not At.END:
            self.step()

    def wait_for_turn(self, at: At) -> None:
        """Return the turn and wait *at* this step; called by the thread itself."""
        if not self._is_dismissed:
            self.at = at
            self._turn_ended.release()
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
        self._turn_ended.release()


class Stage:
    """The actor with the turn; None: the test itself, which never pauses."""

    def __init__(self) -> None:
        self.acting: Actor | None = None

    def pause(self, at: At) -> None:
        """Called before each step outside."""
        if self.acting:
            self.acting.wait_for_turn(at)

    def nap(self, seconds: float) -> None:
        """Replace ``time.sleep``: pause until the next turn, however long that is."""
        self.pause(At.NAP)


class StagedRedis(FakeRedis):
    """The store, with a pause before each command; it can be away.

    With *loses_replies*, it runs each command and loses the reply.
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


class StagedFlight(SingleFlight):
    """A flight with followers that pause instead of blocking the test's thread."""

    def __init__(self, stage: Stage, *args: Any, **kwargs: Any) -> None:
        registry = StagedRegistry(stage, kwargs["monotonic"])
        super().__init__(*args, registry=registry, **kwargs)


class StagedRegistry(FlightRegistry):
    """A registry in which waiting for a flight is a step outside."""

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
