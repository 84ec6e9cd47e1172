"""Erasing, flushing, and dropping refusals after a message."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any
from unittest.mock import Mock

import fakeredis
import pytest

from proxy.coordination.witnesses import Forgotten
from proxy.domain.answer import Source
from proxy.domain.failures import (
    Overloaded,
    StoreUnavailable,
)
from proxy.lookup.invalidation import Invalidation, What
from proxy.storage.removal import Erased
from tests.helpers.builders import (
    ADA,
    a_profile,
    a_refusal,
)
from tests.helpers.world import World, name_of


@pytest.mark.parametrize("older_than", [None, 0.0])
def test_flush_removes_entries_stored_during_its_first_pass(world, older_than) -> None:
    """A fetch under way either loses its lease or is removed with the rest."""
    world.graph.outcomes[ADA] = a_profile()
    remove = world.cache.keyspace.remove

    def remove_and_land(pattern: str, *args: Any, **options: Any):
        if pattern == "[ln]:*":
            world.clock.now += 1
            world.find()
        return remove(pattern, *args, **options)

    world.cache.keyspace.remove = remove_and_land
    world.lookup.flush(What.PROFILES, older_than=older_than)

    assert world.store.read(ADA).entry is None


def test_erase_and_flush_are_refused_while_too_many_callers_wait(world) -> None:
    """Each takes half a second of a thread, and hits need some."""
    world.graph.outcomes[ADA] = a_profile()
    world.find()

    with ExitStack() as waiting:
        for _ in range(400):
            waiting.enter_context(world.bulkhead.waiting())
        with pytest.raises(Overloaded):
            world.lookup.erase(ADA)
        with pytest.raises(Overloaded):
            world.lookup.flush(What.ALL)

    assert world.find().source is Source.HIT
    assert world.lookup.erase(ADA).entry


def test_erase_forgets_the_witness_after_the_entry_and_then_waits(world) -> None:
    """A fetch that still has its lease would note the witness again behind the erase.

    Both go before the wait, in which a fail-over would refuse the second.
    """
    parts = Mock()
    parts.store.erase.return_value = Erased(True, False, False, False)
    parts.witnesses.forget.return_value = Forgotten(witness=True, row=False)
    invalidation = Invalidation(
        store=parts.store,
        witnesses=parts.witnesses,
        bulkhead=world.bulkhead,
        refresher=parts.refresher,
        lease_for=6.0,
        now=lambda: world.clock.now,
    )

    erased = invalidation.erase(ADA)

    assert erased == Erased(True, False, False, False, witness=True)
    assert [name for name, _, _ in parts.mock_calls] == [
        "store.erase",
        "witnesses.forget",
        "store.wait_out_local_caches",
    ]


def test_message_drops_its_senders_refusal(world) -> None:
    """The next find calls Meta again."""
    world.graph.outcomes[ADA] = a_refusal()
    world.find()
    world.graph.outcomes[ADA] = a_profile()

    world.lookup.on_message_received([ADA])

    assert name_of(world.find()) == "Ada Lovelace"
    assert ("prefetch", ADA) not in world.background.jobs


def test_webhook_without_senders_needs_no_store() -> None:
    """As with most webhooks: read receipts, reactions, and our own messages."""
    server = fakeredis.FakeServer()
    world = World(redis=fakeredis.FakeRedis(server=server))
    server.connected = False

    world.lookup.on_message_received([])

    with pytest.raises(StoreUnavailable):
        world.lookup.on_message_received([ADA])


def test_message_can_prefetch_its_sender(world) -> None:
    """Charged to no key."""
    world.graph.outcomes[ADA] = a_profile()

    world.lookup.on_message_received([ADA], prefetch=True)
    world.background.run()

    assert world.find().source is Source.HIT
    assert world.graph.calls == 1


def test_webhook_is_refused_while_too_many_callers_wait(world) -> None:
    """Each holds a thread for half a second; Meta sends it again."""
    with ExitStack() as held:
        for _ in range(400):
            held.enter_context(world.bulkhead.waiting())

        with pytest.raises(Overloaded):
            world.lookup.on_message_received([ADA])
