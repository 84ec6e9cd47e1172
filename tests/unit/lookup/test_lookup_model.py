"""Two processes on one store, in any order of events, against a small model.

Callers, refreshes and flushes are stopped before each command to the store and before
Meta's answer, and go on in an order that Hypothesis chooses. The model knows only which
calls Meta got and when, its outcomes, and the promises to operators and webhooks: each
call to Meta has a number that is in its outcome, so each answer shows its call.
"""

from __future__ import annotations

import json
import math
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
from proxy.graph.replies import read_reply
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
"""Seconds until a picture expires."""

WITHOUT_EXPIRY = 0.0
"""Instead of that: a link without an expiry."""

ODD_FIELDS = (
    {"profile_pic": "no link", "follower_count": -1},
    {"profile_pic": {}, "username": 7, "is_verified_user": "no"},
)
"""Fields of a reply that are not of their type or shape."""

Opinion = Callable[["Call"], Outcome | LookupFailure]
"""Meta's answer to a call about a person."""

people = st.sampled_from([PEOPLE[0], PEOPLE[0], PEOPLE[0], PEOPLE[1]])
processes = st.sampled_from(PROCESSES)
kinds = st.sampled_from([What.ALL, What.ALL, What.PROFILES, What.REFUSALS, *What])
ages = st.sampled_from([None, None, None, MINUTE, HOUR])
some_steps = st.sampled_from([0, 1, 1, 2, 3, 99, 99, 99])


@dataclass(eq=False)
class Call:
    """One call to Meta; ``outcome`` and ``answered_at`` are None until it has answered.

    ``is_alone`` while the lease under which it was made keeps others from asking.
    """

    number: int
    igsid: Igsid
    asked_at: float
    is_alone: bool
    outcome: Outcome | LookupFailure | None = None
    answered_at: float | None = None


@dataclass(frozen=True)
class Promise:
    """A promise that entries are gone: of *kind*, about *igsid* (None: about all).

    *calls* had been made when the promise was asked for. With *fetched_by*, only
    entries that had been fetched by that moment are covered.
    """

    calls: int
    igsid: Igsid | None = None
    kind: What = What.ALL
    fetched_by: float | None = None

    def covers(self, call: Call, outcome: Outcome) -> bool:
        if self.igsid not in (None, call.igsid) or call.number > self.calls:
            return False
        if self.fetched_by is not None and call.answered_at > self.fetched_by:
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
            metrics=Metrics().of_page(DEFAULT_PAGE),
            submit=self.background.submit,
            new_flight=partial(StagedFlight, world.stage),
            now=world.clock,
            monotonic=world.clock,
            sleep=world.stage.nap,
            jitter=lambda: 0.5,
        )
        self.lookup = build_page(parts, world)


class World(RuleBasedStateMachine):
    """The events that may happen, and the rules that always hold. It is Meta, too."""

    def __init__(self) -> None:
        super().__init__()
        self.stage = Stage()
        self.clock = FakeClock()
        self.server = fakeredis.FakeServer()
        self.redis = fakeredis.FakeRedis(server=self.server)
        self.processes = [Process(self) for _ in PROCESSES]
        self.opinions: dict[Igsid, Opinion] = {}
        self.next_failure: Callable[[GraphError], LookupFailure] | None = None
        self.away_for = 0
        self.is_rushed = False
        self.calls: list[Call] = []
        self.promises: list[Promise] = []
        self.note_deleted_at: dict[Igsid, float] = {}
        self.erased_after: dict[Igsid, int] = {}
        self.may_keep_witness = False
        self.flushes_under_way = 0
        self.actors: list[tuple[Actor, Callable[[Actor], None]]] = []

    # Meta.

    def token_digest(self) -> str:
        return "0badcafe"

    def fetch(self, igsid: Igsid, within: float) -> FetchResult:
        """Return what was true when the call came, however late the answer."""
        assert 0 < within <= GRAPH_TIMEOUT
        call = self.note_call(igsid)
        outcome = self.opinions[igsid](call)
        if self.next_failure:
            outcome = self.next_failure(GraphError(fbtrace_id=f"call {call.number}"))
            self.next_failure = None
        self.stage.pause(At.META)
        call.outcome, call.answered_at, call.is_alone = outcome, self.clock.now, False
        return FetchResult(outcome, None, self.token_digest())

    def note_call(self, igsid: Igsid) -> Call:
        actor = self.stage.acting
        is_alone = not actor.is_unsure and not self.flushes_under_way
        call = Call(len(self.calls) + 1, igsid, self.clock.now, is_alone)
        if call.is_alone:
            others = [other for other in self.calls_in_flight(igsid) if other.is_alone]
            assert not others, "two calls at once about one person"
            is_needless = self.has_fresh(igsid) and not actor.is_forced
            assert not is_needless, "called Meta despite a fresh entry"
            assert self.has_paused(igsid, actor), "called Meta within the pause"
        self.calls.append(call)
        return call

    def has_paused(self, igsid: Igsid, actor: Actor) -> bool:
        """Whether the pause after the last failure about *igsid* is over by now.

        It may be passed after half of it, but not within 2 s, by an actor that is
        forced.
        """
        key = f"pp:n:{{default:{igsid}}}"
        stored = self.redis.get(key)
        if stored is None:
            return True
        note = json.loads(stored)
        failures, pause = note.get("failures", 0), note["pause"] / 1000
        asked_before = [call for call in self.calls if call.igsid == igsid]
        assert failures <= len(asked_before), "a failure that was none"
        assert pause in (1.0, min(2.0 ** (failures - 1), 60.0))
        age = (note["ttl"] - self.redis.pttl(key)) / 1000
        return age >= (min(pause, max(2.0, pause / 2)) if actor.is_forced else pause)

    def calls_in_flight(self, igsid: Igsid | None) -> Iterator[Call]:
        for call in self.calls:
            if call.outcome is None and igsid in (None, call.igsid):
                yield call

    def has_fresh(self, igsid: Igsid) -> bool:
        stored = self.redis.get(f"pp:e:{{default:{igsid}}}")
        return stored is not None and self.clock.now < json.loads(stored)[3]

    @initialize(is_rushed=st.booleans())
    def meta_knows_all_people(self, is_rushed: bool) -> None:
        """Half of the runs are about races, half about entries that have aged."""
        self.is_rushed = is_rushed
        self.meta_shows_person(PEOPLE[0], 4 * DAY)
        self.meta_shows_person(PEOPLE[1], None)

    @rule(igsid=people, lives=st.sampled_from([None, WITHOUT_EXPIRY, *PICTURES]))
    def meta_shows_person(self, igsid: Igsid, lives: float | None) -> None:
        """With a picture that *lives* for so many seconds, or without one."""
        expires_at, picture = None, None
        if lives == WITHOUT_EXPIRY:
            picture = "https://scontent.cdninstagram.com/v/ada.jpg"
        elif lives is not None:
            expires_at = float(int(self.clock.now + lives))
            picture = picture_url(expires_at)
        self.opinions[igsid] = lambda call: a_profile(
            igsid=igsid,
            name=f"call {call.number}",
            profile_pic=picture,
            picture_expires_at=expires_at,
        )

    @rule(igsid=people, odd=st.sampled_from(ODD_FIELDS))
    def meta_shows_person_with_odd_fields(
        self, igsid: Igsid, odd: dict[str, object]
    ) -> None:
        """They cost only themselves; without its picture a profile lives longer."""

        def opinion(call: Call) -> Outcome:
            reply = {"id": igsid, "name": f"call {call.number}", **odd}
            return read_reply(json.dumps(reply).encode(), igsid, frozenset()).outcome

        self.opinions[igsid] = opinion

    @rule(igsid=people, reason=st.sampled_from(Reason))
    def meta_refuses(self, igsid: Igsid, reason: Reason) -> None:
        self.opinions[igsid] = lambda call: Refusal(
            igsid, reason, GraphError(fbtrace_id=f"call {call.number}")
        )

    @rule(
        failure=st.sampled_from(
            [GraphTimeout, GraphUnavailable, Throttled, TokenRejected]
            + [PermissionMissing, GraphUnavailable.about_person]
        )
    )
    def meta_fails_once(self, failure: Callable[[GraphError], LookupFailure]) -> None:
        self.next_failure = failure

    # Callers, operators and webhooks.

    @precondition(lambda self: len(self.actors) < ACTORS)
    @rule(process=processes, igsid=people, steps=some_steps)
    def caller_finds(self, process: int, igsid: Igsid, steps: int) -> None:
        lookup = self.processes[process].lookup
        self.begin(lambda: lookup.find(igsid), steps, self.check_answer)

    @precondition(lambda self: len(self.actors) < ACTORS)
    @rule(process=processes, igsid=people, steps=some_steps)
    def caller_finds_with_no_cache(
        self, process: int, igsid: Igsid, steps: int
    ) -> None:
        """An outcome learned over 2 s ago is only answered if the new call fails."""
        lookup = self.processes[process].lookup
        answered_before = [
            call
            for call in self.calls
            if call.answered_at is not None and self.clock.now - call.answered_at >= 2.0
        ]
        directives = Directives(no_cache=True)

        def check(actor: Actor) -> None:
            self.check_answer(actor)
            if actor.raised is None and actor.returned.source is not Source.STALE:
                call = self.call_behind(repr(actor.returned.entry.outcome))
                assert call not in answered_before, "an earlier outcome"

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
    def caller_is_answered(self, process: int, igsid: Igsid, after: float) -> None:
        """At once, unless it waits for another caller's flight; every gate is open."""
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
    def caller_is_overtaken(
        self, process: int, igsid: Igsid, steps: int, by: str, their_steps: int
    ) -> None:
        """Another event begins while the caller is waiting."""
        lookup = self.processes[process].lookup
        actor = self.begin(lambda: lookup.find(igsid), steps, self.check_answer)
        match by:
            case "another":
                self.caller_is_answered(1 - process, igsid, 0.0)
            case "erasure":
                self.person_is_erased(1 - process, igsid)
            case "message":
                self.person_writes(igsid)
            case "flush":
                self.operator_flushes(1 - process, What.ALL, None, their_steps)
            case "time":
                self.time_passes(LEASE_FOR - 1.0)
                self.caller_is_answered(1 - process, igsid, 0.0)
        while actor.at in (At.STORE, At.META):
            self.let_go_on(actor, 99)

    @precondition(lambda self: len(self.actors) < ACTORS)
    @rule(process=processes, steps=some_steps)
    def background_job_runs(self, process: int, steps: int) -> None:
        jobs: dict[Hashable, Callable[[], None]]
        jobs = self.processes[process].background.jobs
        if jobs:
            key = next(iter(jobs))
            # A witness is asked about whatever is stored.
            is_forced = key in ("probe", "witnesses")
            self.begin(jobs.pop(key), steps, check_no_bug, is_forced=is_forced)

    @precondition(lambda self: len(self.actors) < ACTORS)
    @rule(process=processes, igsid=people, steps=some_steps)
    def caller_comes_when_the_gate_has_lapsed(
        self, process: int, igsid: Igsid, steps: int
    ) -> None:
        """The probe is about a witness if there is one, and the caller is stopped."""
        for key in self.redis.keys("pp:g:*"):
            if self.redis.hexists(key, "until"):
                self.redis.hset(key, "until", 1)
        self.caller_finds(process, igsid, 99)
        jobs = self.processes[process].background.jobs
        if "probe" in jobs and len(self.actors) < ACTORS:
            self.begin(jobs.pop("probe"), steps, check_no_bug, is_forced=True)

    @precondition(lambda self: self.actors)
    @rule(which=st.integers(0, ACTORS - 1), steps=some_steps, is_lost=st.booleans())
    def actor_goes_on(self, which: int, steps: int, is_lost: bool) -> None:
        """Perhaps with the reply to their next command lost."""
        actor, _ = self.actors[which % len(self.actors)]
        if is_lost and actor.at is At.STORE and steps == 1:
            self.lose_replies(True)
        self.let_go_on(actor, max(steps, 1))
        self.lose_replies(False)

    @rule(process=processes, igsid=people)
    def person_is_erased(self, process: int, igsid: Igsid) -> None:
        stored = [self.redis.exists(f"pp:{k}:{{default:{igsid}}}") for k in "eln"]
        try:
            erased = self.processes[process].lookup.erase(igsid)
        except StoreUnavailable:
            return
        assert [erased.entry, erased.lease, erased.note] == [bool(n) for n in stored]
        assert igsid not in self.witnesses()
        self.erased_after[igsid] = len(self.calls)
        self.lose_leases(igsid)
        self.promises.append(Promise(len(self.calls), igsid))

    @rule(igsid=people)
    def person_writes(self, igsid: Igsid) -> None:
        """As their webhook does: a refusal is deleted, and so is a fetch under way."""
        if self.store_is_away:
            return
        entry, lease, note = (f"pp:{kind}:{{default:{igsid}}}" for kind in "eln")
        stored = self.redis.get(entry)
        if stored is not None and json.loads(stored)[5] is None:
            self.redis.delete(entry)
        self.redis.delete(lease)
        if self.clock.now - self.note_deleted_at.get(igsid, -math.inf) >= MINUTE:
            self.redis.delete(note)
            self.note_deleted_at[igsid] = self.clock.now
        self.lose_leases(igsid)
        self.promises.append(Promise(len(self.calls), igsid, What.REFUSALS))

    @precondition(lambda self: len(self.actors) < ACTORS)
    @rule(
        process=processes,
        what=kinds,
        older_than=ages,
        steps=some_steps,
    )
    def operator_flushes(
        self, process: int, what: What, older_than: float | None, steps: int
    ) -> None:
        lookup = self.processes[process].lookup
        promise = self.promise_of_flush(what, older_than)
        # From its beginning to its end, any lease may be lost at any moment.
        self.lose_leases(None)
        self.flushes_under_way += 1

        def check(actor: Actor) -> None:
            self.flushes_under_way -= 1
            check_no_bug(actor)
            if actor.raised is None:
                assert actor.returned.deleted <= actor.returned.matched
                self.promises.append(promise)

        self.begin(lambda: lookup.flush(what, older_than=older_than), steps, check)

    @rule(process=processes, what=kinds, older_than=ages)
    def operator_tries_a_flush(
        self, process: int, what: What, older_than: float | None
    ) -> None:
        before = {key: self.redis.get(key) for key in self.redis.keys("pp:[eln]:*")}
        promise = self.promise_of_flush(what, older_than)
        entries = [text.decode() for key, text in before.items() if b":e:" in key]
        calls = [self.call_behind(entry) for entry in entries]
        try:
            flushed = self.processes[process].lookup.flush(
                what, older_than=older_than, dry_run=True
            )
        except StoreUnavailable:
            return
        assert flushed.deleted == 0
        assert flushed.matched == sum(
            promise.covers(call, call.outcome) for call in calls
        )
        assert before == {key: self.redis.get(key) for key in before}

    # Events that affect all.

    @rule(
        seconds=st.sampled_from([1.1, 4.0, 4.0, LEASE_FOR, MINUTE])
        | st.floats(0.1, DAY)
    )
    def time_passes(self, seconds: float) -> None:
        """For actors that wait for Meta or each other; the store answers at once."""
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
    def store_goes_away(self, is_lost: bool, turns: int) -> None:
        """Unreachable, or emptied too; for so many turns of any actor."""
        self.set_away(True)
        self.away_for = turns
        # A leader that has lost its lease may not be able to take a witness back.
        self.may_keep_witness = True
        if is_lost:
            self.redis.flushall()
            self.lose_leases(None)

    # Rules that must hold.

    @invariant()
    def every_key_expires_in_time(self) -> None:
        """And each entry is an outcome of Meta's: a failed call leaves none."""
        for key in self.redis.keys():
            left = self.redis.pttl(key) / 1000
            assert left > 0, f"{key} never expires"
            match key[:5]:
                case b"pp:l:":
                    assert left <= LEASE_FOR
                case b"pp:n:":
                    assert left <= 600.0
                case b"pp:e:":
                    self.check_stored(key, self.redis.get(key), left)

    @invariant()
    def witnesses_are_people_whom_meta_showed(self) -> None:
        """Since they were erased; but a leader under way may yet take one back."""
        if self.actors or self.may_keep_witness:
            return
        for igsid in self.witnesses():
            assert any(
                isinstance(call.outcome, Profile)
                and call.igsid == igsid
                and call.number > self.erased_after.get(igsid, 0)
                for call in self.calls
            ), "a witness who was erased"

    def check_stored(self, key: bytes, stored: bytes, left: float) -> None:
        usable_until = json.loads(stored)[4]
        assert left <= usable_until - self.clock.now + 0.002
        call = self.call_behind(stored.decode())
        assert key.decode() == f"pp:e:{{default:{call.igsid}}}"
        assert isinstance(call.outcome, Profile | Refusal)
        assert usable_until <= call.answered_at + longest_life(call.outcome), "stale"
        assert not any(
            promise.covers(call, call.outcome) for promise in self.promises
        ), "is back"

    def check_answer(self, actor: Actor) -> None:
        if isinstance(actor.raised, LookupFailure):
            return
        if actor.raised is not None:
            raise actor.raised
        answer: Answer = actor.returned
        outcome, now = answer.entry.outcome, self.clock.now
        call = self.call_behind(repr(outcome))
        self.check_bounds(answer, call)
        assert now < call.answered_at + longest_life(outcome), "stale"
        if isinstance(outcome, Profile):
            self.check_picture(outcome, call)
        else:
            assert outcome == call.outcome
        if answer.stored:
            assert not any(
                promise.covers(call, outcome) for promise in self.promises
            ), "is back"

    def check_bounds(self, answer: Answer, call: Call) -> None:
        entry, now = answer.entry, self.clock.now
        assert entry.fetched_at == call.answered_at <= now < entry.usable_until
        assert entry.fetched_at < entry.fresh_until <= entry.usable_until
        assert entry.fresh_until <= entry.fetched_at + max(
            LIFETIMES.profile_ttl, *LIFETIMES.refusal_ttl.values()
        )
        assert answer.source is Source.HIT or now < entry.fresh_until or answer.stored

    def check_picture(self, profile: Profile, call: Call) -> None:
        """It is the picture that Meta returned, or none; and it has not expired."""
        assert isinstance(call.outcome, Profile)
        picture = profile.profile_pic
        faceless = replace(call.outcome, profile_pic=None, picture_expires_at=None)
        assert profile in (call.outcome, faceless)
        if picture and (expiry := re.search("oe=([0-9A-F]+)", picture)):
            assert self.clock.now < int(expiry[1], 16), "a dead picture"
        elif picture:
            assert self.clock.now < call.answered_at + DAY, "perhaps a dead picture"

    def call_behind(self, text: str) -> Call:
        (number,) = set(re.findall(r"call (\d+)", text))
        return self.calls[int(number) - 1]

    # Helpers.

    def witnesses(self) -> list[Igsid]:
        stored = self.redis.zrange("pp:d:{default}:witnesses", 0, -1)
        return [Igsid(igsid.decode()) for igsid in stored]

    @property
    def store_is_away(self) -> bool:
        return self.processes[0].redis.is_away

    def set_away(self, is_away: bool) -> None:
        for process in self.processes:
            process.redis.is_away = is_away

    def lose_replies(self, are_lost: bool) -> None:
        for process in self.processes:
            process.redis.loses_replies = are_lost

    def promise_of_flush(self, what: What, older_than: float | None) -> Promise:
        fetched_by = self.clock.now - older_than if older_than else None
        return Promise(len(self.calls), None, what, fetched_by)

    def lose_leases(self, igsid: Igsid | None) -> None:
        """Also the leases of actors that have not called Meta yet."""
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
        """Run *part* up to its first step outside, and for *steps* more."""
        actor = Actor(self.stage, part)
        actor.is_forced = is_forced
        self.actors.append((actor, check))
        self.let_go_on(actor, steps + 1)
        return actor

    def let_go_on(self, actor: Actor, steps: int) -> None:
        """For *steps* of the store, or until it waits for Meta or for other actors."""
        self.away_for -= 1
        if self.away_for < 0:
            self.set_away(False)
        for _ in range(steps):
            actor.step()
            self.finish_actors()
            if actor.at is not At.STORE:
                break

    def finish_actors(self) -> None:
        """Actors whose flight has landed go on at once, as threads would."""
        for actor, _ in list(self.actors):
            if actor.at is At.FLIGHT and actor.waits_for.done():
                actor.step()
        for actor, check in list(self.actors):
            if actor.at is At.END:
                self.actors.remove((actor, check))
                check(actor)

    def teardown(self) -> None:
        """Every actor must come to an end within the longest wait of a caller."""
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
        assert not self.actors, "an actor waits for ever"
        self.witnesses_are_people_whom_meta_showed()


def longest_life(outcome: Outcome) -> float:
    """Seconds for which an outcome may be used at most, whatever its picture."""
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
