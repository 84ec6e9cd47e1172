"""Two processes on one store, in any order of events, against a small model.

Callers, refreshes and flushes are stopped before each command to the store and before
Meta's answer, and go on in an order that Hypothesis chooses. The model knows only what
Meta was asked when, what it said, and what operators and webhooks were promised: every
call to Meta has a number that is in all it told, so each answer shows what it rests on.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import fakeredis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from proxy.coordination.allowance import Allowance
from proxy.coordination.bulkhead import Bulkhead
from proxy.coordination.single_flight import max_wait
from proxy.domain.answer import Answer, Directives, FetchResult, Source
from proxy.domain.failures import (
    GraphTimeout,
    GraphUnavailable,
    LookupFailure,
    PermissionMissing,
    StoreUnavailable,
    Throttled,
    TokenRejected,
)
from proxy.domain.profile import (
    DEFAULT_PAGE,
    GraphError,
    Igsid,
    Outcome,
    Profile,
    Reason,
    Refusal,
)
from proxy.lookup.invalidation import What
from proxy.observability.metrics import Metrics
from proxy.page_assembly import Parts, build_page
from proxy.storage.entries import EntryStore
from proxy.storage.flask_cache import ProfileCache
from tests.helpers.builders import DAY, HOUR, LIFETIMES, MINUTE, a_profile, picture_url
from tests.helpers.fakes import FakeClock, FakeTaskQueue
from tests.helpers.interleaving import Actor, At, Stage, StagedFlight, StagedRedis
from tests.helpers.world import SETTINGS

PEOPLE = (Igsid("1254001234567890"), Igsid("1254001234567891"))
PROCESSES = (0, 1)
GRAPH_TIMEOUT = SETTINGS.graph_timeout
LEASE_FOR = 6.0
ACTORS = 6
"""Callers, refreshes and flushes under way at once."""

PICTURES = (-MINUTE, 1.0, MINUTE, HOUR, 2 * HOUR, 26 * HOUR, 4 * DAY)
"""For how many seconds more a picture lives."""

UNTOLD = 0.0
"""In place of that, where its link does not tell."""

Mind = Callable[["Call"], Outcome | LookupFailure]
"""What Meta would say of a person."""

people = st.sampled_from([PEOPLE[0], PEOPLE[0], PEOPLE[0], PEOPLE[1]])
processes = st.sampled_from(PROCESSES)
kinds = st.sampled_from([What.ALL, What.ALL, What.PROFILES, What.REFUSALS, *What])
ages = st.sampled_from([None, None, None, MINUTE, HOUR])
some_steps = st.sampled_from([0, 1, 1, 2, 3, 99, 99, 99])


@dataclass(eq=False)
class Call:
    """One question to Meta; ``told`` and ``told_at`` are None until it has answered.

    ``is_alone`` while the lease under which it was made keeps others from asking.
    """

    number: int
    igsid: Igsid
    asked_at: float
    is_alone: bool
    told: Outcome | LookupFailure | None = None
    told_at: float | None = None


@dataclass(frozen=True)
class ExpiryReason:
    """What was promised to be gone: *kind* of *igsid* (None: of all), known by then.

    *calls* had been made when the promise was asked for. With *fetched_by*, only
    what had been fetched by that moment is meant.
    """

    calls: int
    igsid: Igsid | None = None
    kind: What = What.ALL
    fetched_by: float | None = None

    def covers(self, call: Call, outcome: Outcome) -> bool:
        if self.igsid not in (None, call.igsid) or call.number > self.calls:
            return False
        if self.fetched_by is not None and call.told_at > self.fetched_by:
            return False
        if isinstance(outcome, Profile):
            return self.kind in (What.ALL, What.PROFILES)
        return self.kind in (What.ALL, What.REFUSALS, outcome.reason.value)


class Process:
    """A lookup and its background, on a connection of its own."""

    def __init__(self, world: World) -> None:
        self.redis = StagedRedis(world.stage, server=world.server)
        self.background = FakeTaskQueue()
        cache = ProfileCache(host=self.redis, key_prefix="pp:")
        store = EntryStore(cache, DEFAULT_PAGE, sleep=world.stage.nap)
        parts = Parts(
            settings=SETTINGS,
            cache=cache,
            store=store,
            allowance=Allowance(cache, guard=store.guard, misses_per_minute=0),
            bulkhead=Bulkhead(seats=100, waiters=400, monotonic=world.clock),
            metrics=Metrics(),
            submit=self.background.submit,
            new_flight=partial(StagedFlight, world.stage),
            now=world.clock,
            monotonic=world.clock,
            sleep=world.stage.nap,
            jitter=lambda: 0.5,
        )
        self.lookup = build_page(parts, world)


class World(RuleBasedStateMachine):
    """What may happen, and what must hold whatever happens. It is Meta, too."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = Stage()
        self.clock = FakeClock()
        self.server = fakeredis.FakeServer()
        self.redis = fakeredis.FakeRedis(server=self.server)
        self.processes = [Process(self) for _ in PROCESSES]
        self.minds: dict[Igsid, Mind] = {}
        self.next_failure: type[LookupFailure] | None = None
        self.away_for = 0
        self.is_rushed = False
        self.calls: list[Call] = []
        self.cuts: list[ExpiryReason] = []
        self.flushes_under_way = 0
        self.actors: list[tuple[Actor, Callable[[Actor], None]]] = []

    # What Meta does.

    def token_digest(self) -> str:
        return "0badcafe"

    def fetch(self, igsid: Igsid, within: float) -> FetchResult:
        """Say what was true when the question came, however late the answer."""
        assert 0 < within <= GRAPH_TIMEOUT
        call = self.note_call(igsid)
        said = self.minds[igsid](call)
        if self.next_failure:
            said = self.next_failure(GraphError(fbtrace_id=f"call {call.number}"))
            self.next_failure = None
        self.stage.pause(At.META)
        call.told, call.told_at, call.is_alone = said, self.clock.now, False
        return FetchResult(said, None, self.token_digest())

    def note_call(self, igsid: Igsid) -> Call:
        actor = self.stage.acting
        is_alone = not actor.is_unsure and not self.flushes_under_way
        call = Call(len(self.calls) + 1, igsid, self.clock.now, is_alone)
        if call.is_alone:
            others = [other for other in self.calls_in_flight(igsid) if other.is_alone]
            assert not others, "two calls at once about one person"
            is_known = self.has_fresh(igsid) and not actor.is_forced
            assert not is_known, "asked about what is known"
        self.calls.append(call)
        return call

    def calls_in_flight(self, igsid: Igsid | None) -> Iterator[Call]:
        for call in self.calls:
            if call.told is None and igsid in (None, call.igsid):
                yield call

    def has_fresh(self, igsid: Igsid) -> bool:
        stored = self.redis.get(f"pp:e:{{default:{igsid}}}")
        return stored is not None and self.clock.now < json.loads(stored)[3]

    @initialize(is_rushed=st.booleans())
    def meta_knows_everybody(self, is_rushed: bool) -> None:
        """Half of the runs are about who comes first, half about what has lasted."""
        self.is_rushed = is_rushed
        self.meta_shows_a_person(PEOPLE[0], 4 * DAY)
        self.meta_shows_a_person(PEOPLE[1], None)

    @rule(igsid=people, lives=st.sampled_from([None, UNTOLD, *PICTURES]))
    def meta_shows_a_person(self, igsid: Igsid, lives: float | None) -> None:
        """With a picture that *lives* for so many seconds more, or without one."""
        dies_at, picture = None, None
        if lives == UNTOLD:
            picture = "https://scontent.cdninstagram.com/v/ada.jpg"
        elif lives is not None:
            dies_at = float(int(self.clock.now + lives))
            picture = picture_url(dies_at)
        self.minds[igsid] = lambda call: a_profile(
            igsid=igsid,
            name=f"call {call.number}",
            profile_pic=picture,
            picture_expires_at=dies_at,
        )

    @rule(igsid=people, reason=st.sampled_from(Reason))
    def meta_refuses(self, igsid: Igsid, reason: Reason) -> None:
        self.minds[igsid] = lambda call: Refusal(
            igsid, reason, GraphError(fbtrace_id=f"call {call.number}")
        )

    @rule(
        failure=st.sampled_from(
            [GraphTimeout, GraphUnavailable, Throttled, TokenRejected]
            + [PermissionMissing]
        )
    )
    def meta_fails_once(self, failure: type[LookupFailure]) -> None:
        self.next_failure = failure

    # What callers, operators and webhooks do.

    @precondition(lambda self: len(self.actors) < ACTORS)
    @rule(process=processes, igsid=people, steps=some_steps)
    def somebody_asks(self, process: int, igsid: Igsid, steps: int) -> None:
        lookup = self.processes[process].lookup
        self.begin(lambda: lookup.find(igsid), steps, self.check_answer)

    @precondition(lambda self: len(self.actors) < ACTORS)
    @rule(process=processes, igsid=people, steps=some_steps)
    def somebody_wants_it_new(self, process: int, igsid: Igsid, steps: int) -> None:
        """What was told before they asked is only answered where the new one fails."""
        lookup = self.processes[process].lookup
        told_before = [call for call in self.calls if call.told is not None]
        directives = Directives(no_cache=True)

        def check(actor: Actor) -> None:
            self.check_answer(actor)
            if actor.raised is None and actor.returned.source is not Source.STALE:
                call = self.call_behind(repr(actor.returned.entry.outcome))
                assert call not in told_before, "known before"

        self.begin(
            lambda: lookup.find(igsid, directives=directives),
            steps,
            check,
            is_forced=True,
        )

    @precondition(lambda self: len(self.actors) < ACTORS)
    @rule(
        process=processes,
        igsid=people,
        after=st.sampled_from([0.0, 0.0, 301.0, 20 * MINUTE, 70 * MINUTE])
        | st.sampled_from([6.5 * HOUR, DAY, DAY + HOUR]),
    )
    def somebody_is_answered(self, process: int, igsid: Igsid, after: float) -> None:
        """At once, unless they wait for somebody else; no gate is closed any more."""
        if after and not self.is_rushed:
            self.time_passes(after)
        for key in self.redis.keys("pp:g:*"):
            self.redis.delete(key)
        lookup = self.processes[process].lookup
        actor = self.begin(lambda: lookup.find(igsid), 99, self.check_answer)
        while actor.at in (At.STORE, At.META):
            self.let_go_on(actor, 99)

    @precondition(lambda self: len(self.actors) < ACTORS - 1)
    @rule(
        process=processes,
        igsid=people,
        steps=st.integers(0, 6),
        by=st.sampled_from(["another", "erasure", "message", "flush", "time"]),
        their_steps=some_steps,
    )
    def somebody_is_overtaken(
        self, process: int, igsid: Igsid, steps: int, by: str, their_steps: int
    ) -> None:
        """They are in the midst of it when something else begins."""
        lookup = self.processes[process].lookup
        actor = self.begin(lambda: lookup.find(igsid), steps, self.check_answer)
        match by:
            case "another":
                self.somebody_is_answered(1 - process, igsid, 0.0)
            case "erasure":
                self.a_person_is_erased(1 - process, igsid)
            case "message":
                self.a_person_writes(igsid)
            case "flush":
                self.an_operator_flushes(1 - process, What.ALL, None, their_steps)
            case "time":
                self.time_passes(LEASE_FOR - 1.0)
                self.somebody_is_answered(1 - process, igsid, 0.0)
        while actor.at in (At.STORE, At.META):
            self.let_go_on(actor, 99)

    @precondition(lambda self: len(self.actors) < ACTORS)
    @rule(process=processes, steps=some_steps)
    def the_background_works(self, process: int, steps: int) -> None:
        jobs: dict[Hashable, Callable[[], None]]
        jobs = self.processes[process].background.jobs
        if jobs:
            self.begin(jobs.pop(next(iter(jobs))), steps, check_no_bug)

    @precondition(lambda self: self.actors)
    @rule(which=st.integers(0, ACTORS - 1), steps=some_steps, is_lost=st.booleans())
    def somebody_goes_on(self, which: int, steps: int, is_lost: bool) -> None:
        """Perhaps with the reply to their next command lost."""
        actor, _ = self.actors[which % len(self.actors)]
        if is_lost and actor.at is At.STORE and steps == 1:
            self.lose_replies(True)
        self.let_go_on(actor, max(steps, 1))
        self.lose_replies(False)

    @rule(process=processes, igsid=people)
    def a_person_is_erased(self, process: int, igsid: Igsid) -> None:
        stored = [self.redis.exists(f"pp:{k}:{{default:{igsid}}}") for k in "eln"]
        try:
            erased = self.processes[process].lookup.erase(igsid)
        except StoreUnavailable:
            return
        assert [erased.entry, erased.lease, erased.note] == [bool(n) for n in stored]
        self.leases_go(igsid)
        self.cuts.append(ExpiryReason(len(self.calls), igsid))

    @rule(igsid=people)
    def a_person_writes(self, igsid: Igsid) -> None:
        """As their webhook will have it: a refusal goes, with what is under way."""
        if self.store_is_away:
            return
        entry, lease, note = (f"pp:{kind}:{{default:{igsid}}}" for kind in "eln")
        stored = self.redis.get(entry)
        if stored is not None and json.loads(stored)[5] is None:
            self.redis.delete(entry)
        self.redis.delete(lease, note)
        self.leases_go(igsid)
        self.cuts.append(ExpiryReason(len(self.calls), igsid, What.REFUSALS))

    @precondition(lambda self: len(self.actors) < ACTORS)
    @rule(
        process=processes,
        what=kinds,
        older_than=ages,
        steps=some_steps,
    )
    def an_operator_flushes(
        self, process: int, what: What, older_than: float | None, steps: int
    ) -> None:
        lookup = self.processes[process].lookup
        cut = self.cut_of_flush(what, older_than)
        # From its beginning to its end, any lease may be gone at any moment.
        self.leases_go(None)
        self.flushes_under_way += 1

        def check(actor: Actor) -> None:
            self.flushes_under_way -= 1
            check_no_bug(actor)
            if actor.raised is None:
                assert actor.returned.deleted <= actor.returned.matched
                self.cuts.append(cut)

        self.begin(lambda: lookup.flush(what, older_than=older_than), steps, check)

    @rule(process=processes, what=kinds, older_than=ages)
    def an_operator_asks_what_a_flush_would_do(
        self, process: int, what: What, older_than: float | None
    ) -> None:
        before = {key: self.redis.get(key) for key in self.redis.keys("pp:[eln]:*")}
        cut = self.cut_of_flush(what, older_than)
        entries = [text.decode() for key, text in before.items() if b":e:" in key]
        calls = [self.call_behind(entry) for entry in entries]
        try:
            flushed = self.processes[process].lookup.flush(
                what, older_than=older_than, dry_run=True
            )
        except StoreUnavailable:
            return
        assert flushed.deleted == 0
        assert flushed.matched == sum(cut.covers(call, call.told) for call in calls)
        assert before == {key: self.redis.get(key) for key in before}

    # What happens to everybody.

    @rule(
        seconds=st.sampled_from([1.1, 4.0, 4.0, LEASE_FOR, MINUTE])
        | st.floats(0.1, DAY)
    )
    def time_passes(self, seconds: float) -> None:
        """For those who wait for Meta or each other; the store answers in no time."""
        for actor, _ in list(self.actors):
            while actor.at is At.STORE:
                self.let_go_on(actor, 1)
        self.clock.now += seconds
        for call in self.calls_in_flight(None):
            call.is_alone &= self.clock.now < call.asked_at + LEASE_FOR
        milliseconds = int(seconds * 1000)
        for key in self.redis.keys():
            left = self.redis.pttl(key) - milliseconds
            self.redis.pexpire(key, left) if left > 0 else self.redis.delete(key)
        for key in self.redis.keys("pp:g:*"):
            if self.redis.hexists(key, "until"):
                self.redis.hincrby(key, "until", -milliseconds)

    @rule(is_lost=st.booleans(), turns=st.integers(1, 4))
    def the_store_goes(self, is_lost: bool, turns: int) -> None:
        """Out of reach, or with all it held; for so many turns of anybody."""
        self.set_away(True)
        self.away_for = turns
        if is_lost:
            self.redis.flushall()
            self.leases_go(None)

    # What must hold.

    @invariant()
    def every_key_ends_in_time(self) -> None:
        """And each entry is what Meta told; so nothing of a call that has failed."""
        for key in self.redis.keys():
            left = self.redis.pttl(key) / 1000
            assert left > 0, f"{key} is for ever"
            match key[:5]:
                case b"pp:l:":
                    assert left <= LEASE_FOR
                case b"pp:n:":
                    assert left <= 1.0
                case b"pp:e:":
                    self.check_stored(key, self.redis.get(key), left)

    def check_stored(self, key: bytes, stored: bytes, left: float) -> None:
        usable_until = json.loads(stored)[4]
        assert left <= usable_until - self.clock.now + 0.002
        call = self.call_behind(stored.decode())
        assert key.decode() == f"pp:e:{{default:{call.igsid}}}"
        assert isinstance(call.told, Profile | Refusal)
        assert usable_until <= call.told_at + longest_life(call.told), "stale"
        assert not any(cut.covers(call, call.told) for cut in self.cuts), "is back"

    def check_answer(self, actor: Actor) -> None:
        if isinstance(actor.raised, LookupFailure):
            return
        if actor.raised is not None:
            raise actor.raised
        answer: Answer = actor.returned
        outcome, now = answer.entry.outcome, self.clock.now
        call = self.call_behind(repr(outcome))
        self.check_bounds(answer, call)
        assert now < call.told_at + longest_life(outcome), "stale"
        if isinstance(outcome, Profile):
            self.check_picture(outcome, call)
        else:
            assert outcome == call.told
        if answer.stored:
            assert not any(cut.covers(call, outcome) for cut in self.cuts), "is back"

    def check_bounds(self, answer: Answer, call: Call) -> None:
        entry, now = answer.entry, self.clock.now
        assert entry.fetched_at == call.told_at <= now < entry.usable_until
        assert entry.fetched_at < entry.fresh_until <= entry.usable_until
        assert entry.fresh_until <= entry.fetched_at + max(
            LIFETIMES.profile_ttl, *LIFETIMES.refusal_ttl.values()
        )
        assert answer.source is Source.HIT or now < entry.fresh_until or answer.stored

    def check_picture(self, profile: Profile, call: Call) -> None:
        """It is the one Meta told of, or none; and it is alive."""
        assert isinstance(call.told, Profile)
        picture = profile.profile_pic
        faceless = replace(call.told, profile_pic=None, picture_expires_at=None)
        assert profile in (call.told, faceless)
        if picture and (told := re.search("oe=([0-9A-F]+)", picture)):
            assert self.clock.now < int(told[1], 16), "a dead picture"
        elif picture:
            assert self.clock.now < call.told_at + DAY, "perhaps a dead picture"

    def call_behind(self, text: str) -> Call:
        (number,) = set(re.findall(r"call (\d+)", text))
        return self.calls[int(number) - 1]

    # How it is done.

    @property
    def store_is_away(self) -> bool:
        return self.processes[0].redis.is_away

    def set_away(self, is_away: bool) -> None:
        for process in self.processes:
            process.redis.is_away = is_away

    def lose_replies(self, are_lost: bool) -> None:
        for process in self.processes:
            process.redis.loses_replies = are_lost

    def cut_of_flush(self, what: What, older_than: float | None) -> ExpiryReason:
        fetched_by = self.clock.now - older_than if older_than else None
        return ExpiryReason(len(self.calls), None, what, fetched_by)

    def leases_go(self, igsid: Igsid | None) -> None:
        """Also of those who have taken theirs, and not asked Meta yet."""
        for call in self.calls_in_flight(igsid):
            call.is_alone = False
        for actor, _ in self.actors:
            actor.is_unsure |= actor.at is At.STORE

    def begin(
        self,
        part: Callable[[], object],
        steps: int,
        check: Callable[[Actor], None],
        *,
        is_forced: bool = False,
    ) -> Actor:
        """Let *part* run to its first step outside, and *steps* further."""
        actor = Actor(self.stage, part)
        actor.is_forced = is_forced
        self.actors.append((actor, check))
        self.let_go_on(actor, steps + 1)
        return actor

    def let_go_on(self, actor: Actor, steps: int) -> None:
        """*steps* of the store, or up to where it waits for Meta or for others."""
        self.away_for -= 1
        if self.away_for < 0:
            self.set_away(False)
        for _ in range(steps):
            actor.step()
            self.see_to_ends()
            if actor.at is not At.STORE:
                break

    def see_to_ends(self) -> None:
        """Those whose flight has landed go on at once, as they would."""
        for actor, _ in list(self.actors):
            if actor.at is At.FLIGHT and actor.waits_for.done():
                actor.step()
        for actor, check in list(self.actors):
            if actor.at is At.END:
                self.actors.remove((actor, check))
                check(actor)

    def teardown(self) -> None:
        """Whoever has begun comes to an end, within what a caller waits at most."""
        has_failed = sys.exc_info()[0] is not None  # which must not be covered up
        try:
            if not has_failed:
                self.let_all_end()
        finally:
            for actor, _ in self.actors:
                actor.dismiss()

    def let_all_end(self) -> None:
        self.set_away(False)
        rounds = int(max_wait(GRAPH_TIMEOUT)) + 2
        for _ in range(rounds):
            for actor, _ in list(self.actors):
                if actor.at is not At.END:
                    self.let_go_on(actor, 99)
            self.time_passes(1.0)
        assert not self.actors, "somebody waits for ever"


def longest_life(outcome: Outcome) -> float:
    """For how long a fact may be used at most, whatever its picture."""
    if isinstance(outcome, Profile):
        return LIFETIMES.profile_ttl + LIFETIMES.stale_grace
    return LIFETIMES.refusal_ttl[outcome.reason]


def check_no_bug(actor: Actor) -> None:
    if actor.raised is not None and not isinstance(actor.raised, StoreUnavailable):
        raise actor.raised


# The same orders of events each time. fakeredis counts TTLs by a clock of its own, so
# that in some orders a lease ends a moment before the model expects it.
World.TestCase.settings = settings(
    derandomize=True,
    max_examples=150,
    report_multiple_bugs=False,
    stateful_step_count=50,
    suppress_health_check=list(HealthCheck),
)
TestAnyOrderOfEvents = World.TestCase
