"""The near cache: what may be used when, what is kept, and what is dropped."""

from __future__ import annotations

import math
from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from redis.sentinel import SentinelConnectionPool

from proxy.storage.near_cache import (
    SECOND_CHANCES,
    TRUSTED_FOR,
    InvalidationListener,
    NearCache,
)
from tests.helpers.fakes import FakeClock

KEY = "default:1254001000000001"
GRACE = 600.0


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1000.0)


@pytest.fixture
def near(clock: FakeClock) -> NearCache:
    """One that is trusted at the moment, with room for four."""
    near = NearCache(4, outage_grace=GRACE, monotonic=clock)
    near.renew(clock.now)
    return near


def keep(near: NearCache, key: str, lives_for: float = 3600.0) -> None:
    loading = near.begin(key)
    assert loading is not None
    near.end(key, loading, b"stored", lives_for)


def test_what_was_read_is_a_copy(near: NearCache) -> None:
    keep(near, KEY)

    copy = near.get(KEY)

    assert copy is not None and copy.stored == b"stored"
    assert (near.hits, near.misses) == (1, 0)


def test_a_copy_ends_when_redis_forgets_the_entry(
    near: NearCache, clock: FakeClock
) -> None:
    """Counted from before it was read, so rather too early than too late."""
    loading = near.begin(KEY)
    assert loading is not None
    clock.now += 0.2
    near.end(KEY, loading, b"stored", 0.4)

    assert near.get(KEY) is not None
    clock.now += 0.2
    assert near.get(KEY) is None


def test_no_copy_is_used_half_a_second_after_the_last_sign_of_life(
    near: NearCache, clock: FakeClock
) -> None:
    """From the sending: what comes in late proves nothing of the time between."""
    keep(near, KEY)
    near.renew(clock.now + 0.3)

    clock.now += 0.3 + TRUSTED_FOR - 0.001
    assert near.get(KEY) is not None
    clock.now += 0.001
    assert near.get(KEY) is None
    assert near.bypassed == 1


def test_nothing_is_kept_that_was_read_without_trust(
    near: NearCache, clock: FakeClock
) -> None:
    """Nobody would have told of a change."""
    clock.now += TRUSTED_FOR

    assert near.begin(KEY) is None


@pytest.mark.parametrize("keys", [[KEY], ["other", KEY], None])
def test_what_changed_while_it_was_read_is_not_kept(
    near: NearCache, keys: list[str] | None
) -> None:
    """The change may have come after the read, and its message before the answer."""
    loading = near.begin(KEY)
    assert loading is not None

    near.invalidate(keys)
    near.end(KEY, loading, b"from before", 3600.0)

    assert near.get(KEY) is None


def test_what_was_read_over_a_reconnection_is_not_kept(
    near: NearCache, clock: FakeClock
) -> None:
    """Its change may have been told to a connection that is gone."""
    loading = near.begin(KEY)
    assert loading is not None

    near.restart()
    near.renew(clock.now)
    near.end(KEY, loading, b"from before", 3600.0)

    assert near.get(KEY) is None


def test_after_a_new_beginning_nothing_is_kept_until_there_is_a_sign_of_life(
    near: NearCache,
) -> None:
    """Or what is read now could be changed with nobody to tell."""
    near.restart()

    assert near.begin(KEY) is None
    assert not near.is_trusted


def test_a_copy_that_goes_as_trust_is_renewed_is_not_used(clock: FakeClock) -> None:
    """It is looked for after the trust: between the two, what changed may be told."""

    class Overtaken(NearCache):
        """Has the follower's turn come in the moment in which the trust is read."""

        until = -math.inf
        is_due = False

        @property
        def _trusted_until(self) -> float:
            if self.is_due:
                self.is_due = False
                self.invalidate([KEY])
                self.renew(clock.now)
            return self.until

        @_trusted_until.setter
        def _trusted_until(self, until: float) -> None:
            self.until = until

    near = Overtaken(4, outage_grace=GRACE, monotonic=clock)
    near.renew(clock.now)
    keep(near, KEY)
    clock.now += TRUSTED_FOR
    near.is_due = True

    assert near.get(KEY) is None


def test_what_is_read_again_unchanged_stays_for_an_outage(
    near: NearCache, clock: FakeClock
) -> None:
    """A process that is slow for a moment has it still when the store goes away."""
    loading = near.begin(KEY)
    assert loading is not None
    near.end(KEY, loading, b"known", 3600.0)
    clock.now += TRUSTED_FOR

    near.forget(KEY, unless=b"known")
    assert near.get_in_outage(KEY) is not None

    near.forget(KEY, unless=b"newer")
    assert near.get_in_outage(KEY) is None


def test_nothing_is_left_of_what_is_read_and_gone(near: NearCache) -> None:
    loading = near.begin(KEY)
    assert loading is not None
    near.end(KEY, loading, b"known", 3600.0)

    near.forget(KEY, unless=None)

    assert near.get_in_outage(KEY) is None


def test_a_new_beginning_tells_when_the_store_was_heard(near: NearCache) -> None:
    """Who finds no copy any more must not think that the store still hangs."""
    near.restart(1007.5)
    assert near.last_reply_at == 1007.5

    near.restart()
    assert near.last_reply_at == 1007.5


def test_of_two_who_read_the_same_the_one_who_began_last_keeps(
    near: NearCache,
) -> None:
    """The other's reading may be older than a change between the two."""
    first, second = near.begin(KEY), near.begin(KEY)
    assert first and second

    near.end(KEY, second, b"new", 3600.0)
    near.end(KEY, first, b"old", 3600.0)

    copy = near.get(KEY)
    assert copy is not None and copy.stored == b"new"


def test_a_reading_without_result_leaves_nothing(near: NearCache) -> None:
    loading = near.begin(KEY)
    assert loading is not None

    near.end(KEY, loading, None)

    assert near.get(KEY) is None
    assert near._loading == {}


def test_a_change_drops_the_copy(near: NearCache) -> None:
    keep(near, KEY)
    keep(near, "other")

    near.invalidate([KEY, "of another process"])

    assert near.get(KEY) is None
    assert near.get("other") is not None
    assert near.invalidated == 1


def test_an_emptied_database_drops_everything(near: NearCache) -> None:
    """Redis tells of FLUSHDB without naming keys."""
    keep(near, KEY)

    near.invalidate(None)

    assert near.get(KEY) is None


def test_it_never_holds_more_than_it_may(near: NearCache) -> None:
    for number in range(100):
        keep(near, str(number))

    assert near.size == 4
    assert near.evicted == 96


def test_what_is_asked_for_stays_while_others_pass_through(near: NearCache) -> None:
    """A scan of people who are asked for once does not push out the regulars."""
    keep(near, KEY)
    for number in range(100):
        assert near.get(KEY) is not None
        keep(near, str(number))

    assert near.get(KEY) is not None


def test_making_room_takes_no_longer_the_more_there_are(clock: FakeClock) -> None:
    """However many copies are in use, few are passed over."""
    near = NearCache(100, outage_grace=GRACE, monotonic=clock)
    near.renew(clock.now)
    for number in range(100):
        keep(near, str(number))
        near.get(str(number))

    keep(near, KEY)

    still_used = sum(copy.used for copy in near._copies.values())
    assert still_used == 100 - SECOND_CHANCES - 1
    assert near.size == 100


def test_in_an_outage_copies_are_used_for_as_long_as_the_operator_says(
    near: NearCache, clock: FakeClock
) -> None:
    """Within their own life, too."""
    keep(near, KEY)
    keep(near, "short", lives_for=100.0)

    clock.now += TRUSTED_FOR + 99.0
    assert near.get(KEY) is None
    assert near.get_in_outage(KEY) is not None
    assert near.get_in_outage("short") is not None
    clock.now += 1.0
    assert near.get_in_outage("short") is None
    clock.now = 1000.0 + TRUSTED_FOR + GRACE
    assert near.get_in_outage(KEY) is None


def test_when_the_store_is_back_the_outage_s_copies_are_gone(near: NearCache) -> None:
    """Anything may have been removed meanwhile."""
    keep(near, KEY)

    near.restart()

    assert near.get_in_outage(KEY) is None


def test_what_was_read_and_is_not_there_any_more_is_no_outage_s_copy(
    near: NearCache, clock: FakeClock
) -> None:
    """Whether anybody would have told or not."""
    keep(near, KEY)
    loading = near.begin(KEY)
    assert loading is not None
    near.end(KEY, loading, None)
    assert near.get_in_outage(KEY) is None

    keep(near, KEY)
    near.forget(KEY, unless=None)
    assert near.get_in_outage(KEY) is None


def test_a_reading_that_failed_leaves_the_copy_to_the_outage(near: NearCache) -> None:
    """That it failed is how one comes to be noticed."""
    keep(near, KEY)
    loading = near.begin(KEY)
    assert loading is not None

    near.cancel(KEY, loading)

    assert near.get_in_outage(KEY) is not None
    assert near._loading == {}


class Wire:
    """A connection on which what comes is written down: pushes, answers, pauses."""

    host, port = "old", 6379

    def __init__(self, clock: FakeClock, told: deque[Any], *script: Any) -> None:
        self.clock = clock
        self.told = told
        self.script = list(script)

    def send_command(self, *command: str) -> None:
        assert command == ("PING",)

    def can_read(self, timeout: float) -> bool:
        if not self.script:
            self.clock.now += timeout
            return False
        if isinstance(self.script[0], float):
            self.clock.now += self.script.pop(0)
            return False
        return True

    def read_response(self, *, push_request: bool) -> Any:
        message = self.script.pop(0)
        if isinstance(message, list):
            self.told.append(message)
            return None
        return message


def beat(near: NearCache, clock: FakeClock, *script: Any) -> None:
    """One sign of life is asked for, and this is what comes."""
    told: deque[Any] = deque()
    client = SimpleNamespace(connection_pool=None)
    follower = InvalidationListener(client, "pp:e:", monotonic=clock)  # type: ignore[arg-type]
    follower._beat(Wire(clock, told, *script), near, told)


CHANGED = [b"invalidate", [b"pp:e:{default:1254001000000001}"]]


def test_trust_counts_from_when_the_sign_of_life_was_asked_for(
    near: NearCache, clock: FakeClock
) -> None:
    """Not from when it came: what it proves ends where it was sent."""
    asked_at = clock.now

    beat(near, clock, 0.3, b"PONG")

    assert near._trusted_until == asked_at + TRUSTED_FOR


@pytest.mark.parametrize(("took", "is_heard"), [(0.2, True), (0.3, False)])
def test_a_store_that_is_slow_to_give_a_sign_of_life_may_hang_all_the_same(
    near: NearCache, clock: FakeClock, took: float, is_heard: bool
) -> None:
    """Whoever asked it would have given up by then; copies are true for as long."""
    clock.now += 0.1
    asked_at = clock.now

    beat(near, clock, took, b"PONG")

    assert (near.last_reply_at == asked_at) is is_heard
    assert near._trusted_until == asked_at + TRUSTED_FOR


def test_what_comes_before_the_sign_of_life_is_heeded_before_it(
    clock: FakeClock,
) -> None:
    """Trusted first, a copy could be used that is known to be gone."""
    events: list[str] = []

    class Watched(NearCache):
        def invalidate(self, keys: list[str] | None) -> None:
            events.append("invalidate")

        def renew(self, asked_at: float) -> None:
            events.append("trust")

    beat(
        Watched(4, outage_grace=GRACE, monotonic=clock),
        clock,
        CHANGED,
        b"PONG",
        CHANGED,
    )

    assert events == ["invalidate", "trust", "invalidate"]


@pytest.mark.parametrize("keys", [CHANGED, [b"invalidate", None]])
def test_a_message_drops_the_copy_it_is_about(
    near: NearCache, clock: FakeClock, keys: Any
) -> None:
    """By the tag of the person; None is about all of them."""
    keep(near, KEY)

    beat(near, clock, keys, b"PONG")

    assert near.get_in_outage(KEY) is None


def test_a_connection_that_is_silent_is_given_up(
    near: NearCache, clock: FakeClock
) -> None:
    with pytest.raises(redis.TimeoutError):
        beat(near, clock, CHANGED, 5.0)


def test_a_master_that_leads_no_more_is_left(near: NearCache, clock: FakeClock) -> None:
    """Though it answers: whoever erases asks another."""

    class Elsewhere(SentinelConnectionPool):
        def __init__(self) -> None:
            """Knows only this."""

        def get_master_address(self) -> tuple[str, int]:
            return "new", 6379

    follower = InvalidationListener(
        SimpleNamespace(connection_pool=Elsewhere()),  # type: ignore[arg-type]
        "pp:e:",
        monotonic=clock,
    )
    told: deque[Any] = deque()

    with pytest.raises(redis.ConnectionError):
        follower._beat(Wire(clock, told, b"PONG"), near, told)


def test_a_new_master_is_no_reason_to_trust_the_old_one_for_longer(
    near: NearCache, clock: FakeClock
) -> None:
    """The time that Sentinels take to name it counts: it may have led no more since."""

    class Slow(SentinelConnectionPool):
        def __init__(self) -> None:
            """Knows only this."""

        def get_master_address(self) -> tuple[str, int]:
            clock.now += 0.3
            return Wire.host, Wire.port

    client = SimpleNamespace(connection_pool=Slow())
    follower = InvalidationListener(client, "pp:e:", monotonic=clock)  # type: ignore[arg-type]
    asked_at, told = clock.now, deque[Any]()

    follower._beat(Wire(clock, told, b"PONG"), near, told)

    assert near._trusted_until == asked_at + TRUSTED_FOR


class Store:
    """A pool with one connection, to a store that says *answer* to being followed."""

    def __init__(self, clock: FakeClock, answer: Any) -> None:
        self.connection_kwargs: dict[str, Any] = {}
        self._parser = SimpleNamespace(set_invalidation_push_handler=lambda told: None)
        self.clock = clock
        self.answer = answer

    def connection_class(self, **options: Any) -> Any:
        return self

    def connect(self) -> None:
        self.clock.now += 0.1

    def disconnect(self) -> None:
        """There is nothing to close."""

    def send_command(self, *command: str) -> None:
        if command == ("PING",):
            raise redis.ConnectionError

    def read_response(self) -> Any:
        self.clock.now += 0.1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_a_store_that_lets_itself_be_followed_has_been_heard(
    near: NearCache, clock: FakeClock
) -> None:
    """Whoever finds that the copies are gone must not take it for hanging."""
    keep(near, KEY)
    client = SimpleNamespace(connection_pool=Store(clock, b"OK"))
    asked_at = clock.now + 0.1

    with pytest.raises(redis.ConnectionError):
        InvalidationListener(client, "pp:e:", monotonic=clock).follow(near)  # type: ignore[arg-type]

    assert (near.size, near.last_reply_at) == (0, asked_at)


@pytest.mark.parametrize(
    "refusal", [redis.ResponseError("unknown subcommand 'TRACKING'"), KeyError("a bug")]
)
def test_of_a_store_that_cannot_be_followed_no_copy_is_left(
    near: NearCache, clock: FakeClock, refusal: Exception
) -> None:
    """One from before its fail-over would be answered in an outage. It goes on."""
    keep(near, KEY)
    client = SimpleNamespace(connection_pool=Store(clock, refusal))

    class Enough(Exception):
        """It would go on for ever."""

    def stop(seconds: float) -> None:
        raise Enough

    follower = InvalidationListener(client, "pp:e:", monotonic=clock, sleep=stop)  # type: ignore
    with pytest.raises(Enough):
        follower.run(near)

    assert (near.size, near.is_trusted) == (0, False)


def test_whoever_follows_is_started_once_and_not_before_somebody_asks() -> None:
    """Before that the process may still be forked, and threads would not be."""
    started: list[NearCache] = []
    near = NearCache(4, outage_grace=GRACE, start=started.append)
    assert started == []

    near.begin(KEY)
    near.begin(KEY)

    assert started == [near]
