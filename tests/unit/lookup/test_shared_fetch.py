"""Fetches that callers share, and answers while the store is away."""

from __future__ import annotations

import fakeredis
import pytest

from proxy.domain.answer import Source
from proxy.domain.failures import (
    GraphTimeout,
    GraphUnavailable,
    Throttled,
    TokenRejected,
    TooManyMisses,
)
from proxy.domain.profile import Igsid
from tests.helpers.builders import (
    ADA,
    MINUTE,
    NOW,
    a_profile,
    picture_url,
)
from tests.helpers.world import BEN, World


def test_entry_that_expires_while_it_is_fetched_is_not_answered(world) -> None:
    """Callers get the fetched outcome, or the failure."""
    short = NOW + 5 * MINUTE
    world.graph.outcomes[ADA] = a_profile(
        profile_pic=picture_url(short), picture_expires_at=short
    )
    world.find()
    world.clock.now = short + 1
    world.graph.outcomes[ADA] = GraphTimeout()

    with pytest.raises(GraphTimeout):
        world.find()


def test_note_of_a_closed_gate_says_that_meta_was_not_asked(world) -> None:
    """The gate was closed for the caller who left it."""
    world.fail_until_closed()
    with pytest.raises(GraphUnavailable):
        world.find()

    with pytest.raises(GraphUnavailable) as raised:
        world.find()

    assert world.store.read(ADA).note
    assert raised.value.asked is False


def test_key_with_a_spent_allowance_takes_no_lease(world) -> None:
    """It may only follow; another caller can make use of the lease."""
    for n in range(2):
        with pytest.raises(GraphUnavailable):
            world.find(Igsid(f"99900{n}"), client="inbox")
    with pytest.raises(TooManyMisses):
        world.find(client="inbox")
    taken = []
    take = world.store.take
    world.store.take = lambda *args: taken.append(args) or take(*args)

    with pytest.raises(TooManyMisses):
        world.find(client="inbox")

    assert taken == []


def test_store_errors_and_calls_are_counted_without_a_store() -> None:
    """The answer counts as fetched, though it cannot be stored."""
    server = fakeredis.FakeServer()
    world = World(redis=fakeredis.FakeRedis(server=server))
    world.graph.outcomes[ADA] = a_profile()
    server.connected = False

    world.find()

    assert world.counted() == {("fetched", "profile"): 1}
    assert world.metrics.calls["profile"] == 1
    assert world.process_metrics.store_errors == {"reads": 1, "writes": 0}


def test_closed_gate_stays_closed_while_the_store_is_away(losing) -> None:
    """Meta does not throttle us any less because our store is away."""
    world, lose_store = losing
    world.graph.outcomes[ADA] = Throttled(retry_after=90.0)
    with pytest.raises(Throttled):
        world.find(ADA)
    world.graph.outcomes[BEN] = a_profile(igsid=BEN)
    lose_store()

    with pytest.raises(Throttled) as stopped:
        world.find(BEN)
    assert 85.0 < stopped.value.retry_after <= 90.0
    assert world.graph.calls == 1

    world.clock.now += 90.0
    assert world.find(BEN).source is Source.FETCHED


def test_throttling_while_the_store_is_away_is_remembered(losing) -> None:
    """By this process, since no other can be informed."""
    world, lose_store = losing
    lose_store()
    world.graph.outcomes[ADA] = Throttled()

    for igsid in (ADA, ADA, BEN):
        with pytest.raises(Throttled):
            world.find(igsid)

    assert world.graph.asked == [ADA]


def test_single_timeout_stops_no_other_call_without_a_store(
    losing,
) -> None:
    """Meta may well answer about the next person."""
    world, lose_store = losing
    lose_store()
    world.graph.outcomes[BEN] = a_profile(igsid=BEN)

    with pytest.raises(GraphUnavailable):
        world.find(ADA)

    assert world.find(BEN).source is Source.FETCHED


def test_new_token_passes_the_old_gate_without_a_store(losing) -> None:
    """As it does with one."""
    world, lose_store = losing
    world.graph.outcomes[ADA] = TokenRejected()
    with pytest.raises(TokenRejected):
        world.find(ADA)
    lose_store()
    with pytest.raises(TokenRejected):
        world.find(ADA)
    assert world.graph.calls == 1

    world.graph.token = "1badcafe"
    world.graph.outcomes[ADA] = a_profile()

    assert world.find(ADA).source is Source.FETCHED


def test_gate_that_has_opened_since_is_not_remembered_as_closed(losing) -> None:
    """Another process may have found it open."""
    world, lose_store = losing
    world.graph.outcomes[ADA] = Throttled(retry_after=90.0)
    with pytest.raises(Throttled):
        world.find(ADA)
    world.redis.flushall()
    other = Igsid("9990001")
    for igsid in (BEN, other):
        world.graph.outcomes[igsid] = a_profile(igsid=igsid)
    world.find(BEN)
    lose_store()

    assert world.find(other).source is Source.FETCHED
