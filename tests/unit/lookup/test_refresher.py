"""Refreshes and prefetches: who is fetched in the background, and when."""

from __future__ import annotations

import logging

import fakeredis
import pytest

from proxy.coordination.gate_state import RefreshCounter
from proxy.domain.answer import FetchResult, Source
from proxy.domain.backoff import FIRST_POSTPONEMENT, LONGEST_POSTPONEMENT
from proxy.domain.failures import (
    GraphTimeout,
)
from proxy.domain.profile import Igsid, Reason, Refusal
from tests.helpers.builders import (
    ADA,
    DAY,
    MINUTE,
    NOW,
    a_profile,
    a_refusal,
)
from tests.helpers.fakes import FakeGraph
from tests.helpers.world import BEN, World, name_of


def test_stale_entry_is_answered_at_once_and_refreshed_once(world) -> None:
    """However often it is found meanwhile."""
    world.has_stale(name="Before")
    world.graph.outcomes[ADA] = a_profile(name="After")

    stale = [name_of(world.find()) for _ in range(5)]
    asked_by_then = world.graph.calls
    world.background.run()

    assert (stale, asked_by_then) == (["Before"] * 5, 0)
    assert name_of(world.find()) == "After"
    assert world.graph.calls == 1
    assert world.lookup.gate_state().refreshes[RefreshCounter.REFRESHED] == 1


def test_stale_entry_is_not_refreshed_while_its_lease_is_held(world) -> None:
    """The lease in the snapshot shows that another process refreshes it."""
    world.has_stale()
    world.store.take(ADA, "elsewhere", 6.0)

    world.find()

    assert ADA not in world.background.jobs


def test_refresh_is_skipped_if_another_process_was_faster(world) -> None:
    """It refreshed between the answer and the job."""
    world.has_stale()
    world.find()
    other = World(redis=world.redis, clock=world.clock)
    other.graph.outcomes[ADA] = a_profile()
    other.find()
    other.background.run()

    world.background.run()

    assert (world.graph.calls, other.graph.calls) == (0, 1)


def test_queued_refresh_does_not_fetch_an_erased_person(world) -> None:
    """After an erasure, only a caller's find makes a call."""
    world.has_stale()
    world.find()
    world.lookup.erase(ADA)

    world.background.run()

    assert world.graph.calls == 0
    assert not world.redis.keys(f"*{ADA}*")


def test_failed_refresh_reaches_no_caller(world) -> None:
    """The stale entry is answered as before, with a note and without."""
    world.has_stale(name="Before")
    world.graph.outcomes[ADA] = GraphTimeout()
    world.find()
    world.background.run()

    answers = [world.find(), (world.forget_note(), world.find())[1]]

    assert {name_of(answer) for answer in answers} == {"Before"}
    assert {answer.source for answer in answers} == {Source.HIT}
    assert world.lookup.gate_state().refreshes[RefreshCounter.REFRESH_FAILED] == 1


def test_failed_refresh_is_logged_by_its_code(world, caplog) -> None:
    """With the last digits of the person's id."""
    caplog.set_level(logging.INFO)
    world.has_stale()
    world.graph.outcomes[ADA] = GraphTimeout()
    world.find()

    world.background.run()

    [line] = [r for r in caplog.records if r.message == "refresh failed"]
    assert (vars(line)["result"], vars(line)["page"]) == ("graph_timeout", "default")
    assert ADA not in str(vars(line))


def test_failed_refresh_is_retried_after_growing_pauses(world) -> None:
    """10 s, 20 s, 40 s ... 10 min; a success starts again at the first."""
    world.has_stale(picture_expires_at=NOW + 4 * DAY)
    pauses = []
    for _ in range(9):
        world.graph.outcomes[ADA] = GraphTimeout()
        world.find()
        world.background.run()
        world.redis.delete("pp:g:{default}:unavailable")
        world.forget_note()
        entry = world.store.read(ADA).entry
        pauses.append(entry.refresh_after - world.clock.now)
        world.clock.now = entry.refresh_after - 1
        world.find()
        assert ADA not in world.background.jobs
        world.clock.now += 1

    assert pauses[:4] == [10, 20, 40, 80]
    assert pauses[-1] == LONGEST_POSTPONEMENT

    world.graph.outcomes[ADA] = a_profile()
    world.find()
    world.background.run()
    assert world.store.read(ADA).entry.failed_refreshes == 0


def test_refresh_at_a_closed_gate_does_not_count_as_failed(
    world,
) -> None:
    """Meta was not asked about this person, so the stale entry stays as it was."""
    world.has_stale(name="Before")
    world.fail_until_closed()

    answer = world.find()
    world.background.run()
    entry = world.store.read(ADA).entry

    assert name_of(answer) == "Before"
    assert world.graph.calls == 0
    assert entry.failed_refreshes == 0
    assert 0 < entry.refresh_after - world.clock.now <= FIRST_POSTPONEMENT


def test_unavailable_never_replaces_a_usable_profile(world) -> None:
    """It delays the refresh, for as long as it would have been stored itself."""
    world.has_stale(name="Before")
    world.graph.outcomes[ADA] = a_refusal(reason=Reason.UNAVAILABLE)
    world.find()
    world.background.run()

    entry = world.store.read(ADA).entry

    assert name_of(world.find()) == "Before"
    assert entry.refresh_after == world.clock.now + 10 * MINUTE
    assert world.graph.calls == 1


@pytest.mark.parametrize(
    "reason", [Reason.CONSENT_REQUIRED, Reason.BLOCKED, Reason.NOT_FOUND]
)
def test_any_other_refusal_replaces_a_profile(world, reason) -> None:
    """People who have blocked us or left are not shown any longer than necessary."""
    world.has_stale()
    world.graph.outcomes[ADA] = a_refusal(reason=reason)
    world.find()
    world.background.run()

    outcome = world.find().entry.outcome

    assert isinstance(outcome, Refusal)
    assert outcome.reason is reason


def test_no_entry_is_refreshed_above_the_soft_limit(world) -> None:
    """Stale entries are used to their end; misses are fetched."""
    world.graph.usage_percent = 80.0
    world.has_stale(name="Before")
    world.graph.outcomes[BEN] = a_profile(igsid=BEN)

    answer = world.find()
    world.background.run()
    asked = list(world.graph.asked)

    assert name_of(answer) == "Before"
    assert asked == []
    assert world.find(BEN).source is Source.FETCHED


def test_background_refresh_is_charged_to_no_key(world) -> None:
    """The caller who finds a stale entry has not caused the call."""
    world.has_stale()
    world.find(client="inbox")
    world.background.run()

    assert not world.redis.exists("pp:a:{inbox}")


class FlushingGraph(FakeGraph):
    """Meta, while a flush is in its second pass: the entry goes, the lease stays."""

    def __init__(self, redis: fakeredis.FakeRedis) -> None:
        super().__init__()
        self.redis = redis

    def fetch(self, igsid: Igsid, within: float) -> FetchResult:
        self.redis.delete(f"pp:e:{{default:{igsid}}}")
        return super().fetch(igsid, within)


@pytest.mark.parametrize(
    "result", [GraphTimeout(), a_refusal(reason=Reason.UNAVAILABLE)], ids=str
)
def test_refresh_does_not_restore_a_flushed_entry(world, result) -> None:
    """Its lease is younger than the first pass, its entry older than the second."""
    world.has_stale()
    redis = world.redis
    late = World(redis=redis, clock=world.clock, graph=FlushingGraph(redis))
    late.graph.outcomes[ADA] = result
    late.find()

    late.background.run()

    assert world.store.read(ADA).entry is None


def test_refresh_held_back_by_the_quota_does_not_count_as_failed(world) -> None:
    """Above the soft limit; and it is tried again soon after."""
    world.graph.usage_percent = 80.0
    world.has_stale()

    world.find()
    world.background.run()
    entry = world.store.read(ADA).entry

    assert entry.failed_refreshes == 0
    assert 0 < entry.refresh_after - world.clock.now <= FIRST_POSTPONEMENT
    assert world.lookup.gate_state().refreshes[RefreshCounter.REFRESH_FAILED] == 0


def test_failed_refresh_is_counted(world) -> None:
    """The caller's answer is counted as stale all the same."""
    world.has_stale()
    world.graph.outcomes[ADA] = GraphTimeout()
    world.find()
    world.background.run()

    assert world.metrics.refreshes == {"succeeded": 0, "failed": 1}
    assert world.counted()["stale", "profile"] == 1


def test_prefetch_skips_a_fresh_profile(world) -> None:
    """However many messages its person sends."""
    world.graph.outcomes[ADA] = a_profile()
    world.find()

    world.lookup.on_message_received([ADA], prefetch=True)
    world.background.run()

    assert world.graph.calls == 1


def test_prefetch_is_skipped_above_the_soft_limit(world) -> None:
    """A caller who finds the person is not stopped by that."""
    world.graph.outcomes[ADA] = a_profile()
    world.graph.outcomes[BEN] = a_profile(igsid=BEN)
    world.graph.usage_percent = 80.0
    world.find(BEN)

    world.lookup.on_message_received([ADA], prefetch=True)
    world.background.run()

    assert world.graph.asked == [BEN]
    assert world.find().source is Source.FETCHED
