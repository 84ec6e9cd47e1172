"""Refusals that depended on a token are dropped when it changes."""

from __future__ import annotations

from proxy.domain.failures import (
    StoreUnavailable,
)
from proxy.domain.profile import Igsid, Reason
from tests.helpers.builders import (
    ADA,
    a_profile,
    a_refusal,
)
from tests.helpers.world import World


def test_changed_token_drops_the_refusals_that_depend_on_it(world) -> None:
    """``not_found`` and ``unavailable`` depend on what a token may see."""
    people = {}
    for number, reason in enumerate(Reason):
        igsid = people[reason] = Igsid(f"12540{number}")
        world.graph.outcomes[igsid] = a_refusal(igsid=igsid, reason=reason)
        world.find(igsid)
    world.graph.outcomes[ADA] = a_profile()
    world.find()
    world.background.run()
    world.graph.token = "600dcafe"

    world.find()
    world.background.run()
    kept = {r for r, igsid in people.items() if world.store.read(igsid).entry}

    assert kept == {Reason.CONSENT_REQUIRED, Reason.BLOCKED}
    assert world.store.read(ADA).entry


def test_restart_drops_those_refusals_only_if_the_token_changed(
    world,
) -> None:
    """The store has the digest of the token that was used last."""
    world.graph.outcomes[ADA] = a_refusal(reason=Reason.NOT_FOUND)
    world.find()
    world.background.run()

    same = World(redis=world.redis, clock=world.clock)
    same.find()
    same.background.run()
    kept = world.store.read(ADA).entry
    other = World(redis=world.redis, clock=world.clock)
    other.graph.token = "600dcafe"
    other.find()
    other.background.run()

    assert kept
    assert world.store.read(ADA).entry is None


def test_failed_token_rotation_is_retried_every_ten_seconds(world) -> None:
    """Each attempt takes the leases of all fetches under way."""
    world.graph.outcomes[ADA] = a_profile()
    world.store.note_token("01d70ce2")
    flushes = []

    def flush(matches, **_):
        flushes.append(world.clock.now)
        raise StoreUnavailable()

    world.store.flush = flush
    for _ in range(30):
        world.find()
        world.background.run()
        world.clock.now += 1

    assert len(flushes) == 3
