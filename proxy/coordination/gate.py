"""Whether Meta may be asked now: a Page's gate, and the quota in use.

A Page has one gate, shared by all processes, closed by up to four causes. Each
cause is a hash of its own that is forgotten an hour after it mattered last:

    pp:g:{page}:throttled                 failures  in a row, with no success between
    pp:g:{page}:token_rejected:<digest>   level     times it closed, with none between
    pp:g:{page}:permission                until     when it opens, by Redis's clock
    pp:g:{page}:unavailable               probe     who may find out whether it is over

A cause whose ``until`` is past has lapsed: the next caller takes the probe, which
moves ``until`` on by the length of a lease, so that everybody else finds the gate
closed while that one call is made. Its success removes the cause; its failure closes
the gate again, for longer; its death lets the next one try.

All moments here are Redis's own, so that hosts whose clocks differ agree.
"""

from __future__ import annotations

import hashlib
import logging
import math
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, cast

from proxy.domain.answer import FetchResult
from proxy.domain.backoff import LONGEST_CLOSURE, Backoff
from proxy.domain.failures import (
    Cause,
    GraphUnavailable,
    LookupFailure,
    Overloaded,
    PermissionMissing,
    Throttled,
    TokenRejected,
)
from proxy.domain.profile import Igsid, Outcome, Profile, Reason, Refusal
from proxy.storage.entries import token_key
from proxy.storage.flask_cache import ProfileCache
from proxy.storage.store_guard import GuardedCall, StoreGuard

USAGE_LIVES = 300.0
"""Seconds for which a reading of Meta's quota headers is believed."""

REMEMBERED_FOR = 3600.0
"""Seconds for which failures and back-off are remembered after they mattered last."""

USAGE_READ_AGAIN = 60.0
"""Seconds after which a caller whom the soft limit stopped may ask again."""

DOUBTED_FROM = 10
"""Different people in a row whom Meta does not show (100/33), with no profile between,
until that is taken for a lost permission."""

DOUBT_LIVES = 86400.0
"""Seconds for which such a row is remembered after its last one."""

TALLY_LIVES = 86400.0
"""Seconds for which counts are kept after the last one."""

_NO_LIMIT = 1e9
"""A percentage that nothing reaches."""

log = logging.getLogger(__name__)

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

# KEYS: the causes, the usage, the token that is noted. ARGV: a probe, its length, a
# limit on the usage. Reading the token keeps a full store from evicting it.
_PASS = (
    _NOW
    + """
local last = #KEYS - 1
local usage = redis.call('GET', KEYS[last]) or ''
local noted = redis.call('GET', KEYS[last + 1]) or ''
if tonumber(usage) and tonumber(usage) >= tonumber(ARGV[3]) then
  return {-1, 0, usage, 0, noted}
end
local cause, wait, lapsed = 0, 0, {}
for i = 1, last - 1 do
  local till = tonumber(redis.call('HGET', KEYS[i], 'until') or '')
  if till and till > now then
    if till - now > wait then cause, wait = i, till - now end
  elseif till then
    lapsed[#lapsed + 1] = KEYS[i]
  end
end
if cause > 0 then return {cause, wait, usage, 0, noted} end
for _, key in ipairs(lapsed) do
  redis.call('HSET', key, 'until', now + ARGV[2], 'probe', ARGV[1])
end
return {0, 0, usage, #lapsed, noted}
"""
)

_NOTE_USAGE = """
local function note_usage(key, percent)
  if percent ~= '' then redis.call('SET', key, percent, 'PX', {lives}) end
end
""".replace("{lives}", str(math.floor(USAGE_LIVES * 1000)))

# Whoever probes and has learned nothing of a cause lets the next caller probe it.
_END_PROBE = """
local function end_probe(key, probe, now)
  if probe ~= '' and redis.call('HGET', key, 'probe') == probe then
    redis.call('HSET', key, 'until', now)
    redis.call('HDEL', key, 'probe')
  end
end
"""

# KEYS: the causes that are over, the usage, the doubted. ARGV: our probe, the usage,
# whether a profile was told.
_SUCCEED = (
    _NOW
    + _NOTE_USAGE
    + """
local last = #KEYS
note_usage(KEYS[last - 1], ARGV[2])
if ARGV[3] == '1' then redis.call('DEL', KEYS[last]) end
local opened = {}
for i = 1, last - 2 do
  local state = redis.call('HMGET', KEYS[i], 'until', 'probe')
  local till = tonumber(state[1] or '')
  if not till or till <= now or state[2] == ARGV[1] then
    if redis.call('DEL', KEYS[i]) == 1 and till then opened[#opened + 1] = i end
  end
end
return opened
"""
)

# KEYS: the usage, the cause, the other causes. ARGV: our probe, the usage, and in
# milliseconds the wait that was asked for, then failures until it closes, first wait,
# longest wait, and how long all this is remembered.
_FAIL = (
    _NOW
    + _NOTE_USAGE
    + _END_PROBE
    + """
note_usage(KEYS[1], ARGV[2])
for i = 3, #KEYS do end_probe(KEYS[i], ARGV[1], now) end
local key = KEYS[2]
local state = redis.call('HMGET', key, 'until', 'probe', 'level')
local till, level = tonumber(state[1] or '') or 0, tonumber(state[3] or '') or 0
local is_probe = ARGV[1] ~= '' and state[2] == ARGV[1]
local failures = redis.call('HINCRBY', key, 'failures', 1)
local closes = 0
if failures >= tonumber(ARGV[4]) then
  if is_probe then till = 0 end
  if till <= now then
    closes, level = 1, level + 1
  end
  local wait = tonumber(ARGV[3])
  if wait == 0 then
    wait = math.min(ARGV[5] * 2 ^ math.min(level - 1, 30), tonumber(ARGV[6]))
  end
  till = math.max(till, now + math.floor(wait))
  redis.call('HSET', key, 'until', till, 'level', level)
  if is_probe then redis.call('HDEL', key, 'probe') end
end
local left = math.max(till - now, 0)
redis.call('PEXPIRE', key, left + tonumber(ARGV[7]))
return {closes, left, failures}
"""
)

_GIVE_BACK = (
    _NOW + _END_PROBE + "for _, key in ipairs(KEYS) do end_probe(key, ARGV[1], now) end"
)

# KEYS: the doubted. ARGV: a person, how many are enough, how long that is remembered.
_DOUBT = """
if redis.call('SCARD', KEYS[1]) < tonumber(ARGV[2]) then
  redis.call('SADD', KEYS[1], ARGV[1])
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return redis.call('SCARD', KEYS[1])
"""

# KEYS: the causes, the usage, the doubted, the tally. What an operator sees.
_LOOK = (
    _NOW
    + """
local last, rows = #KEYS - 1, {}
for i = 1, last - 2 do
  local state = redis.call('HMGET', KEYS[i], 'failures', 'until', 'probe')
  local left = 0
  if state[2] then left = math.max(tonumber(state[2]) - now, 0) end
  rows[i] = {tonumber(state[1] or '0'), left, state[3] and 1 or 0}
end
return {rows, redis.call('GET', KEYS[last - 1]) or '', redis.call('SCARD', KEYS[last]),
        redis.call('HMGET', KEYS[last + 1], unpack(ARGV))}
"""
)

_COUNT = """
redis.call('HINCRBY', KEYS[1], ARGV[1], 1)
redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""

_RAISED: dict[Cause, type[LookupFailure]] = {
    Cause.THROTTLED: Throttled,
    Cause.TOKEN_REJECTED: TokenRejected,
    Cause.PERMISSION: PermissionMissing,
    Cause.UNAVAILABLE: GraphUnavailable,
}
"""As what a stopped call is answered."""

_LEVELS = {
    Cause.THROTTLED: logging.WARNING,
    Cause.TOKEN_REJECTED: logging.ERROR,
    Cause.PERMISSION: logging.ERROR,
    Cause.UNAVAILABLE: logging.WARNING,
}
"""A token or a permission does not come back by itself: somebody must act."""


class Permit(NamedTuple):
    """A call that may be made. *probe* is empty unless the gate's opening hangs on it;
    *usage_percent* is the last reading of our quota, None where there is none."""

    token_digest: str
    probe: str
    usage_percent: float | None
    noted_token: str | None = None


@dataclass(frozen=True, slots=True)
class CauseState:
    """One cause as an operator sees it; *closed_for* is in seconds, 0.0 when open."""

    cause: Cause
    closed_for: float
    failures: int
    is_probed: bool


@dataclass(frozen=True, slots=True)
class GateState:
    """A Page's gate at one moment. *doubted* counts people in a row (100/33)."""

    causes: tuple[CauseState, ...]
    usage_percent: float | None
    doubted: int
    tally: Mapping[RefreshCounter, int]


class _Closed(NamedTuple):
    """What this process was told last: *until* when, by its own clock, and why."""

    cause: Cause
    token_digest: str
    until: float


class RefreshCounter(StrEnum):
    """What is counted of the background, over all processes, for operators."""

    REFRESHED = "refreshed"
    REFRESH_FAILED = "refresh_failed"


class Gate:
    """One Page's gate. Every method costs one trip to the store.

    All raise StoreUnavailable when the store cannot be reached.
    """

    def __init__(
        self,
        cache: ProfileCache,
        page: str,
        *,
        guard: StoreGuard,
        backoffs: Mapping[Cause, Backoff],
        probe_for: float,
        usage_soft: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """*probe_for* is in seconds: as long as a lease lasts.

        *usage_soft* is a percentage.
        *monotonic* is monotonic, in seconds.
        """
        self._cache = cache
        self._page = page
        self._guard = guard
        self._backoffs = backoffs
        self._probe_for = probe_for
        self._usage_soft = usage_soft
        self._monotonic = monotonic
        self._closed: _Closed | None = None
        script = cache.client.register_script
        self._pass, self._succeed, self._fail = map(script, (_PASS, _SUCCEED, _FAIL))
        self._release_probe, self._doubt = script(_GIVE_BACK), script(_DOUBT)
        self._look = script(_LOOK)
        self._count = script(_COUNT)

    def acquire(self, token_digest: str, *, in_background: bool = False) -> Permit:
        """Let one call to Meta through, or raise the cause that stops it.

        Raises:
            LookupFailure: the cause that keeps the gate closed longest; or
                Overloaded, *in_background*, above the soft limit on our quota.
        """
        probe = secrets.token_hex(8)
        keys = [*self._causes(token_digest), self._usage, self._token]
        limit = self._usage_soft if in_background else _NO_LIMIT
        args: list[str | int | float] = [probe, _milliseconds(self._probe_for), limit]
        with self._guarded("writes"):
            number, wait, usage, lapsed, noted = cast(
                "tuple[int, int, bytes, int, bytes]", self._pass(keys=keys, args=args)
            )
        if number < 0:
            raise Overloaded(retry_after=USAGE_READ_AGAIN)
        if number:
            cause = tuple(Cause)[number - 1]
            self._remember(cause, token_digest, wait / 1000)
            raise _RAISED[cause](retry_after=wait / 1000, asked=False)
        self._closed = None
        probe = probe if lapsed else ""
        token = noted.decode("ascii", "replace") or None
        return Permit(token_digest, probe, _percent(usage), token)

    def acquire_without_store(self, token_digest: str) -> None:
        """Let one call through while the store is away, as far as this process knows.

        Raises:
            LookupFailure: what stopped a call, or made Meta refuse one, a while ago.
        """
        closed = self._closed
        if closed is None:
            return
        left = closed.until - self._monotonic()
        is_other = closed.cause is Cause.TOKEN_REJECTED and (
            closed.token_digest != token_digest
        )
        if left > 0 and not is_other:
            raise _RAISED[closed.cause](retry_after=left, asked=False)

    def fail_without_store(self, failure: LookupFailure, told: FetchResult) -> None:
        """Remember, in this process, a *failure* that closes the gate by itself."""
        cause = failure.cause
        assert cause is not None  # Meta was asked, so it is about Meta.
        backoff = self._backoffs[cause]
        if backoff.failures == 1:
            wait = failure.retry_after or backoff.first
            self._remember(cause, told.token_digest, min(wait, LONGEST_CLOSURE))

    def _remember(self, cause: Cause, token_digest: str, seconds: float) -> None:
        self._closed = _Closed(cause, token_digest, self._monotonic() + seconds)

    def release_probe(self, permit: Permit) -> None:
        """Make no use of *permit*: the next caller may probe."""
        if permit.probe:
            with self._guarded("writes"):
                keys = self._causes(permit.token_digest)
                self._release_probe(keys=keys, args=[permit.probe])

    def succeed(self, permit: Permit, outcome: Outcome, told: FetchResult) -> None:
        """Meta told a fact: what had lapsed, or not closed yet, is forgotten.

        A gate that is closed is opened only by the probe. ``unavailable``
        (100/33) does not show that the permissions are there, and only a
        profile ends the doubt that a row of it has raised.
        """
        causes = dict(zip(Cause, self._causes(told.token_digest), strict=True))
        is_profile = isinstance(outcome, Profile)
        left_open: list[str] = []
        if isinstance(outcome, Refusal) and outcome.reason is Reason.UNAVAILABLE:
            left_open = [causes.pop(Cause.PERMISSION)]
        keys = [*causes.values(), self._usage, self._doubted]
        args: list[str | int | float] = [
            permit.probe,
            _text(told.usage_percent),
            int(is_profile),
        ]
        with self._guarded("writes"):
            opened = cast("list[int]", self._succeed(keys=keys, args=args))
            if left_open and permit.probe:
                self._release_probe(keys=left_open, args=[permit.probe])
        for number in opened:
            line = {"page": self._page, "cause": [*causes][number - 1].value}
            log.warning("gate opened", extra=line)

    def fail(self, permit: Permit, failure: LookupFailure, told: FetchResult) -> float:
        """Count *failure* towards its cause; for how many seconds the gate is closed.

        0.0: it is not closed, or not yet. The token that counts is the one that
        was used, which may be newer than when the gate was passed.
        """
        cause = failure.cause
        assert cause is not None  # Meta was asked, so it is about Meta.
        backoff = self._backoffs[cause]
        causes = dict(zip(Cause, self._causes(told.token_digest), strict=True))
        keys = [self._usage, causes.pop(cause), *causes.values()]
        waits = (failure.retry_after or 0.0, backoff.first, backoff.longest)
        asked, first, longest = (min(wait, LONGEST_CLOSURE) for wait in waits)
        args: list[str | int | float] = [
            permit.probe,
            _text(told.usage_percent),
            _milliseconds(asked),
            backoff.failures,
            _milliseconds(first),
            _milliseconds(longest),
            _milliseconds(REMEMBERED_FOR),
        ]
        with self._guarded("writes"):
            closes, left, failures = cast(
                "tuple[int, int, int]", self._fail(keys=keys, args=args)
            )
        if closes:
            log.log(
                _LEVELS[cause],
                "gate closed",
                extra={
                    "page": self._page,
                    "cause": cause.value,
                    "seconds": left / 1000,
                    "failures": failures,
                },
            )
        if left:
            self._remember(cause, told.token_digest, left / 1000)
        return left / 1000

    def doubt(self, igsid: Igsid) -> bool:
        """Note that Meta does not show *igsid*; whether too many in a row say so.

        Then it is rather we who may not see anybody any more.
        """
        # Not the id itself: an erasure must reach all that is stored of a person.
        person = hashlib.sha256(igsid.encode()).hexdigest()[:16]
        args: list[str | int | float] = [
            person,
            DOUBTED_FROM,
            _milliseconds(DOUBT_LIVES),
        ]
        with self._guarded("writes"):
            row = cast(int, self._doubt(keys=[self._doubted], args=args))
        return row >= DOUBTED_FROM

    def read_state(self, token_digest: str) -> GateState:
        """How it is. Changes nothing, and asks nobody."""
        keys = [*self._causes(token_digest), self._usage, self._doubted, self._tally]
        with self._guarded("reads"):
            rows, usage, doubted, counts = cast(
                "tuple[list[tuple[int, int, int]], bytes, int, list[bytes | None]]",
                self._look(keys=keys, args=[what.value for what in RefreshCounter]),
            )
        tally = dict(
            zip(RefreshCounter, (int(count or 0) for count in counts), strict=True)
        )
        causes = tuple(
            CauseState(cause, left / 1000, failures, bool(probed))
            for cause, (failures, left, probed) in zip(Cause, rows, strict=True)
        )
        return GateState(causes, _percent(usage), doubted, tally)

    def count(self, what: RefreshCounter) -> None:
        """Count one more of *what*."""
        args: list[str | int] = [what.value, _milliseconds(TALLY_LIVES)]
        with self._guarded("writes"):
            self._count(keys=[self._tally], args=args)

    def _causes(self, token_digest: str) -> list[str]:
        """The key of each cause, in the order of ``Cause``, in one slot."""
        names = [
            f"{cause}:{token_digest}" if cause is Cause.TOKEN_REJECTED else cause.value
            for cause in Cause
        ]
        return [self._cache.whole_key(f"g:{{{self._page}}}:{name}") for name in names]

    def _guarded(self, kind: str) -> GuardedCall:
        """All keys of a Page's gate are in one place."""
        return self._guard.call(kind, self._cache.node_name(token_key(self._page)))

    @property
    def _tally(self) -> str:
        return self._cache.whole_key(f"c:{{{self._page}}}")

    @property
    def _token(self) -> str:
        """Where the store notes it (see ``EntryStore.note_token``)."""
        return self._cache.whole_key(token_key(self._page))

    @property
    def _usage(self) -> str:
        return self._cache.whole_key(f"u:{{{self._page}}}")

    @property
    def _doubted(self) -> str:
        return self._cache.whole_key(f"d:{{{self._page}}}")


def _milliseconds(seconds: float) -> int:
    return math.floor(seconds * 1000)


def _text(percent: float | None) -> str:
    return "" if percent is None else str(percent)


def _percent(stored: bytes) -> float | None:
    try:
        return float(stored)
    except ValueError:
        return None
