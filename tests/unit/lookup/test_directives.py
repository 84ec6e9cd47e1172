"""What a caller asks of the cache: nothing older, nothing stored, nothing else."""

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

ANEW = Directives(no_cache=True)
KEPT_ONLY = Directives(only_if_cached=True)


@pytest.fixture
def world() -> World:
    return World()


def ask(world: World, directives: Directives, client: str | None = None) -> Answer:
    return world.lookup.find(ADA, client=client, directives=directives)


def has_fresh(world: World) -> None:
    """Ada is known as Before, and Meta would call her After."""
    world.graph.outcomes[ADA] = a_profile(name="Before")
    world.find()
    world.graph.outcomes[ADA] = a_profile(name="After")
    world.clock.now += 1


def test_no_cache_asks_meta_again_and_keeps_what_it_says(world) -> None:
    """Others have it from then on."""
    has_fresh(world)

    answer = ask(world, ANEW)

    assert (name_of(answer), answer.source) == ("After", Source.FETCHED)
    assert answer.is_forced
    assert name_of(world.find()) == "After"
    assert world.graph.calls == 2


def test_no_cache_about_nobody_known_is_a_plain_miss(world) -> None:
    """There was nothing that the caller did not want."""
    world.graph.outcomes[ADA] = a_profile()

    answer = ask(world, ANEW)

    assert (answer.source, answer.is_forced) == (Source.FETCHED, False)


@pytest.mark.parametrize("outcome", [a_profile, a_refusal], ids=["profile", "refusal"])
def test_what_is_kept_is_answered_where_meta_tells_nothing(world, outcome) -> None:
    """And stays as it was: nothing has failed that was due."""
    world.graph.outcomes[ADA] = outcome()
    before = world.find().entry
    world.graph.outcomes[ADA] = GraphTimeout()

    answer = ask(world, ANEW)

    assert answer.source is Source.STALE
    assert isinstance(answer.failure, GraphTimeout)
    assert answer.entry == world.store.read(ADA).entry == before


def test_nothing_is_answered_that_was_erased_while_meta_was_asked(world) -> None:
    """What the caller saw before is no longer there to fall back on."""
    has_fresh(world)

    class Erasing(FakeGraph):
        def fetch(self, igsid: Igsid, within: float) -> FetchResult:
            world.lookup.erase(igsid)
            return FetchResult(GraphTimeout(), None, self.token)

    late = World(redis=world.redis, clock=world.clock, graph=Erasing())

    with pytest.raises(GraphTimeout):
        ask(late, ANEW)


def test_no_second_call_is_made_where_the_store_goes_with_the_first() -> None:
    """The call has failed, whether or not anybody could be told."""
    server = fakeredis.FakeServer()

    class Cutting(FakeGraph):
        def fetch(self, igsid: Igsid, within: float) -> FetchResult:
            server.connected = self.calls == 0
            return super().fetch(igsid, within)

    world = World(redis=fakeredis.FakeRedis(server=server), graph=Cutting())
    has_fresh(world)
    world.graph.outcomes[ADA] = GraphTimeout()

    with pytest.raises(GraphTimeout):
        ask(world, ANEW)

    assert world.graph.calls == 2


def test_an_earlier_failure_is_no_answer_to_who_wants_it_new(world) -> None:
    """Those who do not insist share it, for the second in which it is shared."""
    world.graph.outcomes[ADA] = GraphUnavailable()
    with pytest.raises(GraphUnavailable):
        world.find()
    world.graph.outcomes[ADA] = a_profile()

    with pytest.raises(GraphUnavailable):
        world.find()
    answer = ask(world, ANEW)

    assert answer.source is Source.FETCHED
    assert world.graph.calls == 2


def test_unavailable_replaces_no_profile_however_it_is_asked_for(world) -> None:
    """100/33 may mean anything, so the caller is told that this is the old one."""
    has_fresh(world)
    world.graph.outcomes[ADA] = a_refusal(reason=Reason.UNAVAILABLE)

    answer = ask(world, ANEW)

    assert (name_of(answer), answer.source) == ("Before", Source.STALE)
    assert answer.failure is None


def test_a_refusal_replaces_a_profile_that_was_asked_for_anew(world) -> None:
    has_fresh(world)
    world.graph.outcomes[ADA] = a_refusal(reason=Reason.BLOCKED)

    assert isinstance(ask(world, ANEW).entry.outcome, Refusal)
    assert isinstance(world.find().entry.outcome, Refusal)


def test_asking_anew_is_charged_to_the_caller(world) -> None:
    """Whose allowance, once spent, leaves them what is stored."""
    has_fresh(world)
    for _ in range(2):
        ask(world, ANEW, client="inbox")

    spent = ask(world, ANEW, client="inbox")

    assert world.graph.calls == 3
    assert spent.source is Source.STALE
    assert isinstance(spent.failure, TooManyMisses)
    assert ask(world, ANEW, client="crm").source is Source.FETCHED


def test_a_flight_that_ended_since_the_caller_looked_is_theirs_too(world) -> None:
    """Whoever comes to the lease a moment later does not ask Meta once more."""
    has_fresh(world)
    seen = world.store.read(ADA)
    ask(world, ANEW)

    late = world.lookup.find(ADA, snapshot=seen, directives=ANEW)

    assert (late.source, name_of(late)) == (Source.COLLAPSED, "After")
    assert late.is_forced
    assert world.graph.calls == 2


def test_a_failure_since_the_caller_looked_is_theirs_too(world) -> None:
    """By the note, which is younger than their look."""
    has_fresh(world)
    seen = world.store.read(ADA)
    world.graph.outcomes[ADA] = GraphTimeout()
    ask(world, ANEW)

    late = world.lookup.find(ADA, snapshot=seen, directives=ANEW)

    assert (late.source, name_of(late)) == (Source.STALE, "Before")
    assert isinstance(late.failure, GraphTimeout)
    assert world.graph.calls == 2


def test_a_closed_gate_is_the_reason_for_who_came_to_it_second_too(world) -> None:
    """Who led was stopped by it; who followed is told of that, and not of less."""
    has_fresh(world)
    world.graph.outcomes[BEN] = Throttled(retry_after=MINUTE)
    with pytest.raises(Throttled):
        world.find(BEN)
    seen = world.store.read(ADA)
    calls = world.graph.calls

    first = ask(world, ANEW)
    late = world.lookup.find(ADA, snapshot=seen, directives=ANEW)

    for answer in (first, late):
        assert (answer.source, name_of(answer)) == (Source.STALE, "Before")
        assert isinstance(answer.failure, Throttled)
        assert not answer.failure.asked
    assert world.graph.calls == calls


def has_refresh_held_back(world: World) -> None:
    """Somebody is about to refresh Ada, and is kept from it while others wait."""
    world.has_stale(name="Before")
    world.graph.outcomes[ADA] = a_profile(name="After")
    world.store.take(ADA, "elsewhere", 6.0)

    def hold_back(seconds: float) -> None:
        world.pass_time(seconds)
        known, now = world.store.read(ADA).entry, world.clock.now
        assert known
        later = postpone(known, now, 60.0)
        world.store.put(ADA, later, "elsewhere", now, again=True)

    world.sleep = hold_back


def test_a_flight_that_was_held_back_is_no_news_to_who_wants_it_new(world) -> None:
    """By the quota, or by the allowance of another key; Meta has told nothing."""
    has_refresh_held_back(world)

    answer = ask(world, ANEW)

    assert (answer.source, name_of(answer)) == (Source.FETCHED, "After")
    assert answer.is_forced
    assert world.graph.calls == 1


def test_who_cannot_ask_after_one_that_was_held_back_is_told_why(world) -> None:
    """Not that Meta does not show the person: nobody has asked it."""
    has_refresh_held_back(world)
    for _ in range(2):
        world.allowance.consume("inbox")

    answer = ask(world, ANEW, client="inbox")

    assert (answer.source, name_of(answer)) == (Source.STALE, "Before")
    assert isinstance(answer.failure, TooManyMisses)
    assert world.graph.calls == 0


def test_who_is_not_shown_to_another_is_not_asked_about_again(world) -> None:
    """Meta was asked and said 100/33, which is news though the profile stays."""
    world.has_stale(name="Before")
    world.store.take(ADA, "elsewhere", 6.0)
    said = GraphError(100, 33, "tr")
    not_shown = stamp(
        a_refusal(reason=Reason.UNAVAILABLE, said=said), world.clock.now, LIFETIMES, 0.0
    )

    def end(seconds: float) -> None:
        world.pass_time(seconds)
        known, now = world.store.read(ADA).entry, world.clock.now
        kept = merge(known, not_shown, now)
        world.store.put(ADA, kept, "elsewhere", now, again=True)

    world.sleep = end

    answer = ask(world, ANEW)

    assert (answer.source, answer.failure) == (Source.STALE, None)
    assert world.graph.calls == 0


@pytest.mark.parametrize(("age", "calls"), [(MINUTE, 1), (MINUTE + 1, 2)])
def test_max_age_is_the_oldest_that_is_wanted(world, age, calls) -> None:
    """Fresh or not is another question."""
    world.graph.outcomes[ADA] = a_profile()
    world.find()
    world.clock.now += age

    answer = ask(world, Directives(max_age=MINUTE))

    assert (answer.source is Source.HIT) is (calls == 1)
    assert world.graph.calls == calls


def test_a_stale_profile_that_is_young_enough_is_a_hit(world) -> None:
    """And refreshed afterwards, as for anybody."""
    world.has_stale()

    answer = ask(world, Directives(max_age=2 * HOUR))

    assert answer.source is Source.HIT
    assert ADA in world.background.jobs


def test_only_if_cached_never_asks_meta(world) -> None:
    """Not afterwards either, if it is stale; and not where there is nothing."""
    with pytest.raises(NotCached):
        ask(world, KEPT_ONLY)
    world.has_stale(name="Before")

    answer = ask(world, KEPT_ONLY)

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
def test_only_if_cached_and_nothing_kept_will_do(world, directives) -> None:
    """No answer is better than one that is not wanted, or a call that is not."""
    has_fresh(world)

    with pytest.raises(NotCached):
        ask(world, directives)

    assert world.graph.calls == 1
    assert world.counted()["none", "not_cached"] == 1


def test_only_if_cached_waits_for_no_flight(world) -> None:
    """Somebody else asking Meta is not something stored."""
    world.store.take(ADA, "elsewhere", 6.0)

    with pytest.raises(NotCached):
        ask(world, KEPT_ONLY)


def test_what_is_told_in_place_of_the_new_counts_as_what_it_is(world) -> None:
    """A hit, or stale; the call that failed is counted as a call."""
    world.graph.outcomes[ADA] = a_refusal()
    world.find()
    world.graph.outcomes[ADA] = GraphTimeout()
    ask(world, ANEW)

    assert world.counted() == {
        ("fetched", "consent_required"): 1,
        ("hit", "consent_required"): 1,
    }
    assert world.metrics.calls["graph_timeout"] == 1
