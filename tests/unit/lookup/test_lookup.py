"""One question, one answer, in every state of the entry, the gate and the quota."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import fakeredis
import pytest

from proxy.coordination.gate import RefreshCounter
from proxy.domain.answer import FetchResult, Source
from proxy.domain.backoff import FIRST_POSTPONEMENT, LONGEST_POSTPONEMENT
from proxy.domain.entry import ExpiryReason
from proxy.domain.failures import (
    GraphTimeout,
    GraphUnavailable,
    Overloaded,
    PermissionMissing,
    StoreUnavailable,
    Throttled,
    TokenRejected,
    TooManyMisses,
)
from proxy.domain.profile import Igsid, Reason, Refusal
from proxy.lookup.invalidation import What
from tests.helpers.builders import (
    ADA,
    DAY,
    HOUR,
    MINUTE,
    NOW,
    a_profile,
    a_refusal,
    picture_url,
)
from tests.helpers.fakes import FakeGraph
from tests.helpers.prometheus import total
from tests.helpers.world import BEN, World, name_of


@pytest.fixture
def world() -> World:
    return World()


def test_a_hit_asks_nobody(world) -> None:
    """One call for two questions."""
    world.graph.outcomes[ADA] = a_profile()

    first, second = world.find(), world.find()

    assert (first.source, second.source) == (Source.FETCHED, Source.HIT)
    assert world.graph.calls == 1


def test_a_stale_entry_is_answered_at_once_and_refreshed_once(world) -> None:
    """However often it is asked for meanwhile."""
    world.has_stale(name="Before")
    world.graph.outcomes[ADA] = a_profile(name="After")

    stale = [name_of(world.find()) for _ in range(5)]
    asked_by_then = world.graph.calls
    world.background.run()

    assert (stale, asked_by_then) == (["Before"] * 5, 0)
    assert name_of(world.find()) == "After"
    assert world.graph.calls == 1
    assert world.lookup.gate_state().refreshes[RefreshCounter.REFRESHED] == 1


def test_a_forced_fetch_asks_meta_whatever_is_stored(world) -> None:
    """And everybody is answered with what it told."""
    world.graph.outcomes[ADA] = a_profile(name="Before")
    world.find()
    world.clock.now += MINUTE
    world.graph.outcomes[ADA] = a_profile(name="After")

    answer = world.lookup.refresh(ADA)

    assert (name_of(answer), answer.source) == ("After", Source.FETCHED)
    assert (name_of(world.find()), world.graph.calls) == ("After", 2)
    assert world.counted()["fetched", "profile"] == 2


def test_a_forced_fetch_that_fails_leaves_what_was_there(world) -> None:
    """Whoever forced it is told; everybody else is answered as before."""
    world.graph.outcomes[ADA] = a_profile()
    world.find()
    world.graph.outcomes[ADA] = TokenRejected()

    with pytest.raises(TokenRejected):
        world.lookup.refresh(ADA)

    assert world.find().source is Source.HIT
    assert world.counted()["none", "token_rejected"] == 1


def test_a_forced_fetch_is_charged_to_who_leads_it(world) -> None:
    """The allowance of two is spent by a miss and a forced fetch."""
    world.graph.outcomes[ADA] = a_profile()
    world.find(client="inbox")
    world.lookup.refresh(ADA, client="inbox")

    with pytest.raises(TooManyMisses):
        world.lookup.refresh(ADA, client="inbox")

    assert world.graph.calls == 2
    assert world.store.read(ADA).lease is None


def test_a_forced_fetch_that_could_not_be_kept_is_none() -> None:
    """What is shown afterwards would be from before, should the store be back."""
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


def test_a_forced_fetch_does_not_pass_a_closed_gate(world) -> None:
    """An operator who forces it in an outage must not make it longer."""
    world.fail_until_closed()

    with pytest.raises(GraphUnavailable):
        world.lookup.refresh(ADA)

    assert world.graph.calls == 0


def test_somebody_elses_refresh_is_enough(world) -> None:
    """The lease that is seen with the entry says that it is being made."""
    world.has_stale()
    world.store.take(ADA, "elsewhere", 6.0)

    world.find()

    assert ADA not in world.background.jobs


def test_a_refresh_that_comes_too_late_asks_nobody(world) -> None:
    """Another process has been faster between the answer and the job."""
    world.has_stale()
    world.find()
    other = World(redis=world.redis, clock=world.clock)
    other.graph.outcomes[ADA] = a_profile()
    other.find()
    other.background.run()

    world.background.run()

    assert (world.graph.calls, other.graph.calls) == (0, 1)


def test_an_erased_person_is_not_fetched_by_a_refresh_that_waited(world) -> None:
    """Erased means that somebody has to ask before Meta is."""
    world.has_stale()
    world.find()
    world.lookup.erase(ADA)

    world.background.run()

    assert world.graph.calls == 0
    assert not world.redis.keys(f"*{ADA}*")


def test_a_failed_refresh_reaches_nobody(world) -> None:
    """The stale entry is answered as before, note or no note."""
    world.has_stale(name="Before")
    world.graph.outcomes[ADA] = GraphTimeout()
    world.find()
    world.background.run()

    answers = [world.find(), (world.forget_note(), world.find())[1]]

    assert {name_of(answer) for answer in answers} == {"Before"}
    assert {answer.source for answer in answers} == {Source.HIT}
    assert world.lookup.gate_state().refreshes[RefreshCounter.REFRESH_FAILED] == 1


def test_a_failed_refresh_is_logged_by_its_code(world, caplog) -> None:
    """With the last digits of whose it was."""
    caplog.set_level(logging.INFO)
    world.has_stale()
    world.graph.outcomes[ADA] = GraphTimeout()
    world.find()

    world.background.run()

    [line] = [r for r in caplog.records if r.message == "refresh failed"]
    assert (vars(line)["result"], vars(line)["page"]) == ("graph_timeout", "default")
    assert ADA not in str(vars(line))


def test_a_failed_refresh_is_tried_again_after_a_growing_while(world) -> None:
    """10 s, 20 s, 40 s ... 10 min; a success starts anew."""
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


def test_a_closed_gate_leaves_the_stale_entry_and_holds_nothing_against_it(
    world,
) -> None:
    """Meta was not asked about this person, so nothing has failed."""
    world.has_stale(name="Before")
    world.fail_until_closed()

    answer = world.find()
    world.background.run()
    entry = world.store.read(ADA).entry

    assert name_of(answer) == "Before"
    assert world.graph.calls == 0
    assert entry.failed_refreshes == 0
    assert 0 < entry.refresh_after - world.clock.now <= FIRST_POSTPONEMENT


def test_a_closed_gate_answers_a_miss_as_its_cause(world) -> None:
    """With the wait, and without asking."""
    world.fail_until_closed()

    with pytest.raises(GraphUnavailable) as stopped:
        world.find()

    assert 0 < stopped.value.retry_after <= 5.0
    assert stopped.value.asked is False
    assert world.graph.calls == 0


def test_the_cache_is_looked_at_before_the_gate(world) -> None:
    """Hits do not notice that Meta is down."""
    world.graph.outcomes[ADA] = a_profile()
    world.find()
    world.fail_until_closed()

    assert world.find().source is Source.HIT


def test_a_throttle_says_how_long_the_gate_is_closed(world) -> None:
    """Also to the caller who ran into it, and where Meta does not say."""
    world.graph.outcomes[ADA] = Throttled()

    with pytest.raises(Throttled) as throttled:
        world.find()

    assert throttled.value.retry_after == pytest.approx(60.0, abs=2)


def test_a_new_token_opens_the_gate_of_the_old_one(world) -> None:
    """As soon as this process has it."""
    world.graph.outcomes[ADA] = TokenRejected()
    with pytest.raises(TokenRejected):
        world.find()
    world.forget_note()

    world.graph.token = "600dcafe"
    world.graph.outcomes[ADA] = a_profile()

    assert world.find().source is Source.FETCHED


def test_unavailable_never_replaces_a_usable_profile(world) -> None:
    """It delays the refresh, as long as it would have been kept itself."""
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
    """Who has blocked us or left is not shown any longer than we have to."""
    world.has_stale()
    world.graph.outcomes[ADA] = a_refusal(reason=reason)
    world.find()
    world.background.run()

    outcome = world.find().entry.outcome

    assert isinstance(outcome, Refusal)
    assert outcome.reason is reason


def test_a_refusal_is_never_stale(world) -> None:
    """Once it may have changed, Meta is asked again before anything is said."""
    world.graph.outcomes[ADA] = a_refusal()
    world.find()
    world.clock.now += 15 * MINUTE
    world.graph.outcomes[ADA] = a_profile()

    assert world.find().source is Source.FETCHED


def test_many_whom_meta_does_not_show_are_a_lost_permission(world) -> None:
    """From the tenth on nothing is stored against anybody, until one succeeds."""
    people = [Igsid(f"12540{n:02d}") for n in range(12)]
    for igsid in people:
        world.graph.outcomes[igsid] = a_refusal(igsid=igsid, reason=Reason.UNAVAILABLE)

    for igsid in people[:9]:
        assert isinstance(world.find(igsid).entry.outcome, Refusal)
    for igsid in people[9:]:
        with pytest.raises(PermissionMissing):
            world.find(igsid)
        assert world.store.read(igsid).entry is None

    world.graph.outcomes[ADA] = a_profile()
    world.find()
    world.forget_note(people[9])
    assert isinstance(world.find(people[9]).entry.outcome, Refusal)


def test_above_the_soft_limit_nothing_is_refreshed(world) -> None:
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


def test_above_the_hard_limit_calls_go_one_at_a_time(world) -> None:
    """In this process; and side by side again when Meta says so, or nothing."""
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


def test_each_call_is_charged_to_the_key_that_leads_it(world) -> None:
    """Hits are free, and so is what fails for want of an allowance."""
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


def test_a_spent_allowance_is_nobody_elses_failure(world) -> None:
    """No note is left, and no lease."""
    for n in range(2):
        with pytest.raises(GraphUnavailable):
            world.find(Igsid(f"99900{n}"), client="inbox")
    world.graph.outcomes[ADA] = a_profile()
    with pytest.raises(TooManyMisses):
        world.find(client="inbox")

    seen = world.store.read(ADA)

    assert (seen.lease, seen.note) == (None, None)
    assert world.find(client="crm").source is Source.FETCHED


def test_a_refresh_is_charged_to_nobody(world) -> None:
    """Whoever asks for something stale has not caused the call."""
    world.has_stale()
    world.find(client="inbox")
    world.background.run()

    assert not world.redis.exists("pp:a:{inbox}")


def test_a_changed_token_drops_what_the_old_one_may_have_caused(world) -> None:
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


def test_a_restart_with_another_token_drops_them_too_and_with_the_same_does_not(
    world,
) -> None:
    """The token that was used last is known to the store, by its digest."""
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


@pytest.mark.parametrize("older_than", [None, 0.0])
def test_a_flush_removes_what_lands_while_it_looks_for_leases(
    world, older_than
) -> None:
    """A fetch under way either loses its lease or is removed with the rest."""
    world.graph.outcomes[ADA] = a_profile()
    remove = world.store._cache.remove

    def remove_and_land(pattern: str, *args: Any, **options: Any):
        if pattern == "[ln]:*":
            world.clock.now += 1
            world.find()
        return remove(pattern, *args, **options)

    world.store._cache.remove = remove_and_land
    world.lookup.flush(What.PROFILES, older_than=older_than)

    assert world.store.read(ADA).entry is None


def test_an_entry_that_ends_while_it_is_refreshed_is_not_answered(world) -> None:
    """Whoever joined the refresh is answered by what it learned, or by nothing."""
    short = NOW + 5 * MINUTE
    world.graph.outcomes[ADA] = a_profile(
        profile_pic=picture_url(short), picture_expires_at=short
    )
    world.find()
    world.clock.now = short + 1
    world.graph.outcomes[ADA] = GraphTimeout()

    with pytest.raises(GraphTimeout):
        world.find()


def test_a_spent_allowance_leaves_the_probe_to_others(world) -> None:
    """Or the gate would stay closed for a call that nobody may make."""
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


class Overtaken(FakeGraph):
    """Meta, while a flush is in its second pass: the entry goes, the lease stays."""

    def __init__(self, redis: fakeredis.FakeRedis) -> None:
        super().__init__()
        self.redis = redis

    def fetch(self, igsid: Igsid, within: float) -> FetchResult:
        self.redis.delete(f"pp:e:{{default:{igsid}}}")
        return super().fetch(igsid, within)


@pytest.mark.parametrize(
    "told", [GraphTimeout(), a_refusal(reason=Reason.UNAVAILABLE)], ids=str
)
def test_a_refresh_brings_nothing_back_that_a_flush_has_removed(world, told) -> None:
    """Its lease is younger than the first pass, what it knew older than the second."""
    world.has_stale()
    redis = world.redis
    late = World(redis=redis, clock=world.clock, graph=Overtaken(redis))
    late.graph.outcomes[ADA] = told
    late.find()

    late.background.run()

    assert world.store.read(ADA).entry is None


def test_what_is_held_back_is_no_failure_of_the_person(world) -> None:
    """Above the soft limit; and it is tried again soon after."""
    world.graph.usage_percent = 80.0
    world.has_stale()

    world.find()
    world.background.run()
    entry = world.store.read(ADA).entry

    assert entry.failed_refreshes == 0
    assert 0 < entry.refresh_after - world.clock.now <= FIRST_POSTPONEMENT
    assert world.lookup.gate_state().refreshes[RefreshCounter.REFRESH_FAILED] == 0


def test_what_an_old_token_is_not_shown_is_kept_briefly(world) -> None:
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


def test_a_token_that_cannot_be_followed_up_is_tried_again_later(world) -> None:
    """Each try takes the leases of all who ask just then."""
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


def test_a_bug_while_asking_leaves_the_probe_to_others(world) -> None:
    """Or the gate would stay closed for as long as a lease."""
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


def test_whoever_reads_a_note_is_told_that_nobody_asked(world) -> None:
    """The gate was closed for the one who left it."""
    world.fail_until_closed()
    with pytest.raises(GraphUnavailable):
        world.find()

    with pytest.raises(GraphUnavailable) as noted:
        world.find()

    assert world.store.read(ADA).note
    assert noted.value.asked is False


def test_a_key_with_nothing_left_still_follows(world) -> None:
    """And takes no lease that another could make use of."""
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


def test_answers_are_counted_by_where_they_came_from(world) -> None:
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


def test_refusals_and_failures_are_counted_as_what_they_are(world) -> None:
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


def test_what_the_gate_stops_is_no_call(world) -> None:
    """Nobody asked Meta, though a caller was told a failure."""
    world.fail_until_closed()
    with pytest.raises(GraphUnavailable):
        world.find()

    assert world.counted() == {("none", "graph_unavailable"): 6}
    assert world.metrics.calls["graph_unavailable"] == 5


def test_a_failed_refresh_is_counted(world) -> None:
    """The caller's answer is counted as stale all the same."""
    world.has_stale()
    world.graph.outcomes[ADA] = GraphTimeout()
    world.find()
    world.background.run()

    assert world.metrics.refreshes == {"succeeded": 0, "failed": 1}
    assert world.counted()["stale", "profile"] == 1


def test_a_call_is_timed_by_the_clock_of_the_flights(world) -> None:
    """From the moment before it to the moment after."""

    class SlowGraph(FakeGraph):
        def fetch(self, igsid: Igsid, within: float) -> FetchResult:
            world.pass_time(0.4)
            return super().fetch(igsid, within)

    slow = World(redis=world.redis, clock=world.clock, graph=SlowGraph())
    slow.graph.outcomes[ADA] = a_profile()
    slow.find()

    text = slow.metrics.exposition(None).decode()
    assert total(text, "graph_call_seconds_bucket", le="0.3") == 0
    assert total(text, "graph_call_seconds_bucket", le="0.5") == 1


def test_without_a_store_its_errors_and_the_calls_are_counted() -> None:
    """What was learned is a fetched answer, though nobody keeps it."""
    server = fakeredis.FakeServer()
    world = World(redis=fakeredis.FakeRedis(server=server))
    world.graph.outcomes[ADA] = a_profile()
    server.connected = False

    world.find()

    assert world.counted() == {("fetched", "profile"): 1}
    assert world.metrics.calls["profile"] == 1
    assert world.metrics.store_errors == {"reads": 1, "writes": 0}


def test_where_too_many_wait_nobody_is_erased_or_flushed(world) -> None:
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


def test_whoever_writes_is_asked_for_anew(world) -> None:
    """Not told what Meta said before."""
    world.graph.outcomes[ADA] = a_refusal()
    world.find()
    world.graph.outcomes[ADA] = a_profile()

    world.lookup.on_message_received([ADA])

    assert name_of(world.find()) == "Ada Lovelace"
    assert ("prefetch", ADA) not in world.background.jobs


@pytest.fixture
def losing() -> tuple[World, Callable[[], None]]:
    """A world, and what takes its store away."""
    server = fakeredis.FakeServer()
    world = World(redis=fakeredis.FakeRedis(server=server))
    return world, lambda: setattr(server, "connected", False)


def test_a_gate_that_was_closed_stays_so_while_nobody_can_ask_it(losing) -> None:
    """Meta does not throttle us any less for our store's being away."""
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


def test_what_meta_throttles_while_the_store_is_away_is_remembered(losing) -> None:
    """By this process, since nobody else can be told."""
    world, lose_store = losing
    lose_store()
    world.graph.outcomes[ADA] = Throttled()

    for igsid in (ADA, ADA, BEN):
        with pytest.raises(Throttled):
            world.find(igsid)

    assert world.graph.asked == [ADA]


def test_a_failure_that_closes_no_gate_by_itself_stops_nobody_without_one(
    losing,
) -> None:
    """The next person may be one of whom Meta does tell."""
    world, lose_store = losing
    lose_store()
    world.graph.outcomes[BEN] = a_profile(igsid=BEN)

    with pytest.raises(GraphUnavailable):
        world.find(ADA)

    assert world.find(BEN).source is Source.FETCHED


def test_a_new_token_passes_the_gate_of_the_old_one_without_a_store(losing) -> None:
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


def test_a_gate_that_has_opened_since_is_not_remembered_as_closed(losing) -> None:
    """It may have been another process that found it open."""
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


def test_where_nobody_has_written_the_store_may_be_away() -> None:
    """As with most webhooks: what was read, reacted to, or written by us."""
    server = fakeredis.FakeServer()
    world = World(redis=fakeredis.FakeRedis(server=server))
    server.connected = False

    world.lookup.on_message_received([])

    with pytest.raises(StoreUnavailable):
        world.lookup.on_message_received([ADA])


def test_whoever_writes_can_be_fetched_before_anybody_asks(world) -> None:
    """Charged to nobody."""
    world.graph.outcomes[ADA] = a_profile()

    world.lookup.on_message_received([ADA], prefetch=True)
    world.background.run()

    assert world.find().source is Source.HIT
    assert world.graph.calls == 1


def test_a_fresh_profile_is_not_fetched_again(world) -> None:
    """However much its owner writes."""
    world.graph.outcomes[ADA] = a_profile()
    world.find()

    world.lookup.on_message_received([ADA], prefetch=True)
    world.background.run()

    assert world.graph.calls == 1


def test_nothing_is_prefetched_when_the_quota_is_short(world) -> None:
    """And whoever asks for themselves is not stopped by that."""
    world.graph.outcomes[ADA] = a_profile()
    world.graph.outcomes[BEN] = a_profile(igsid=BEN)
    world.graph.usage_percent = 80.0
    world.find(BEN)

    world.lookup.on_message_received([ADA], prefetch=True)
    world.background.run()

    assert world.graph.asked == [BEN]
    assert world.find().source is Source.FETCHED


def test_too_many_who_wait_are_too_many_webhooks(world) -> None:
    """Each holds a thread for half a second; Meta sends it again."""
    with ExitStack() as held:
        for _ in range(400):
            held.enter_context(world.bulkhead.waiting())

        with pytest.raises(Overloaded):
            world.lookup.on_message_received([ADA])
