"""Meta is asked about the witnesses, in every state of seats, leases and replies."""

from __future__ import annotations

from typing import Any

import fakeredis
import pytest

from proxy.coordination.single_flight import SingleFlight
from proxy.domain.answer import FetchResult
from proxy.domain.failures import (
    GraphTimeout,
    GraphUnavailable,
    PermissionMissing,
    StoreUnavailable,
    Throttled,
    TokenRejected,
)
from proxy.domain.profile import Igsid, Outcome, Reason
from tests.helpers.builders import ADA, a_profile, a_refusal
from tests.helpers.fakes import FakeGraph
from tests.helpers.world import BEN, World

CLEO = Igsid("1254001234567892")
WITNESSES = "pp:d:{default}:witnesses"
ROWS = [f"pp:d:{{default}}:{row}" for row in ("not_shown", "refused", "failed")]


def show(world: World, *people: Igsid) -> None:
    """Let Meta show *people*; the last of them is the latest witness."""
    for place, igsid in enumerate(people):
        world.graph.outcomes[igsid] = a_profile(igsid=igsid)
        world.find(igsid)
        seconds, _ = world.redis.time()
        world.redis.zadd(WITNESSES, {igsid: seconds * 1000 + place - 10})
    world.graph.asked.clear()


def raise_the_question(world: World) -> None:
    for igsid in world.hide_people(10):
        world.find(igsid)
    world.graph.asked.clear()


def refusal(igsid: Igsid, reason: Reason) -> Outcome:
    return a_refusal(igsid=igsid, reason=reason)


@pytest.mark.parametrize(
    ("ben", "ada", "asked", "is_closed"),
    [
        (a_profile(igsid=BEN), None, [BEN], False),
        (refusal(BEN, Reason.BLOCKED), None, [BEN], False),
        (refusal(BEN, Reason.NOT_FOUND), None, [BEN], False),
        (refusal(BEN, Reason.UNAVAILABLE), a_profile(), [BEN, ADA], False),
        (refusal(BEN, Reason.CONSENT_REQUIRED), a_profile(), [BEN, ADA], False),
        (PermissionMissing(), a_profile(), [BEN, ADA], False),
        (
            refusal(BEN, Reason.UNAVAILABLE),
            refusal(ADA, Reason.CONSENT_REQUIRED),
            [BEN, ADA],
            True,
        ),
        (PermissionMissing(), PermissionMissing(), [BEN, ADA], True),
        (GraphTimeout(), None, [BEN], False),
        (GraphUnavailable.about_person(), None, [BEN], False),
    ],
)
def test_witnesses_decide_in_turn(world, ben, ada, asked, is_closed) -> None:
    """The latest first; a timeout decides nothing."""
    show(world, ADA, BEN)
    raise_the_question(world)
    world.graph.outcomes[BEN] = ben
    if ada:
        world.graph.outcomes[ADA] = ada

    world.background.run()

    gates = {state.cause: state for state in world.lookup.gate_state().causes}
    assert world.graph.asked == asked
    assert (gates["permission"].closed_for > 0) is is_closed


@pytest.mark.parametrize("failure", [Throttled(), TokenRejected()])
def test_failure_about_a_witness_counts_as_any_other(world, failure) -> None:
    """It is a call to Meta."""
    show(world, ADA)
    raise_the_question(world)
    world.graph.outcomes[ADA] = failure

    world.background.run()

    gates = {state.cause: state for state in world.lookup.gate_state().causes}
    assert gates[failure.cause].closed_for > 0
    assert world.metrics.calls[failure.code] == 1


def test_nothing_that_a_witness_gets_is_stored(world) -> None:
    """No entry, no note: no erase and no message can come too late for it."""
    show(world, ADA)
    raise_the_question(world)
    before = world.store.read(ADA)
    world.graph.outcomes[ADA] = refusal(ADA, Reason.UNAVAILABLE)

    world.background.run()

    assert world.graph.asked == [ADA]
    assert world.store.read(ADA) == before
    assert before.lease is None


def test_witness_is_asked_under_the_lease(world) -> None:
    """Meta is asked about a person once at a time."""
    leases = []

    class Looking(FakeGraph):
        def fetch(self, igsid: Igsid, within: float) -> FetchResult:
            leases.append(world.store.read(igsid).lease)
            return super().fetch(igsid, within)

    other = World(redis=world.redis, clock=world.clock, graph=Looking())
    show(other, ADA)
    raise_the_question(other)
    leases.clear()
    other.background.run()
    world.store.take(ADA, "another's", 6.0)
    other.redis.hset("pp:d:{default}:verdict", "ask_after", 1)
    other.graph.outcomes[Igsid("888888")] = refusal(Igsid("888888"), Reason.UNAVAILABLE)
    other.find(Igsid("888888"))
    other.background.run()

    assert len(leases) == 2  # Ada's and that of 888888: another asks about Ada.
    assert None not in leases
    assert world.store.read(ADA).lease == "another's"


def test_witness_waits_for_a_seat_like_any_call(world) -> None:
    """If none comes free, the next caller probes by the witness before."""
    world = World(seats=1)
    show(world, ADA, BEN)
    world.graph.outcomes[CLEO] = Throttled()
    with pytest.raises(Throttled):
        world.find(CLEO)
    world.graph.asked.clear()
    for is_full in (True, False):
        world.lapse("throttled")
        world.forget_note(CLEO)
        with pytest.raises(Throttled):
            world.find(CLEO)
        if is_full:
            with world.bulkhead.seat():
                world.background.run()
        else:
            world.background.run()

    assert world.graph.asked == [ADA]


def test_probe_that_is_not_run_is_given_back(world) -> None:
    """The queue of background jobs is full."""
    show(world, ADA)
    world.graph.outcomes[CLEO] = Throttled()
    with pytest.raises(Throttled):
        world.find(CLEO)
    world.lapse("throttled")
    world.forget_note(CLEO)
    world.background.jobs["probe"] = lambda: None
    with pytest.raises(Throttled):
        world.find(CLEO)
    world.graph.outcomes[CLEO] = a_profile(igsid=CLEO)
    world.forget_note(CLEO)

    world.find(CLEO)  # A caller's own question is the probe now.

    assert world.lookup.gate_state().causes[0].closed_for == 0.0


def test_bug_in_a_probe_gives_it_back(world) -> None:
    """Otherwise the gate would stay closed for as long as a lease."""

    class Bug(FakeGraph):
        def fetch(self, igsid: Igsid, within: float) -> FetchResult:
            raise ZeroDivisionError

    show(world, ADA)
    world.graph.outcomes[CLEO] = Throttled()
    with pytest.raises(Throttled):
        world.find(CLEO)
    world.lapse("throttled")
    buggy = World(redis=world.redis, clock=world.clock, graph=Bug())
    with pytest.raises(Throttled):
        buggy.find(BEN)
    with pytest.raises(ZeroDivisionError):
        buggy.background.run()

    assert world.store.read(ADA).lease is None
    world.graph.outcomes[CLEO] = a_profile(igsid=CLEO)
    world.forget_note(CLEO)
    world.find(CLEO)


def test_calls_about_all_witnesses_share_one_deadline(world) -> None:
    """Each of them may be slow, and none is asked for longer than a caller's person."""
    allowed: list[float] = []

    class Slow(FakeGraph):
        def fetch(self, igsid: Igsid, within: float) -> FetchResult:
            allowed.append(within)
            world.pass_time(2.0)
            return super().fetch(igsid, within)

    slow = World(redis=world.redis, clock=world.clock, graph=Slow())
    show(slow, ADA, BEN, CLEO)
    raise_the_question(slow)
    for igsid in (ADA, BEN, CLEO):
        slow.graph.outcomes[igsid] = refusal(igsid, Reason.UNAVAILABLE)
    allowed.clear()

    slow.background.run()

    assert allowed == [5.0, 3.0, 1.0]


class Erasing(FakeGraph):
    """Has the person erased while Meta is asked."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world
        self.erases = True

    def fetch(self, igsid: Igsid, within: float) -> FetchResult:
        if self.erases:
            self._world.lookup.erase(igsid)
        return super().fetch(igsid, within)


@pytest.mark.parametrize(
    "outcome",
    [a_profile(), refusal(ADA, Reason.UNAVAILABLE)]
    + [GraphUnavailable(), PermissionMissing()],
)
def test_lost_lease_takes_back_what_was_noted_of_the_person(world, outcome) -> None:
    """A person erased while Meta was asked is no witness, and in no row."""
    world.has_stale()
    erasing = World(redis=world.redis, clock=world.clock, graph=Erasing(world))
    erasing.graph.outcomes[ADA] = outcome

    erasing.find(ADA)
    erasing.background.run()

    assert erasing.graph.calls == 1
    assert not world.redis.exists(WITNESSES, *ROWS)


def test_witness_erased_while_asked_about_is_not_counted(world) -> None:
    """Meta fails about the person just then, which would leave a mark in a row."""
    world = World(redis=world.redis, graph=(meta := Erasing(world)))
    meta.erases = False
    show(world, ADA)
    raise_the_question(world)
    meta.erases = True
    meta.outcomes[ADA] = GraphUnavailable()

    world.background.run()

    assert meta.asked == [ADA]
    assert not world.redis.exists(WITNESSES, "pp:d:{default}:failed")


def test_witness_is_taken_back_once_the_store_is_there_again() -> None:
    """It may fail between the two: the process looks at the gate every two seconds."""
    server, flights = fakeredis.FakeServer(), []

    def new_flight(*args: Any, **options: Any) -> SingleFlight:
        flights.append(options)
        return SingleFlight(*args, **options)

    world = World(redis=fakeredis.FakeRedis(server=server), new_flight=new_flight)
    show(world, ADA)
    server.connected = False
    with pytest.raises(StoreUnavailable):
        flights[0]["on_unstored"](ADA)
    server.connected = True
    before = world.redis.exists(WITNESSES)

    world.lookup.gate_state()

    assert (before, world.redis.exists(WITNESSES)) == (1, 0)


def test_erase_reports_a_witness_and_leaves_no_trace(world) -> None:
    """A flush leaves the witnesses, who are no entries."""
    show(world, ADA)
    erased = world.lookup.erase(ADA)
    again = world.lookup.erase(ADA)

    assert (erased.witness, erased.row) == (True, False)
    assert (again.entry, again.witness) == (False, False)
    assert not world.redis.exists(WITNESSES)
