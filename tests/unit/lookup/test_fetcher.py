"""One fetch, in every state of the gate, the allowance, the quota and the token."""

from __future__ import annotations

import pytest

from proxy.domain.answer import FetchResult, Source
from proxy.domain.entry import ExpiryReason
from proxy.domain.failures import (
    GraphUnavailable,
    Overloaded,
    PermissionMissing,
    Throttled,
    TokenRejected,
    TooManyMisses,
)
from proxy.domain.profile import Igsid, Reason, Refusal
from tests.helpers.builders import (
    ADA,
    MINUTE,
    a_profile,
    a_refusal,
)
from tests.helpers.fakes import FakeGraph
from tests.helpers.prometheus import total
from tests.helpers.world import BEN, World


def test_closed_gate_fails_a_miss_with_its_cause(world) -> None:
    """With the time to wait, and without a call."""
    world.fail_until_closed()

    with pytest.raises(GraphUnavailable) as stopped:
        world.find()

    assert 0 < stopped.value.retry_after <= 5.0
    assert stopped.value.asked is False
    assert world.graph.calls == 0


def test_throttled_failure_has_the_time_the_gate_is_closed_for(world) -> None:
    """Also for the caller who was throttled, and where Meta does not say."""
    world.graph.outcomes[ADA] = Throttled()

    with pytest.raises(Throttled) as throttled:
        world.find()

    assert throttled.value.retry_after == pytest.approx(60.0, abs=2)


def test_new_token_passes_the_gate_closed_for_the_old_one(world) -> None:
    """As soon as this process has it."""
    world.graph.outcomes[ADA] = TokenRejected()
    with pytest.raises(TokenRejected):
        world.find()
    world.forget_note()

    world.graph.token = "600dcafe"
    world.graph.outcomes[ADA] = a_profile()

    assert world.find().source is Source.FETCHED


def test_ten_unavailable_people_without_a_witness_are_a_missing_permission(
    world,
) -> None:
    """From the tenth on, none is stored as refused, until one profile comes."""
    people = world.hide_people(12)

    for igsid in people[:9]:
        assert isinstance(world.find(igsid).entry.outcome, Refusal)
    for igsid in people[9:]:
        with pytest.raises(PermissionMissing):
            world.find(igsid)
        assert world.store.read(igsid).entry is None
    calls_while_closed = world.graph.calls

    world.graph.outcomes[ADA] = a_profile()
    world.lapse("permission")
    world.find()
    world.forget_note(people[9])
    assert isinstance(world.find(people[9]).entry.outcome, Refusal)
    assert calls_while_closed == 10


def test_unavailable_people_are_refused_while_a_witness_is_shown(world) -> None:
    """A caller with another Page's ids does not stop the callers with real ones."""
    world.graph.outcomes[ADA] = a_profile()
    world.graph.outcomes[BEN] = a_profile(igsid=BEN)
    world.find(ADA)

    outcomes = []
    for igsid in world.hide_people(40):
        outcomes.append(world.find(igsid).entry.outcome)
        world.background.run()

    assert {outcome.reason for outcome in outcomes} == {Reason.UNAVAILABLE}
    assert world.find(BEN).source is Source.FETCHED
    assert world.graph.asked.count(ADA) == 2  # Once a minute.


def test_unavailable_person_is_kept_shortly_until_the_witness_is_asked(world) -> None:
    """If the permission is lost, the refusal was none."""
    world.graph.outcomes[ADA] = a_profile()
    world.find(ADA)
    people = world.hide_people(12)
    before = [world.find(igsid).entry for igsid in people[:11]]
    world.background.run()
    after = world.find(people[11]).entry

    lives = [entry.usable_until - entry.fetched_at for entry in before]
    assert lives == [10 * MINUTE] * 9 + [5.0] * 2
    assert before[9].expiry_reason is ExpiryReason.PERMISSION_DOUBTED
    assert after.expiry_reason is None


def test_witness_who_is_not_shown_stops_all_calls(world) -> None:
    """Until a probe about a witness is answered with a profile again."""
    world.graph.outcomes[ADA] = a_profile()
    world.graph.outcomes[BEN] = a_profile(igsid=BEN)
    world.find(ADA)
    for igsid in world.hide_people(10):
        world.find(igsid)
    world.graph.outcomes[ADA] = a_refusal(reason=Reason.UNAVAILABLE)
    world.background.run()

    with pytest.raises(PermissionMissing) as stopped:
        world.find(BEN)
    world.graph.outcomes[ADA] = a_profile()
    world.lapse("permission")
    world.forget_note(BEN)
    with pytest.raises(PermissionMissing) as probing:
        world.find(BEN)
    world.background.run()
    world.forget_note(BEN)

    assert (stopped.value.asked, probing.value.asked) == (False, False)
    assert world.find(BEN).source is Source.FETCHED
    assert world.graph.asked.count(BEN) == 1


@pytest.mark.parametrize("times", [20, 60])
def test_one_person_about_whom_meta_fails_stops_no_other(world, times) -> None:
    """Whatever is odd about them, and however often a caller asks."""
    world.graph.outcomes[ADA] = a_profile()
    for odd in (
        GraphUnavailable.about_person(),
        GraphUnavailable(),
        PermissionMissing(),
    ):
        world.graph.outcomes[BEN] = odd
        for _ in range(times):
            with pytest.raises(type(odd)):
                world.find(BEN)
            world.forget_note(BEN)

    assert world.find(ADA).source is Source.FETCHED
    assert world.graph.asked.count(BEN) == 3 * times


def test_calls_go_one_at_a_time_above_the_hard_limit(world) -> None:
    """In this process; and in parallel again when Meta reports less, or nothing."""
    world.graph.outcomes[ADA] = a_profile()
    world.graph.outcomes[BEN] = a_profile(igsid=BEN)
    world.graph.usage_percent = 96.0
    world.find(ADA)
    world.graph.usage_percent = 20.0
    world.find(BEN)

    with (
        world.bulkhead.seat(),
        pytest.raises(Overloaded),
        world.bulkhead.seat(within=0.0),
    ):
        pass

    world.lookup.erase(ADA)
    world.find(ADA)
    with world.bulkhead.seat(), world.bulkhead.seat(within=0.0):
        pass


def test_call_is_charged_to_the_key_that_leads_it(world) -> None:
    """Hits are free, and so are misses that fail because the allowance is spent."""
    world.graph.outcomes[ADA] = a_profile()
    for _ in range(5):
        world.find(ADA, client="inbox")
    with pytest.raises(GraphUnavailable):
        world.find(BEN, client="inbox")

    with pytest.raises(TooManyMisses) as spent:
        world.find(Igsid("77777"), client="inbox")
    still_hit = world.find(ADA, client="inbox")
    with pytest.raises(GraphUnavailable):
        world.find(Igsid("77777"), client="crm")

    assert 0 < spent.value.retry_after <= 60.0
    assert still_hit.source is Source.HIT
    assert world.graph.calls == 3


def test_spent_allowance_is_not_shared_with_other_clients(world) -> None:
    """No note is left, and no lease."""
    for n in range(2):
        with pytest.raises(GraphUnavailable):
            world.find(Igsid(f"99900{n}"), client="inbox")
    world.graph.outcomes[ADA] = a_profile()
    with pytest.raises(TooManyMisses):
        world.find(client="inbox")

    snapshot = world.store.read(ADA)

    assert (snapshot.lease, snapshot.note) == (None, None)
    assert world.find(client="crm").source is Source.FETCHED


def test_spent_allowance_releases_the_probe(world) -> None:
    """Otherwise the gate would stay closed for a call that may not be made."""
    for n in range(2):
        with pytest.raises(GraphUnavailable):
            world.find(Igsid(f"99900{n}"), client="inbox")
    world.graph.outcomes[BEN] = Throttled()
    with pytest.raises(Throttled):
        world.find(BEN)
    world.redis.hset("pp:g:{default}:throttled", "until", 1)
    world.graph.outcomes[ADA] = a_profile()
    with pytest.raises(TooManyMisses):
        world.find(client="inbox")

    assert world.find(client="crm").source is Source.FETCHED


def test_refusal_of_an_old_token_is_stored_for_a_second(world) -> None:
    """Another process has the new token already: a rolling deploy takes its time."""
    world.store.note_token("600dcafe")
    world.graph.outcomes[ADA] = a_refusal(reason=Reason.NOT_FOUND)
    world.graph.outcomes[BEN] = a_refusal(igsid=BEN)

    not_found, consent = world.find(ADA).entry, world.find(BEN).entry

    assert not_found.usable_until - world.clock.now == 1.0
    assert consent.usable_until - world.clock.now == 15 * MINUTE
    assert (not_found.expiry_reason, consent.expiry_reason) == (
        ExpiryReason.NEWER_TOKEN,
        None,
    )


def test_bug_during_a_call_releases_the_probe(world) -> None:
    """Otherwise the gate would stay closed for as long as a lease."""
    world.graph.outcomes[BEN] = Throttled()
    with pytest.raises(Throttled):
        world.find(BEN)
    world.redis.hset("pp:g:{default}:throttled", "until", 1)

    class Bug(FakeGraph):
        def fetch(self, igsid: Igsid, within: float) -> FetchResult:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        World(redis=world.redis, clock=world.clock, graph=Bug()).find(Igsid("77777"))

    world.graph.outcomes[ADA] = a_profile()
    assert world.find().source is Source.FETCHED


def test_miss_stopped_by_the_gate_is_not_counted_as_a_call(world) -> None:
    """Meta was not asked, though a caller got a failure."""
    world.fail_until_closed()
    with pytest.raises(GraphUnavailable):
        world.find()

    assert world.counted() == {("none", "graph_unavailable"): 6}
    assert world.metrics.calls["graph_unavailable"] == 5


def test_call_is_timed_by_the_clock_of_the_flights(world) -> None:
    """From just before it to just after."""

    class SlowGraph(FakeGraph):
        def fetch(self, igsid: Igsid, within: float) -> FetchResult:
            world.pass_time(0.4)
            return super().fetch(igsid, within)

    slow = World(redis=world.redis, clock=world.clock, graph=SlowGraph())
    slow.graph.outcomes[ADA] = a_profile()
    slow.find()

    text = slow.process_metrics.exposition(None).decode()
    assert total(text, "graph_call_seconds_bucket", le="0.3") == 0
    assert total(text, "graph_call_seconds_bucket", le="0.5") == 1
