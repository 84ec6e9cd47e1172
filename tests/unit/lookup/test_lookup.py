"""One person: answers in every state of the entry, and how they are counted."""

from __future__ import annotations

import fakeredis
import pytest

from proxy.domain.answer import FetchResult, Source
from proxy.domain.failures import (
    GraphUnavailable,
    StoreUnavailable,
    Throttled,
    TokenRejected,
    TooManyMisses,
)
from proxy.domain.profile import Igsid
from tests.helpers.builders import (
    ADA,
    HOUR,
    MINUTE,
    a_profile,
    a_refusal,
)
from tests.helpers.fakes import FakeGraph
from tests.helpers.world import BEN, World, name_of


def test_hit_makes_no_call_to_meta(world) -> None:
    """Two finds make one call."""
    world.graph.outcomes[ADA] = a_profile()

    first, second = world.find(), world.find()

    assert (first.source, second.source) == (Source.FETCHED, Source.HIT)
    assert world.graph.calls == 1


def test_refresh_calls_meta_whatever_is_stored(world) -> None:
    """All callers are answered with the new outcome from then on."""
    world.graph.outcomes[ADA] = a_profile(name="Before")
    world.find()
    world.clock.now += MINUTE
    world.graph.outcomes[ADA] = a_profile(name="After")

    answer = world.lookup.refresh(ADA)

    assert (name_of(answer), answer.source) == ("After", Source.FETCHED)
    assert (name_of(world.find()), world.graph.calls) == ("After", 2)
    assert world.counted()["fetched", "profile"] == 2


def test_failed_refresh_leaves_the_stored_entry(world) -> None:
    """Its caller gets the failure; all others are answered as before."""
    world.graph.outcomes[ADA] = a_profile()
    world.find()
    world.graph.outcomes[ADA] = TokenRejected()

    with pytest.raises(TokenRejected):
        world.lookup.refresh(ADA)

    assert world.find().source is Source.HIT
    assert world.counted()["none", "token_rejected"] == 1


def test_refresh_is_charged_to_the_client_that_leads_it(world) -> None:
    """The allowance of two is spent by a miss and a refresh."""
    world.graph.outcomes[ADA] = a_profile()
    world.find(client="inbox")
    world.lookup.refresh(ADA, client="inbox")

    with pytest.raises(TooManyMisses):
        world.lookup.refresh(ADA, client="inbox")

    assert world.graph.calls == 2
    assert world.store.read(ADA).lease is None


def test_refresh_fails_if_its_result_cannot_be_stored() -> None:
    """An entry read afterwards would be older, should the store be back."""
    server = fakeredis.FakeServer()

    class Cutting(FakeGraph):
        def fetch(self, igsid: Igsid, within: float) -> FetchResult:
            server.connected = False
            return super().fetch(igsid, within)

    world = World(redis=fakeredis.FakeRedis(server=server), graph=Cutting())
    world.graph.outcomes[ADA] = a_profile()

    with pytest.raises(StoreUnavailable):
        world.lookup.refresh(ADA)

    assert world.graph.calls == 1


def test_refresh_does_not_pass_a_closed_gate(world) -> None:
    """An operator who forces it in an outage must not make it longer."""
    world.fail_until_closed()

    with pytest.raises(GraphUnavailable):
        world.lookup.refresh(ADA)

    assert world.graph.calls == 0


def test_cache_is_read_before_the_gate(world) -> None:
    """Hits do not notice that Meta is down."""
    world.graph.outcomes[ADA] = a_profile()
    world.find()
    world.fail_until_closed()

    assert world.find().source is Source.HIT


def test_refusal_is_never_stale(world) -> None:
    """Once it may have changed, Meta is asked before it is answered again."""
    world.graph.outcomes[ADA] = a_refusal()
    world.find()
    world.clock.now += 15 * MINUTE
    world.graph.outcomes[ADA] = a_profile()

    assert world.find().source is Source.FETCHED


def test_answers_are_counted_by_source(world) -> None:
    """Fetched, then a hit, then stale; a refreshed one is a hit again."""
    world.graph.outcomes[ADA] = a_profile()
    world.find()
    world.find()
    world.clock.now += HOUR + MINUTE
    world.find()
    world.background.run()
    world.find()

    assert world.counted() == {
        ("fetched", "profile"): 1,
        ("hit", "profile"): 2,
        ("stale", "profile"): 1,
    }
    assert world.metrics.refreshes == {"succeeded": 1, "failed": 0}
    assert world.metrics.calls["profile"] == 2


def test_refusals_and_failures_are_counted_by_reason_and_code(world) -> None:
    """A failure is no answer; each has the name that callers know."""
    world.graph.outcomes[ADA] = a_refusal()
    world.graph.outcomes[BEN] = Throttled()
    world.find()
    world.find()
    with pytest.raises(Throttled):
        world.find(BEN)

    assert world.counted() == {
        ("fetched", "consent_required"): 1,
        ("hit", "consent_required"): 1,
        ("none", "throttled"): 1,
    }
    assert world.metrics.calls["consent_required"] == 1
    assert world.metrics.calls["throttled"] == 1
