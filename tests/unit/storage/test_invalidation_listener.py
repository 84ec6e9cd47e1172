"""The invalidation listener: how it keeps a near cache true, over one connection."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from redis.sentinel import SentinelConnectionPool

from proxy.storage.invalidation_listener import InvalidationListener
from proxy.storage.near_cache import TRUSTED_FOR, NearCache
from tests.helpers.fakes import FakeClock

KEY = "default:1254001000000001"
GRACE = 600.0


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1000.0)


@pytest.fixture
def near(clock: FakeClock) -> NearCache:
    """A near cache that is trusted at the moment."""
    near = NearCache(4, outage_grace=GRACE, monotonic=clock)
    near.renew(clock.now)
    return near


def keep(near: NearCache, key: str) -> None:
    pending = near.begin_read(key)
    assert pending is not None
    near.end_read(key, pending, b"stored", 3600.0)


class Wire:
    """A connection that plays a script: pushes, replies, and pauses in seconds."""

    host, port = "old", 6379

    def __init__(self, clock: FakeClock, pushes: deque[Any], *script: Any) -> None:
        self.clock = clock
        self.pushes = pushes
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
            self.pushes.append(message)
            return None
        return message


def beat(near: NearCache, clock: FakeClock, *script: Any) -> None:
    """Send one ping; the connection plays *script* in reply."""
    pushes: deque[Any] = deque()
    client = SimpleNamespace(connection_pool=None)
    listener = InvalidationListener(client, "pp:e:", monotonic=clock)  # type: ignore[arg-type]
    listener._beat(Wire(clock, pushes, *script), near, pushes)


CHANGED = [b"invalidate", [b"pp:e:{default:1254001000000001}"]]


def test_trust_counts_from_the_sending_of_the_ping(
    near: NearCache, clock: FakeClock
) -> None:
    """Not from its reply, which proves nothing about the time after the sending."""
    asked_at = clock.now

    beat(near, clock, 0.3, b"PONG")

    assert near._trusted_until == asked_at + TRUSTED_FOR


@pytest.mark.parametrize(("took", "is_prompt"), [(0.2, True), (0.3, False)])
def test_slow_reply_to_a_ping_does_not_prove_that_the_store_answers(
    near: NearCache, clock: FakeClock, took: float, is_prompt: bool
) -> None:
    """Its other callers would have timed out; local entries are trusted as long."""
    clock.now += 0.1
    asked_at = clock.now

    beat(near, clock, took, b"PONG")

    assert (near.last_reply_at == asked_at) is is_prompt
    assert near._trusted_until == asked_at + TRUSTED_FOR


def test_invalidation_before_a_reply_is_applied_before_trust_is_renewed(
    clock: FakeClock,
) -> None:
    """Otherwise a local entry could be used that is known to have changed."""
    events: list[str] = []

    class SentinelGroup(NearCache):
        def invalidate(self, keys: list[str] | None) -> None:
            events.append("invalidate")

        def renew(self, asked_at: float) -> None:
            events.append("renew")

    beat(
        SentinelGroup(4, outage_grace=GRACE, monotonic=clock),
        clock,
        CHANGED,
        b"PONG",
        CHANGED,
    )

    assert events == ["invalidate", "renew", "invalidate"]


@pytest.mark.parametrize("keys", [CHANGED, [b"invalidate", None]])
def test_push_drops_the_local_entry_that_it_names(
    near: NearCache, clock: FakeClock, keys: Any
) -> None:
    """By the hash tag of the person; None names all of them."""
    keep(near, KEY)

    beat(near, clock, keys, b"PONG")

    assert near.get_in_outage(KEY) is None


def test_listener_closes_a_connection_without_a_reply(
    near: NearCache, clock: FakeClock
) -> None:
    with pytest.raises(redis.TimeoutError):
        beat(near, clock, CHANGED, 5.0)


def test_listener_leaves_a_server_that_is_no_longer_the_master(
    near: NearCache, clock: FakeClock
) -> None:
    """Although it answers: an erase goes to the new master."""

    class Elsewhere(SentinelConnectionPool):
        def __init__(self) -> None:
            """Connect to no Sentinel."""

        def get_master_address(self) -> tuple[str, int]:
            return "new", 6379

    listener = InvalidationListener(
        SimpleNamespace(connection_pool=Elsewhere()),  # type: ignore[arg-type]
        "pp:e:",
        monotonic=clock,
    )
    pushes: deque[Any] = deque()

    with pytest.raises(redis.ConnectionError):
        listener._beat(Wire(clock, pushes, b"PONG"), near, pushes)


def test_slow_sentinels_do_not_extend_trust_in_the_old_master(
    near: NearCache, clock: FakeClock
) -> None:
    """The time they take to name a master counts: it may have been demoted since."""

    class Slow(SentinelConnectionPool):
        def __init__(self) -> None:
            """Connect to no Sentinel."""

        def get_master_address(self) -> tuple[str, int]:
            clock.now += 0.3
            return Wire.host, Wire.port

    client = SimpleNamespace(connection_pool=Slow())
    listener = InvalidationListener(client, "pp:e:", monotonic=clock)  # type: ignore[arg-type]
    asked_at, pushes = clock.now, deque[Any]()

    listener._beat(Wire(clock, pushes, b"PONG"), near, pushes)

    assert near._trusted_until == asked_at + TRUSTED_FOR


class Store:
    """A pool with one connection, to a store that replies *answer* to tracking."""

    def __init__(self, clock: FakeClock, answer: Any) -> None:
        self.connection_kwargs: dict[str, Any] = {}
        self._parser = SimpleNamespace(
            set_invalidation_push_handler=lambda handler: None
        )
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


def test_reply_to_tracking_proves_that_the_store_answers(
    near: NearCache, clock: FakeClock
) -> None:
    """A reader who finds no local entry must not conclude that the store hangs."""
    keep(near, KEY)
    client = SimpleNamespace(connection_pool=Store(clock, b"OK"))
    asked_at = clock.now + 0.1

    with pytest.raises(redis.ConnectionError):
        InvalidationListener(client, "pp:e:", monotonic=clock).listen(near)  # type: ignore[arg-type]

    assert (near.size, near.last_reply_at) == (0, asked_at)


@pytest.mark.parametrize(
    "refusal", [redis.ResponseError("unknown subcommand 'TRACKING'"), KeyError("bug")]
)
def test_listener_clears_the_near_cache_of_a_store_without_tracking(
    near: NearCache, clock: FakeClock, refusal: Exception
) -> None:
    """A local entry from before its fail-over would be served in an outage.

    The listener goes on, after any error.
    """
    keep(near, KEY)
    client = SimpleNamespace(connection_pool=Store(clock, refusal))

    class Enough(Exception):
        """Ends the listener, which would go on for ever."""

    def stop(seconds: float) -> None:
        raise Enough

    listener = InvalidationListener(client, "pp:e:", monotonic=clock, sleep=stop)  # type: ignore
    with pytest.raises(Enough):
        listener.run(near)

    assert (near.size, near.is_trusted) == (0, False)
