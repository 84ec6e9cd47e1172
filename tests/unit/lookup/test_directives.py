"""Cache directives of a caller: ``no-cache``, ``max-age`` and ``only-if-cached``."""

from __future__ import annotations

import fakeredis
import pytest

from proxy.domain.answer import Answer, Directives, FetchResult, Source
from proxy.domain.backoff import postpone
from proxy.domain.failures import (
    GraphTimeout,
    GraphUnavailable,
    NotCached,
    Throttled,
    TooManyMisses,
)
from proxy.domain.freshness import merge, stamp
from proxy.domain.profile import GraphError, Igsid, Reason, Refusal
from tests.helpers.builders import ADA, HOUR, LIFETIMES, MINUTE, a_profile, a_refusal
from tests.helpers.fakes import FakeGraph
from tests.helpers.world import BEN, World, name_of

NO_CACHE = Directives(no_cache=True)
ONLY_IF_CACHED = Directives(only_if_cached=True)


def ask(world: World, directives: Directives, client: str | None = None) -> Answer:
    return world.lookup.find(ADA, client=client, directives=directives)


def has_fresh(world: World) -> None:
    """Ada is cached as Before, and Meta would return After."""
    world.graph.outcomes[ADA] = a_profile(name="Before")
    world.find()
    world.graph.outcomes[ADA] = a_profile(name="After")
    world.clock.now += 2


def test_no_cache_calls_meta_and_stores_its_outcome(world) -> None:
    """Other callers get it from then on."""
    has_fresh(world)

    answer = ask(world, NO_CACHE)

    assert (name_of(answer), answer.source) == ("After", Source.FETCHED)
    assert answer.is_forced
    assert name_of(world.find()) == "After"
    assert world.graph.calls == 2


@pytest.mark.parametrize(
    "directives", [NO_CACHE, Directives(max_age=0.0), Directives(max_age=1.0)]
)
@pytest.mark.parametrize("outcome", [a_profile, a_refusal], ids=["profile", "refusal"])
@pytest.mark.parametrize(
    ("age", "calls"), [(0.0, 0), (1.9, 0), (2.0, 1), (-1.9, 0), (-2.0, 1)]
)
def test_entry_of_the_last_two_seconds_satisfies_every_caller(
    world, directives, outcome, age, calls
) -> None:
    """``fetch`` of Node.js sends ``no-cache`` with every request of some modes.

    A clock that is ahead has stored the entry in the future, but not far from now.
    """
    world.graph.outcomes[ADA] = outcome()
    world.find()
    world.graph.asked.clear()
    world.clock.now += age
    if age < 0 and directives.max_age is not None:
        calls = 0  # Younger than any age, as before.

    answer = ask(world, directives)

    assert (answer.source is Source.HIT) is (calls == 0)
    assert world.graph.calls == calls


def test_operator_s_refresh_is_not_satisfied_by_an_entry_of_now(world) -> None:
    """It asks Meta whatever is stored."""
    world.graph.outcomes[ADA] = a_profile()
    world.find()

    assert world.lookup.refresh(ADA).source is Source.FETCHED
    assert world.graph.calls == 2


def test_no_cache_without_an_entry_is_a_plain_miss(world) -> None:
    """There was no entry that the caller did not want."""
    world.graph.outcomes[ADA] = a_profile()

    answer = ask(world, NO_CACHE)

    assert (answer.source, answer.is_forced) == (Source.FETCHED, False)


@pytest.mark.parametrize("outcome", [a_profile, a_refusal], ids=["profile", "refusal"])
def test_no_cache_answers_the_stored_entry_if_meta_fails(world, outcome) -> None:
    """And leaves it as it was: no refresh that was due has failed."""
    world.graph.outcomes[ADA] = outcome()
    before = world.find().entry
    world.clock.now += 2
    world.graph.outcomes[ADA] = GraphTimeout()

    answer = ask(world, NO_CACHE)

    assert answer.source is Source.STALE
    assert isinstance(answer.failure, GraphTimeout)
    assert answer.entry == world.store.read(ADA).entry == before


def test_entry_erased_during_the_call_is_not_answered(world) -> None:
    """The entry the caller saw before is no longer there to fall back on."""
    has_fresh(world)

    class Erasing(FakeGraph):
        def fetch(self, igsid: Igsid, within: float) -> FetchResult:
            world.lookup.erase(igsid)
            return FetchResult(GraphTimeout(), None, self.token)

    late = World(redis=world.redis, clock=world.clock, graph=Erasing())

    with pytest.raises(GraphTimeout):
        ask(late, NO_CACHE)


def test_no_second_call_is_made_if_the_store_goes_with_the_first() -> None:
    """The call has failed, though no follower could be informed."""
    server = fakeredis.FakeServer()

    class Cutting(FakeGraph):
        def fetch(self, igsid: Igsid, within: float) -> FetchResult:
            server.connected = self.calls == 0
            return super().fetch(igsid, within)

    world = World(redis=fakeredis.FakeRedis(server=server), graph=Cutting())
    has_fresh(world)
    world.graph.outcomes[ADA] = GraphTimeout()

    with pytest.raises(GraphTimeout):
        ask(world, NO_CACHE)

    assert world.graph.calls == 2


def has_failed_in_a_row(world: World, failures: int) -> None:
    """The last *failures* calls about Ada have failed, and now Meta shows her."""
    for _ in range(failures):
        world.age_note(ADA, 600.0 - 1.0)
        world.graph.outcomes[ADA] = GraphUnavailable()
        with pytest.raises(GraphUnavailable):
            ask(world, NO_CACHE)
        world.open_gates()
    world.graph.outcomes[ADA] = a_profile()
    world.graph.asked.clear()


@pytest.mark.parametrize(("failures", "seconds"), [(1, 1), (2, 2), (4, 4), (7, 30)])
def test_no_cache_passes_an_earlier_failure_after_half_the_pause(
    world, failures, seconds
) -> None:
    """But not sooner than after 2 s, or when all others pass it."""
    has_failed_in_a_row(world, failures)
    world.age_note(ADA, seconds - 0.2)
    with pytest.raises(GraphUnavailable) as failed:
        ask(world, NO_CACHE)
    world.age_note(ADA, 0.2)

    answer = ask(world, NO_CACHE)

    assert answer.source is Source.FETCHED
    assert failed.value.retry_after == pytest.approx(0.2, abs=0.1)
    assert world.graph.calls == 1


def test_operator_s_refresh_passes_every_failure(world) -> None:
    """At once, however many failures there were in a row."""
    has_failed_in_a_row(world, 7)

    assert world.lookup.refresh(ADA).source is Source.FETCHED


def test_failure_that_answers_leaves_the_stored_entry_its_place(world) -> None:
    """A caller that forces a fetch gets it as ever, at no call, with the failure."""
    has_fresh(world)
    world.graph.outcomes[ADA] = GraphTimeout()
    world.clock.now += 2
    ask(world, NO_CACHE)
    world.graph.asked.clear()

    answer = ask(world, NO_CACHE)

    assert (answer.source, name_of(answer)) == (Source.STALE, "Before")
    assert isinstance(answer.failure, GraphTimeout)
    assert world.graph.calls == 0


def test_unavailable_replaces_no_profile_with_no_cache_either(world) -> None:
    """100/33 may mean anything, so the answer is marked as the old one."""
    has_fresh(world)
    world.graph.outcomes[ADA] = a_refusal(reason=Reason.UNAVAILABLE)

    answer = ask(world, NO_CACHE)

    assert (name_of(answer), answer.source) == ("Before", Source.STALE)
    assert answer.failure is None


def test_refusal_replaces_a_profile_with_no_cache(world) -> None:
    has_fresh(world)
    world.graph.outcomes[ADA] = a_refusal(reason=Reason.BLOCKED)

    assert isinstance(ask(world, NO_CACHE).entry.outcome, Refusal)
    assert isinstance(world.find().entry.outcome, Refusal)


def test_no_cache_is_charged_to_the_caller(world) -> None:
    """With a spent allowance, the caller gets the stored entry."""
    has_fresh(world)
    for _ in range(2):
        ask(world, NO_CACHE, client="inbox")
        world.clock.now += 2

    spent = ask(world, NO_CACHE, client="inbox")

    assert world.graph.calls == 3
    assert spent.source is Source.STALE
    assert isinstance(spent.failure, TooManyMisses)
    assert ask(world, NO_CACHE, client="crm").source is Source.FETCHED


def test_no_cache_shares_a_flight_that_ended_since_its_read(world) -> None:
    """A caller who comes to the lease a moment later makes no second call."""
    has_fresh(world)
    snapshot = world.store.read(ADA)
    ask(world, NO_CACHE)

    late = world.lookup.find(ADA, snapshot=snapshot, directives=NO_CACHE)

    assert (late.source, name_of(late)) == (Source.COLLAPSED, "After")
    assert late.is_forced
    assert world.graph.calls == 2


def test_no_cache_shares_a_failure_since_its_read(world) -> None:
    """By the note, which is younger than the read."""
    has_fresh(world)
    snapshot = world.store.read(ADA)
    world.graph.outcomes[ADA] = GraphTimeout()
    ask(world, NO_CACHE)

    late = world.lookup.find(ADA, snapshot=snapshot, directives=NO_CACHE)

    assert (late.source, name_of(late)) == (Source.STALE, "Before")
    assert isinstance(late.failure, GraphTimeout)
    assert world.graph.calls == 2


def test_follower_gets_the_closed_gates_cause_as_its_leader_does(world) -> None:
    """The gate stopped the leader; the follower's failure says so too."""
    has_fresh(world)
    world.graph.outcomes[BEN] = Throttled(retry_after=MINUTE)
    with pytest.raises(Throttled):
        world.find(BEN)
    snapshot = world.store.read(ADA)
    calls = world.graph.calls

    first = ask(world, NO_CACHE)
    late = world.lookup.find(ADA, snapshot=snapshot, directives=NO_CACHE)

    for answer in (first, late):
        assert (answer.source, name_of(answer)) == (Source.STALE, "Before")
        assert isinstance(answer.failure, Throttled)
        assert not answer.failure.asked
    assert world.graph.calls == calls


def has_refresh_held_back(world: World) -> None:
    """Another process begins to refresh Ada, and is stopped while others wait."""
    world.has_stale(name="Before")
    world.graph.outcomes[ADA] = a_profile(name="After")
    world.store.take(ADA, "elsewhere", 6.0)

    def hold_back(seconds: float) -> None:
        world.pass_time(seconds)
        previous, now = world.store.read(ADA).entry, world.clock.now
        assert previous
        later = postpone(previous, now, 60.0)
        world.store.put(ADA, later, "elsewhere", now, again=True)

    world.sleep = hold_back


def test_no_cache_is_not_answered_by_a_flight_that_was_held_back(world) -> None:
    """By the quota, or by the allowance of another key; Meta was not asked."""
    has_refresh_held_back(world)

    answer = ask(world, NO_CACHE)

    assert (answer.source, name_of(answer)) == (Source.FETCHED, "After")
    assert answer.is_forced
    assert world.graph.calls == 1


def test_no_cache_fails_with_its_own_reason_after_a_held_back_flight(world) -> None:
    """Not that Meta does not show the person: Meta was not asked."""
    has_refresh_held_back(world)
    for _ in range(2):
        world.allowance.consume("inbox")

    answer = ask(world, NO_CACHE, client="inbox")

    assert (answer.source, name_of(answer)) == (Source.STALE, "Before")
    assert isinstance(answer.failure, TooManyMisses)
    assert world.graph.calls == 0


def test_no_cache_makes_no_call_after_another_callers_unavailable(world) -> None:
    """Meta was asked and said 100/33, which is news though the profile stays."""
    world.has_stale(name="Before")
    world.store.take(ADA, "elsewhere", 6.0)
    said = GraphError(100, 33, "tr")
    not_shown = stamp(
        a_refusal(reason=Reason.UNAVAILABLE, said=said), world.clock.now, LIFETIMES, 0.0
    )

    def end(seconds: float) -> None:
        world.pass_time(seconds)
        previous, now = world.store.read(ADA).entry, world.clock.now
        kept = merge(previous, not_shown, now)
        world.store.put(ADA, kept, "elsewhere", now, again=True)

    world.sleep = end

    answer = ask(world, NO_CACHE)

    assert (answer.source, answer.failure) == (Source.STALE, None)
    assert world.graph.calls == 0


@pytest.mark.parametrize(("age", "calls"), [(MINUTE, 1), (MINUTE + 1, 2)])
def test_max_age_is_the_oldest_entry_that_is_answered(world, age, calls) -> None:
    """Whether the entry is fresh makes no difference."""
    world.graph.outcomes[ADA] = a_profile()
    world.find()
    world.clock.now += age

    answer = ask(world, Directives(max_age=MINUTE))

    assert (answer.source is Source.HIT) is (calls == 1)
    assert world.graph.calls == calls


def test_stale_profile_within_max_age_is_a_hit(world) -> None:
    """And is refreshed afterwards, as always."""
    world.has_stale()

    answer = ask(world, Directives(max_age=2 * HOUR))

    assert answer.source is Source.HIT
    assert ADA in world.background.jobs


def test_only_if_cached_never_calls_meta(world) -> None:
    """Not to refresh a stale entry either, and not without an entry."""
    with pytest.raises(NotCached):
        ask(world, ONLY_IF_CACHED)
    world.has_stale(name="Before")

    answer = ask(world, ONLY_IF_CACHED)

    assert (answer.source, name_of(answer)) == (Source.HIT, "Before")
    assert ADA not in world.background.jobs
    assert world.graph.calls == 0


@pytest.mark.parametrize(
    "directives",
    [
        Directives(no_cache=True, only_if_cached=True),
        Directives(max_age=0.5, only_if_cached=True),
    ],
)
def test_only_if_cached_fails_if_no_entry_is_acceptable(world, directives) -> None:
    """Neither an unwanted entry nor an unwanted call."""
    has_fresh(world)

    with pytest.raises(NotCached):
        ask(world, directives)

    assert world.graph.calls == 1
    assert world.counted()["none", "not_cached"] == 1


def test_only_if_cached_waits_for_no_flight(world) -> None:
    """Another process's flight is not a stored entry."""
    world.store.take(ADA, "elsewhere", 6.0)

    with pytest.raises(NotCached):
        ask(world, ONLY_IF_CACHED)


def test_entry_answered_instead_of_a_new_one_is_counted_as_a_hit(world) -> None:
    """Or as stale; the call that failed is counted as a call."""
    world.graph.outcomes[ADA] = a_refusal()
    world.find()
    world.clock.now += 2
    world.graph.outcomes[ADA] = GraphTimeout()
    ask(world, NO_CACHE)

    assert world.counted() == {
        ("fetched", "consent_required"): 1,
        ("hit", "consent_required"): 1,
    }
    assert world.metrics.calls["graph_timeout"] == 1
